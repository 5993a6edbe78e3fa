"""Trains a grid of experiments, and judges each on all metrics:

  divco-sweep digits/wide_resnet10_2_split1 --grid "split_factor=1,4; seed=0..5" --out sweeps/digits

A row a cell in OUT/results.jsonl; what each answers to every image lies in OUT/predictions. The same command goes on
where it stopped, two processes with one OUT share the cells, and a cell that fails is a row with its reason. --list
prints a command a cell for a job queue; --shard=2/4 is the second quarter of the cells. divco-report OUT shows it all.
"""

import dataclasses
import pathlib
import re
from typing import TYPE_CHECKING

from absl import flags

from divco_tf.errors import InputError, Preempted, RunError
from divco_tf.tools.shared import app, settings, streams
from divco_tf.tools.shared.cells import Commands

if TYPE_CHECKING:
    from divco_tf.analysis.grid import Cell
    from divco_tf.analysis.sweep import Sweep

_CONFIG = app.ConfigFlags()
_GRID = flags.DEFINE_multi_string(
    "grid",
    [],
    'Fields of the experiment and their values, all combinations: "split_factor=1,4; seed=0..5; cotraining.loss=js". '
    "Several grids are one after the other.",
)
_OUT = flags.DEFINE_string("out", None, "The sweep's folder.")
_DATA_DIR = app.data_dir_flag()
_SHARD = flags.DEFINE_string("shard", None, "i/n: the i-th of n parts of the cells, 1/n to n/n.")
_LIST = flags.DEFINE_bool("list", False, "Print the command of each cell that is left, and end.")
_RETRY = flags.DEFINE_bool("retry_failed", False, "Run again what has failed before.")
_TEST = flags.DEFINE_bool("test", True, "Judge on the test images; --notest opens none, and judges on held-out ones.")
_CELL = flags.DEFINE_string("cell", None, "Run this cell alone, by the name that --list tells, in this process.")
_JSON = app.json_flag("Print the rows of --grid's cells, or what --list lists, as JSON alone on stdout.")
_QUIET = app.quiet_flag()


def main() -> None:
    """Runs what is left of the sweep."""
    from divco_tf.analysis.grid import cells

    found = _shard([settings.of_experiment(cell) for cell in cells(_GRID.value)])
    _CONFIG.check()
    app.load_tensorflow()
    from divco_tf.analysis.sweep import Sweep

    experiment, options = _CONFIG.parse(echo=_CELL.value is None)
    sweep = Sweep(
        experiment=experiment,
        cells=found,
        folder=pathlib.Path(_OUT.value),
        data_dir=_DATA_DIR.value,
        options=dataclasses.replace(options, evaluate_every=0, contact_sheet=False),
        test=_TEST.value,
    )
    commands = Commands(
        config=_CONFIG.name,
        set=_CONFIG.set,
        bind=_CONFIG.bind,
        grid=_GRID.value,
        out=_OUT.value,
        data_dir=_DATA_DIR.value,
        test=_TEST.value,
    )
    if _LIST.value:
        lines = [commands.line(cell.name) for cell in sweep.left(retry_failed=_RETRY.value)]
        if _JSON.value:
            app.print_json(lines)
        else:
            print(*lines, sep="\n", end="\n" * bool(lines))
    elif _CELL.value is not None:
        _run_here(sweep, _CELL.value)
    else:
        sweep.run(run_cell=lambda cell: commands.run(cell.name), retry_failed=_RETRY.value, report=streams.tell)
        _tell_the_end(sweep)


def _shard(found: list["Cell"]) -> list["Cell"]:
    if _SHARD.value is None:
        return found
    match = re.fullmatch(r"(\d+)/(\d+)", _SHARD.value)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard is the i-th of n parts. Received: {_SHARD.value}; 1/4 to 4/4 would work.")
    return found[int(match[1]) - 1 :: int(match[2])]


def _run_here(sweep: "Sweep", name: str) -> None:
    """One cell; a failure is its row, and the exit status."""
    from divco_tf.runtime.compute import resolve_jit, share_cores
    from divco_tf.tools.shared.progress import live

    cell = next((cell for cell in sweep.cells if cell.name == name), None)
    if cell is None:
        raise InputError(f"The grid has no such cell. Received: {name}; --list tells them.")
    sweep.begin()
    try:
        experiment = sweep.experiment_of(cell)
        if not resolve_jit(sweep.options.jit):
            share_cores(experiment.split_factor)
        with live() as shown:
            sweep.run_cell(cell, report=shown.tell, watch=shown.watch)
    except Preempted:
        raise
    except (InputError, RunError) as error:
        sweep.add_failure(cell, str(error))
        raise


def _tell_the_end(sweep: "Sweep") -> None:
    from divco_tf.analysis.results import RESULTS, read_rows

    names = {cell.name for cell in sweep.cells}
    rows = [row for row in read_rows(sweep.folder) if row["cell"] in names]
    if _JSON.value:
        app.print_json({"results": str(sweep.folder / RESULTS), "rows": rows})
        return
    failed = [row for row in rows if row["status"] == "failed"]
    print(f"{len(rows) - len(failed)} cells done, {len(failed)} failed: {sweep.folder / RESULTS}")
    for row in failed:
        print(f"  {row['cell']}: {row['reason']}")


def run() -> None:
    """The console script."""
    app.run(
        main,
        program="divco-sweep",
        required=("config", "grid", "out"),
        common=("set", "data_dir", "list", "shard"),
        examples=(
            'divco-sweep digits/wide_resnet10_2_split1 --grid="split_factor=1,4; seed=0..5" --out=sweeps/digits',
            'divco-sweep digits/wide_resnet10_2_split4 --grid="loss=js,none; weight_decay=1e-4,5e-4" --out=sweeps/loss',
        ),
    )


if __name__ == "__main__":
    run()
