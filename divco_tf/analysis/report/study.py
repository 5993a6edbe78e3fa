"""What a report is about: cells as arms (settings, each with some seeds), and tasks, within which arms compare."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from divco_tf import files
from divco_tf.analysis.judged import Judged, judged, load_judged
from divco_tf.analysis.results import is_sweep, read_rows
from divco_tf.data.datasets import get_dataset
from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean

SPLITS = {"test": "test", "held_out": "held-out", "train": "training"}
"""And what they are called; of the first that all cells were judged on is told."""
_OF_TASK = ("dataset", "backbone", "train_images")
_OF_ARM = ("seed", "split_factor", *_OF_TASK)  # what does not stand in an arm's name as it stands in the arguments


@dataclasses.dataclass(frozen=True)
class Task:
    """What arms have in common where they are compared.

    Attributes:
      dataset: its name.
      backbone: of the large network.
      train_images: how many are trained on; None: all.
    """

    dataset: str
    backbone: str
    train_images: int | None

    @property
    def amount(self) -> str:
        """Of training images, in words."""
        return "all images" if self.train_images is None else f"{self.train_images:,} images"


@dataclasses.dataclass(frozen=True)
class Result:
    """A cell that is done.

    Attributes:
      row: of results.jsonl.
      metrics: of the split that is told.
      judged: what it made of each image of that split; None: that was not kept.
    """

    row: Mapping[str, Any]
    metrics: Mapping[str, Any]
    judged: Judged | None

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.row["seed"]


@dataclasses.dataclass(frozen=True)
class Arm:
    """A setting, trained with some seeds.

    Attributes:
      name: "S=4, loss=none": S, and what varies between arms of a task, by the last part of its path if that is clear;
        of what is True the name alone.
      task: among whose arms it is.
      results: one a seed, in the order of seeds.
      extras: how many settings differ from the sweep's experiment, S aside: a plain arm has none.
    """

    name: str
    task: Task
    results: tuple[Result, ...]
    extras: int = 0

    @property
    def split_factor(self) -> int:
        """S."""
        return self.results[0].row["split_factor"]

    @property
    def judged(self) -> list[Judged]:
        """One a seed, of those that were kept."""
        return [result.judged for result in self.results if result.judged is not None]

    def values(self, metric: str) -> list[float]:
        """Of a metric, one a seed, of those that have it."""
        return [result.metrics[metric] for result in self.results if metric in result.metrics]

    def of_row(self, name: str) -> list[Any]:
        """What the rows have under a name, one a seed, of those that have it."""
        return [result.row[name] for result in self.results if result.row.get(name) is not None]


@dataclasses.dataclass(frozen=True)
class Study:
    """All cells of a sweep, or one run.

    Attributes:
      name: of the folder.
      split: "test" or "held_out": which images are told of.
      arms: by task, and by S.
      baseline: the name of the arm that others are compared with; None where no cell is done.
      failed: rows of cells that failed, or cannot be told of.
      experiment: what all cells start from, as sweep.json tells; empty where there is none.
      common: arguments that all cells have in common.
      class_names: None: only their number is known.
    """

    name: str
    split: str
    arms: tuple[Arm, ...]
    baseline: str | None
    failed: tuple[Mapping[str, Any], ...] = ()
    experiment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    common: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] | None = None

    @property
    def tasks(self) -> list[Task]:
        """In order: more training images come later."""
        return list(dict.fromkeys(arm.task for arm in self.arms))

    @property
    def names(self) -> list[str]:
        """Of arms, each once."""
        return list(dict.fromkeys(arm.name for arm in self.arms))

    def of_task(self, task: Task) -> list[Arm]:
        """Its arms."""
        return [arm for arm in self.arms if arm.task == task]

    def baseline_of(self, task: Task) -> Arm | None:
        """The arm that others of the task are compared with, if it has it."""
        return next((arm for arm in self.of_task(task) if arm.name == self.baseline), None)

    def focus(self, task: Task) -> Arm:
        """The arm that is shown where there is room for one: of the plainest with S above 1 that of most branches."""
        return min(
            self.of_task(task),
            key=lambda arm: (arm.split_factor == 1, arm.name == self.baseline, arm.extras, -arm.split_factor),
        )

    def label(self, arm: Arm) -> str:
        """An arm's name, and what tells its task from the others."""
        return ", ".join(filter(None, [arm.name, self.told(arm.task)]))

    def told(self, task: Task) -> str:
        """A task, by what tells it from the others; empty where it is the only one."""
        tasks = self.tasks
        parts = [getattr(task, name) for name in ("dataset", "backbone") if len({getattr(t, name) for t in tasks}) > 1]
        return ", ".join([*parts, *[task.amount] * (len({t.train_images for t in tasks}) > 1)])


def read_study(folder: str | pathlib.Path, *, baseline: str | None = None, data_dir: str | None = None) -> Study:
    """The study in a folder: of a sweep, or one run, which then answers to all images once more.

    Args:
      folder: of `Sweep`, or a model_dir.
      baseline: the name of the arm that others are compared with. None: the plainest of those with S=1, or else of all.
      data_dir: where the dataset of a run lies; a sweep's is not opened here.

    Raises:
      InputError: neither lies there, something is damaged, or no arm is called like the baseline.
    """
    folder = files.local_path(folder, "the folder of a sweep or a run")
    study = _of_sweep(folder) if is_sweep(folder) else _of_run(folder, data_dir)
    if baseline is not None and baseline not in study.names:
        raise InputError(f"No arm is called so. Received: {baseline}.{did_you_mean(baseline, study.names)}")
    return dataclasses.replace(study, baseline=baseline or study.baseline)


