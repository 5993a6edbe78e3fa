"""Tells whether dividing pays on your own data: divco-advise --data_dir=photos --minutes=60 --out=advice

Trains S = 1, 2, 4 at equal multiply-adds with several seeds, as many as fit into the time, and says before how long it
takes. Test images are opened at the very end. Where all images are too many for the time, it trains on parts of them
and predicts. The same command goes on where it stopped. OUT is the folder of a sweep: divco-report OUT shows it.
"""

import dataclasses
import pathlib
import shlex
import sys
from typing import TYPE_CHECKING

from absl import flags

from divco_tf import files
from divco_tf.data.datasets import DATASETS
from divco_tf.errors import InputError
from divco_tf.tools.shared import app, streams
from divco_tf.tools.shared.cells import Commands

if TYPE_CHECKING:
    from divco_tf.analysis.sweep import Sweep
    from divco_tf.data.sources import Source
    from divco_tf.runs.experiment import Experiment
    from divco_tf.runs.options import Options

_PLAN = "advice.json"
_FEW_STEPS = 200
"""A rule of thumb: WRN-10-2, S = 4, reached 99.5 % on digits in 176 steps (docs/watching.md has that run)."""
_DEFAULT_CONFIGS = {
    "digits": "digits/wide_resnet10_2_split1",
    "cifar10": "cifar10/wide_resnet10_2_split1_cpu",
    "image_folder": "image_folder/wide_resnet16_8_split1",
}
_CONFIG = app.ConfigFlags("The recipe; one that is shipped for --dataset unless given. --config=CONFIG is the same.")
_DATASET = flags.DEFINE_enum("dataset", "image_folder", sorted(DATASETS), "Whose images.")
_DATA_DIR = app.data_dir_flag()
_BACKBONE = flags.DEFINE_string("backbone", None, "The large network; the config's unless given.")
_SPLIT_FACTORS = flags.DEFINE_list("split_factors", ["1", "2", "4"], "Each S to try; 1 is always among them.")
_MINUTES = flags.DEFINE_float("minutes", None, "How long it may take.", lower_bound=0.0)
_OUT = flags.DEFINE_string("out", "advice", "The folder of the sweep.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what would be trained and how long it takes, and end.")
_JSON = app.json_flag("Print the answer, or the plan of --dry_run, as JSON alone on stdout; progress goes to stderr.")
_QUIET = app.quiet_flag()


