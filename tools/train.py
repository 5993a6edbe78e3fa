"""Trains an experiment: divco-train --config digits/wide_resnet10_2_split4 --model_dir runs/digits.

The same command run again goes on where it stopped. All settings are gin's; --bind changes one of them. With --dry_run
the plan of the run is printed, with what is missing for it, and nothing is trained or written; --config may be a
pattern of shipped configs then ("imagenet/*_split2"; "*" is all).
"""

import pathlib
import sys

from absl import flags

from divco_tf.errors import InputError
from divco_tf.tools.shared import app, configs, hints

_CONFIG, _BIND = app.config_flags()
_MODEL_DIR = app.model_dir_flag()
_DATA_DIR = app.data_dir_flag()
_EXTEND = flags.DEFINE_bool(
    "extend", False, "Train a finished run for the more epochs or steps that its config asks for now."
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "Print the plan of the run, check config, data and disk, and end; the last line says if all is there, and so does "
    "the exit status, 0 or 1.",
)


def main() -> None:
    """Runs the experiment of --config."""
    if _DRY_RUN.value:
        _plan(_CONFIG.value)
    else:
        _train(_CONFIG.value)


def _plan(config: str) -> None:
    """Prints the plan of a config, or of all that a pattern finds: those that are refused are told at the end."""
    names = configs.matching_configs(config) if "*" in config else [config]
    for name in names:
        configs.find_config(name)
    app.load_tensorflow()
    from divco_tf.runs.plan import plan

    refused: dict[str, InputError] = {}
    unready = []
    for name in names:
        if len(names) > 1:
            print(f"{name}")
        try:
            configs.parse_config(name, _BIND.value)
            described = plan(
                configs.experiment(),
                model_dir=_MODEL_DIR.value,
                data_dir=_DATA_DIR.value,
                options=configs.options(),
                extend=_EXTEND.value,
            )
        except InputError as error:
            if len(names) == 1:
                raise
            refused[name] = error
            print(hints.as_typed(str(error)))
        else:
            print(*described.lines(), sep="\n")
            unready += [name] * bool(described.problems)
        print(end="\n" if len(names) > 1 else "", flush=True)
    if refused:
        raise InputError(f"{len(refused)} of {len(names)} configs are refused. Received: {', '.join(refused)}.")
    if unready:
        sys.exit(1)


def _train(config: str) -> None:
    """Trains, and prints what came of it."""
    configs.find_config(config)
    app.load_tensorflow()
    configs.parse_config(config, _BIND.value)
    experiment, options = configs.experiment(), configs.options()

    from divco_tf.runs.loop import train
    from divco_tf.runtime.compute import resolve_jit, share_cores
    from divco_tf.tools.shared.progress import live
    from divco_tf.tools.shared.tables import evaluation_table

    if not resolve_jit(options.jit):  # XLA wants all cores for one branch: divco-benchmark step --xla
        share_cores(1 if options.branches_in_turn else experiment.split_factor)
    model_dir = pathlib.Path(_MODEL_DIR.value)
    with live() as shown:
        evaluation = train(
            experiment,
            model_dir=model_dir,
            data_dir=_DATA_DIR.value,
            options=options,
            extend=_EXTEND.value,
            report=shown.tell,
            watch=shown.watch,
            operative_config=configs.operative_config(),
        )
    print(evaluation_table({model_dir.name: evaluation}))


def run() -> None:
    """The console script."""
    app.run(main, program="divco-train")


if __name__ == "__main__":
    run()
