"""Evaluates trained runs, or an exported SavedModel: divco-evaluate --model_dir runs/a,runs/b --data_dir data.

Prints each branch's accuracy and the ensemble's, NLL and calibration error; every image counts once. A single run is
told class by class. Several are compared with the first: sizes, intervals of the accuracies and of their differences,
and in what else than the split factor the runs differ. --confusion, --mistakes and --picture show what is taken for
what; with --corruptions a table tells the accuracy on images that are corrupted as CIFAR-10-C's are.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from absl import flags

from divco_tf import files
from divco_tf.data.datasets import ALL, SPLITS
from divco_tf.errors import InputError
from divco_tf.tools.shared import app, configs, evaluated, streams

if TYPE_CHECKING:
    from divco_tf.analysis.comparison import Compared
    from divco_tf.analysis.robustness import Robustness

_MODEL_DIR = flags.DEFINE_multi_string(
    "model_dir", [], "The folder of a run; several are separated by commas, or given by a flag each."
)
_SAVED_MODEL = flags.DEFINE_string("saved_model", None, "An exported SavedModel; it or --model_dir is required.")
_DATASET = flags.DEFINE_string("dataset", None, "Of --saved_model, which requires it: the name of a dataset.")
_DATA_DIR = app.data_dir_flag()
_SPLIT = flags.DEFINE_enum("split", "test", [*sorted(SPLITS), ALL], "Which images; all of a folder that has no splits.")
_WEIGHTS = flags.DEFINE_enum("weights", "last", ["last", "best", "ema"], "Of a run.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 500, "Images at once, over all devices; no figure depends on it.", lower_bound=1
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker_mirrored", "tpu", "branch_parallel"],
    "Of a run: on which devices.",
)
_JIT = flags.DEFINE_enum("jit", "auto", ["auto", "on", "off"], "Of a run: XLA.")
_JSON = app.json_flag()
_QUIET = app.quiet_flag()
_CORRUPTIONS = flags.DEFINE_bool(
    "corruptions", False, "Of a run: also its accuracy on images corrupted in 15 ways, by 5 severities each."
)
_CORRUPTED_IMAGES = flags.DEFINE_integer(
    "corrupted_images", None, "With --corruptions: so many of the images, for all of them 75 times.", lower_bound=1
)
_CONFUSION = flags.DEFINE_bool(
    "confusion", False, "The confusion matrix, and each class's accuracy, which is told of a single run anyway."
)
_MISTAKES = flags.DEFINE_integer("mistakes", 0, "So many wrong answers, the surest first.", lower_bound=0)
_PICTURE = flags.DEFINE_string("picture", None, "Of one run: a .png or .svg file for the confusion matrix.")

_OF_RUNS, _OF_EXPORTS = (_WEIGHTS, _STRATEGY, _JIT, _CORRUPTIONS, _CORRUPTED_IMAGES), (_DATASET,)


def main() -> None:
    """Evaluates what --model_dir or --saved_model names."""
    _check_flags()
    model_dirs = [folder for value in _MODEL_DIR.value for folder in _folders(value)]
    for folder in model_dirs:
        app.check_model_dir(folder)
    if _PICTURE.value and len(model_dirs) > 1:
        raise InputError(f"--picture is of one run. Received: {len(model_dirs)} runs; one --model_dir works.")
    if _PICTURE.value:
        files.make_writable(files.local_path(_PICTURE.value, "--picture").parent, "folder of --picture")
    app.load_tensorflow()
    found = _evaluate_export() if _SAVED_MODEL.value else _evaluate_runs(model_dirs)
    compared = _compare(found) if len(found) > 1 else {}
    corrupted = _evaluate_corrupted(model_dirs) if _CORRUPTIONS.value else {}
    if _PICTURE.value:
        _draw(*next(iter(found.items())))
    if _JSON.value:
        app.print_json(_all_as_json(found, compared, corrupted))
    else:
        print("\n\n".join(_all_as_text(found, compared, corrupted)))


def _all_as_json(found: dict, compared: dict, corrupted: dict) -> dict[str, Any]:
    told = {name: each.json(confusion=_CONFUSION.value, mistakes=bool(_MISTAKES.value)) for name, each in found.items()}
    for name, run in compared.items():
        told[name] |= dataclasses.asdict(run)
    for name, robustness in corrupted.items():
        told[name]["corruptions"] = _as_json(robustness)
    return told


def _all_as_text(found: dict, compared: dict, corrupted: dict) -> Iterator[str]:
    from divco_tf.tools.shared.tables import corruption_table, evaluation_table

    yield evaluation_table({name: each.evaluation for name, each in found.items()})
    if compared:
        yield evaluated.comparison_table(compared)
    asked = {"confusion": _CONFUSION.value, "mistakes": bool(_MISTAKES.value)}
    for name, each in found.items():
        yield from each.sections(f"{name}  " * (len(found) > 1), classes=len(found) == 1 or _CONFUSION.value, **asked)
    yield from map(corruption_table, corrupted, corrupted.values())


def _check_flags() -> None:
    if bool(_MODEL_DIR.value) == bool(_SAVED_MODEL.value):
        raise InputError(
            f"Give either --model_dir or --saved_model. Received: model_dir={','.join(_MODEL_DIR.value)!r}, "
            f"saved_model={_SAVED_MODEL.value!r}."
        )
    if _SAVED_MODEL.value and not _DATASET.value:
        raise InputError(
            "--saved_model needs a --dataset to be evaluated on. Received: none; --dataset digits is one, and "
            "--dataset image_folder --data_dir FOLDER is a folder of images."
        )
    for flag in _OF_RUNS if _SAVED_MODEL.value else _OF_EXPORTS:
        if flags.FLAGS[flag.name].present:
            what = "--saved_model" if _SAVED_MODEL.value else "--model_dir"
            raise InputError(f"--{flag.name} is not of {what}. Received: {flag.value!r}; leaving it out works.")
    if _PICTURE.value and pathlib.Path(_PICTURE.value).suffix not in (".png", ".svg"):
        raise InputError(f"A picture is a .png or .svg file. Received: {_PICTURE.value}; confusion.png works.")
    if _CORRUPTED_IMAGES.value is not None and not _CORRUPTIONS.value:
        raise InputError(
            f"--corrupted_images is of --corruptions. Received: {_CORRUPTED_IMAGES.value} without it; both would work."
        )


def _folders(value: str) -> list[str]:
    """The folders that one --model_dir names: itself where it is one, commas and all, else what commas separate."""
    if pathlib.Path(value).is_dir():
        return [value]
    return [folder for part in value.split(",") if (folder := part.strip())]


def _evaluate_runs(model_dirs: list[str]) -> dict[str, evaluated.Evaluated]:
    from divco_tf.runs import evaluation

    def evaluate(model_dir: str, **options: Any) -> evaluated.Evaluated:
        return evaluated.evaluated(*evaluation.evaluate_in_full(model_dir, **options), mistakes=_MISTAKES.value)

    return _of_each(model_dirs, evaluate)


def _compare(found: dict[str, evaluated.Evaluated]) -> dict[str, "Compared"]:
    from divco_tf.analysis.comparison import Scored, compare_runs
    from divco_tf.runs.model_dir import open_model_dir

    scored = [Scored(open_model_dir(name), each.correct, each.images) for name, each in found.items()]
    return dict(zip(found, compare_runs(scored), strict=True))


def _draw(name: str, found: evaluated.Evaluated) -> None:
    from divco_tf.analysis.report import drawing, quality

    title = f"Confusion of {name}, {found.evaluation.images:,} {found.evaluation.split} images"
    drawing.save(quality.confusion_drawn("confusion", found.confusion, found.class_names, title=title), _PICTURE.value)


def _evaluate_corrupted(model_dirs: list[str]) -> dict:
    from divco_tf.analysis.robustness import evaluate_robustness

    return _of_each(model_dirs, evaluate_robustness, images=_CORRUPTED_IMAGES.value, report=streams.note)


def _as_json(robustness: "Robustness") -> dict[str, Any]:
    by_family = {
        name: dict(zip(robustness.families, getattr(robustness, name).tolist(), strict=True))
        for name in ("accuracy", "negative_log_likelihood")
    }
    errors = {name: getattr(robustness, name) for name in ("mean_corruption_error", "relative_corruption_error")}
    return {"images": robustness.images, "severities": robustness.severities, **by_family, **errors}


def _of_each(model_dirs: list[str], evaluate: Callable[..., Any], **more: Any) -> dict[str, Any]:
    options = {"batch_size": _BATCH_SIZE.value, "strategy": _STRATEGY.value, "jit": _JIT.value}
    options |= {"data_dir": _DATA_DIR.value, "split": _SPLIT.value, "weights": _WEIGHTS.value}
    evaluations = {}
    for model_dir in model_dirs:
        with configs.modules_of(model_dir):
            evaluations[model_dir] = evaluate(model_dir, **options, **more)
    return evaluations


def _evaluate_export() -> dict[str, evaluated.Evaluated]:
    from divco_tf.serving.evaluation import evaluate_saved_model_in_full

    path = _SAVED_MODEL.value
    options = {"split": _SPLIT.value, "batch_size": _BATCH_SIZE.value, "held_out": 0.0}
    found = evaluate_saved_model_in_full(path, dataset=_DATASET.value, data_dir=_DATA_DIR.value, **options)
    return {path: evaluated.evaluated(*found, mistakes=_MISTAKES.value)}


def run() -> None:
    """The console script."""
    app.run(
        main,
        program="divco-evaluate",
        common=("model_dir", "saved_model", "data_dir", "split", "weights", "confusion", "mistakes", "picture", "json"),
        behind="--model_dir=DIR|--saved_model=DIR [--flag=value ...]",
        examples=(
            "divco-evaluate --model_dir runs/split1,runs/split4",
            "divco-evaluate --model_dir runs/photos --data_dir photos --confusion --mistakes 10",
            "divco-evaluate --model_dir runs/photos --data_dir labelled --split all --picture confusion.png",
            "divco-evaluate --saved_model export --dataset digits --json",
        ),
    )


if __name__ == "__main__":
    run()