def main() -> None:
    """Plans, trains, judges, and tells the answer."""
    split_factors = _split_factors()
    config = _CONFIG.name or _default_config()
    _CONFIG.check(config)
    app.load_tensorflow()
    from divco_tf.analysis.advice import check_trained
    from divco_tf.analysis.grid import cells
    from divco_tf.analysis.results import read_rows
    from divco_tf.analysis.sweep import Sweep

    set_to = _settings(config)
    experiment, options = _CONFIG.parse(config, more=set_to)
    options = dataclasses.replace(options, evaluate_every=0, contact_sheet=False)
    source = experiment.open("train", data_dir=_DATA_DIR.value)
    grids = _planned(experiment, source, split_factors, options)
    steps = experiment.total_steps(len(source) // experiment.batch_size)
    if steps < _FEW_STEPS:
        streams.tell(f"a run is {steps} steps, which teach little: a smaller batch, or more epochs, is a fairer test")
    if _DRY_RUN.value:
        if _JSON.value:
            app.print_json({"grids": grids, "split_factors": split_factors, "minutes": _MINUTES.value})
        return
    training = Sweep(
        experiment=experiment,
        cells=cells(grids),
        folder=pathlib.Path(_OUT.value),
        data_dir=_DATA_DIR.value,
        options=options,
        test=False,
    )
    training.begin()
    files.write_json(training.folder / _PLAN, {"grids": grids, "split_factors": split_factors})
    where = {"out": _OUT.value, "data_dir": _DATA_DIR.value}
    commands = Commands(config=config, set=[*_CONFIG.set, *set_to], bind=_CONFIG.bind, grid=grids, test=False, **where)
    training.run(run_cell=lambda cell: commands.run(cell.name), retry_failed=True, report=streams.tell)
    check_trained(read_rows(training.folder), training.cells)
    streams.tell("all are trained; now the test images")
    judging, commands = (dataclasses.replace(each, test=True) for each in (training, commands))
    judging.run(run_cell=lambda cell: commands.run(cell.name), report=lambda line: None)
    _tell(judging, len(source))


def _split_factors() -> list[int]:
    if not all(text.isascii() and text.isdigit() and int(text) for text in _SPLIT_FACTORS.value):
        raise InputError(f"--split_factors are whole numbers. Received: {','.join(_SPLIT_FACTORS.value)}; 1,2,4 works.")
    found = sorted({1, *map(int, _SPLIT_FACTORS.value)})
    if found == [1]:
        raise InputError("S = 1 alone has nothing to be compared with. Received: --split_factors=1; 1,2,4 works.")
    return found


def _default_config() -> str:
    if _DATASET.value not in _DEFAULT_CONFIGS:
        raise InputError(
            f"No recipe is shipped for that dataset and this computer. Received: --dataset={_DATASET.value}; "
            f"--config=NAME says which, as divco-train's does."
        )
    return _DEFAULT_CONFIGS[_DATASET.value]


def _settings(config: str) -> list[str]:
    """The backbone, and a tenth of the training images held out where the config holds out none."""
    set_to = [f"backbone={_BACKBONE.value}"] if _BACKBONE.value else []
    experiment, _ = _CONFIG.parse(config, more=set_to, echo=False)
    return set_to if experiment.held_out else [*set_to, "held_out=0.1"]


def _planned(experiment: "Experiment", source: "Source", split_factors: list[int], options: "Options") -> list[str]:
    """The grids of the plan that was begun in --out, or of a new one, which is told."""
    from divco_tf.analysis.advice import plan, time_cells
    from divco_tf.runs.records.experiment_json import read_json

    path = pathlib.Path(_OUT.value) / _PLAN
    if path.exists():
        before = read_json(path, dict, "a plan of divco-advise")
        if before.get("split_factors") != split_factors:
            raise InputError(
                f"--out holds advice on other S. Received: --split_factors={split_factors}, there "
                f"{before.get('split_factors')}; choose another folder."
            )
        streams.tell(f"going on with the plan in {path}")
        return before["grids"]
    times = time_cells(experiment, split_factors, data_dir=_DATA_DIR.value, options=options, report=streams.tell)
    planned = plan(experiment, times, images=len(source), minutes=_MINUTES.value, num_classes=source.num_classes)
    streams.tell(planned.sentence)
    return list(planned.grids)


def _tell(sweep: "Sweep", images: int) -> None:
    from divco_tf.analysis.advice import advise, gathered
    from divco_tf.analysis.judged import load_judged
    from divco_tf.analysis.report.page import report
    from divco_tf.analysis.results import read_rows

    rows = read_rows(sweep.folder)
    failed = [row for row in rows if row["status"] == "failed"]
    names = [row["cell"] for row in rows if "test" in row]
    judged = {name: load_judged(sweep.folder / "judged" / f"{name}.npz")["test"] for name in names}
    advice = advise(gathered(rows, judged, images=images), images=images)
    page = sweep.folder / "report.html"
    told = shlex.join(["divco-advise", *sys.argv[1:]])
    files.write_text(page, report(sweep.folder, data_dir=_DATA_DIR.value, command=told))
    failures = {row["cell"]: row["reason"] for row in failed}
    if _JSON.value:
        app.print_json({"sentences": advice.sentences, "failed": failures, "report": str(page)})
        return
    print(*(f"failed: {cell}: {reason}" for cell, reason in failures.items()), *advice.sentences, sep="\n")
    print(f"with plots and tables: {page}")


def run() -> None:
    """The console script."""
    app.run(
        main,
        program="divco-advise",
        required=("minutes",),
        common=("dataset", "data_dir", "backbone", "out", "dry_run"),
        behind="[CONFIG] [--flag=value ...]",
        examples=(
            "divco-advise --dataset=digits --minutes=30 --out=advice",
            "divco-advise --data_dir=photos --backbone=wide_resnet10_2 --minutes=60 --out=advice",
        ),
    )


if __name__ == "__main__":
    run()