def grouped(
    rows: Iterable[Mapping[str, Any]],
    judged_of: Mapping[str, Mapping[str, Judged]],
    *,
    name: str,
    experiment: Mapping[str, Any] | None = None,
) -> Study:
    """Rows of results as a study.

    Args:
      rows: of results.jsonl.
      judged_of: by cell, then by split; some or all may be missing.
      name: of the study.
      experiment: what the cells start from: a sweep's record of it.
    """
    rows, experiment = list(rows), experiment or {}
    done = [row for row in rows if row["status"] == "done"]
    failed = [row for row in rows if row["status"] != "done"]
    split = next((split for split in SPLITS if done and all(split in row for row in done)), None)
    if split is None:
        split = next((split for split in SPLITS if any(split in row for row in done)), "test")
        reason = f"it was not judged on {SPLITS[split]} images, as others were"
        failed += [{**row, "reason": reason} for row in done if split not in row]
        done = [row for row in done if split in row]
    keys, found = _naming(done), {}
    for row in sorted(done, key=lambda row: row["seed"]):
        result = Result(row, row[split], judged_of.get(row["cell"], {}).get(split))
        found.setdefault((_task(row), _name(row, keys)), []).append(result)
    arms = [
        Arm(arm, task, tuple(results), _extras(results[0].row, keys, experiment))
        for (task, arm), results in found.items()
    ]
    arms.sort(key=lambda arm: (_place(arm.task), arm.split_factor, arm.extras, arm.name))
    plainest = min(arms, key=lambda arm: (arm.split_factor != 1, arm.extras), default=None)
    return Study(
        name=name,
        split=split,
        arms=tuple(arms),
        baseline=plainest and plainest.name,
        failed=tuple(failed),
        experiment=experiment,
        common=_common(done),
    )


def _of_sweep(folder: pathlib.Path) -> Study:
    rows = read_rows(folder)
    kept = {row["cell"]: folder / "judged" / f"{row['cell']}.npz" for row in rows if row["status"] == "done"}
    found = {cell: load_judged(path) for cell, path in kept.items() if path.is_file()}
    try:
        experiment = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["experiment"]
    except (OSError, ValueError, KeyError, TypeError):
        experiment = {}  # results stand for themselves
    return grouped(rows, found, name=folder.resolve().name, experiment=experiment)


def _of_run(model_dir: pathlib.Path, data_dir: str | None) -> Study:
    from divco_tf.analysis.grid import Cell
    from divco_tf.analysis.outputs import outputs
    from divco_tf.analysis.sweep import row_of, weights_judged
    from divco_tf.runs.model_dir import open_model_dir

    run = open_model_dir(model_dir)
    cell = Cell(model_dir.resolve().name, {})
    found = {"test": outputs(model_dir, data_dir=data_dir, weights=weights_judged(run.experiment))}
    row = row_of(cell, run.experiment, model_dir, found)
    study = grouped(
        [row],
        {cell.name: {split: judged(each) for split, each in found.items()}},
        name=cell.name,
        experiment=run.experiment.identity(None),
    )
    return dataclasses.replace(study, class_names=run.class_names)


def class_names(study: Study, task: Task, num_classes: int) -> tuple[str, ...]:
    """Names of the classes of a task, or their numbers where names are not known."""
    known = study.class_names or get_dataset(task.dataset).class_names
    return known if known and len(known) >= num_classes else tuple(map(str, range(num_classes)))


def _task(row: Mapping[str, Any]) -> Task:
    return Task(row["dataset"], row["backbone"], row["arguments"].get("train_images"))


def _place(task: Task) -> tuple:
    return task.dataset, task.backbone, task.train_images is None, task.train_images or 0


def _settings(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row["arguments"].items() if key not in _OF_ARM}


def _naming(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The arguments that vary within a task: a length that goes with the amount of data tells no arms apart."""
    by_task: dict[Task, list[dict[str, Any]]] = {}
    for row in rows:
        by_task.setdefault(_task(row), []).append(_settings(row))
    keys = {
        key: None
        for of_task in by_task.values()
        for key in {key: None for settings in of_task for key in settings}
        if len({json.dumps(settings.get(key, "absent")) for settings in of_task}) > 1
    }
    return list(keys)


def _name(row: Mapping[str, Any], keys: Sequence[str]) -> str:
    settings, last = _settings(row), [key.rpartition(".")[2] for key in keys]
    told = {
        short if last.count(short) == 1 else key: settings[key]
        for key, short in zip(keys, last, strict=True)
        if key in settings
    }
    values = (key if value is True else f"{key}={value}" for key, value in told.items())
    return ", ".join([f"S={row['split_factor']}", *values])


def _extras(row: Mapping[str, Any], keys: Sequence[str], experiment: Mapping[str, Any]) -> int:
    settings = _settings(row)
    return sum(key in settings and settings[key] != _default(experiment, key) for key in keys)


def _default(experiment: Mapping[str, Any], path: str) -> Any:
    """What a field is in the sweep's experiment; a dictionary, which no setting is, where that is not known."""
    found: Any = experiment
    for part in path.split("."):
        found = found.get(part, {}) if isinstance(found, Mapping) else {}
    return found


def _common(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = rows[0]["arguments"] if rows else {}
    return {key: value for key, value in first.items() if all(row["arguments"].get(key) == value for row in rows)}
