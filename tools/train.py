"""Trains an experiment: divco-train digits/wide_resnet10_2_split4 --model_dir=runs/digits

The same command run again goes on where it stopped. --set changes one setting of the config. With --dry_run the plan of
the run is printed, with what is missing for it, and nothing is trained or written; CONFIG may be a pattern of shipped
configs then ("imagenet/*_split2"; "*" is all).
"""

import dataclasses
import pathlib
import sys

from absl import flags

from divco_tf.errors import InputError
from divco_tf.tools.shared import app, configs, hints

_CONFIG = app.ConfigFlags()
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
_JSON = app.json_flag("Print the result, or the plan, as JSON alone on stdout; progress goes to stderr.")
_QUIET = app.quiet_flag()


def main() -> None:
    """Runs the experiment of CONFIG."""
    if _DRY_RUN.value:
        _plan(_CONFIG.name)
    else:
        _train()


def _plan(config: str) -> None:
    """Prints the plan of a config, or of all that a pattern finds: those that are refused are told at the end."""
    names = configs.matching_configs(config) if "*" in config else [config]
    if len(names) == 1:
        _CONFIG.check()
    app.load_tensorflow()
    from divco_tf.runs.plan import plan

    refused: dict[str, InputError] = {}
    unready, told = [], {}
    for name in names:
        try:
            experiment, options = _CONFIG.parse(name, echo=name == names[0])
            described = plan(
                experiment,
                model_dir=_MODEL_DIR.value,
                data_dir=_DATA_DIR.value,
                options=options,
                extend=_EXTEND.value,
            )
        except InputError as error:
            if len(names) == 1:
                raise
            refused[name] = error
            lines, told[name] = [hints.as_typed(str(error))], {"ready": False, "refused": hints.as_typed(str(error))}
        else:
            lines = described.lines()
            told[name] = {"ready": not described.problems, "plan": [dataclasses.asdict(it) for it in described.content]}
            unready += [name] * bool(described.problems)
        if not _JSON.value:
            print(*[name] * (len(names) > 1), *lines, sep="\n", end="\n" * (1 + (len(names) > 1)), flush=True)
    if _JSON.value:
        app.print_json(told)
    if refused:
        raise InputError(f"{len(refused)} of {len(names)} configs are refused. Received: {', '.join(refused)}.")
    if unready:
        sys.exit(1)


def _train() -> None:
    """Trains, and prints what came of it."""
    _CONFIG.check()
    app.load_tensorflow()
    experiment, options = _CONFIG.parse()

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
    if _JSON.value:
        app.print_json({str(model_dir): dataclasses.asdict(evaluation)})
    else:
        print(evaluation_table({model_dir.name: evaluation}))


def run() -> None:
    """The console script."""
    app.run(
        main,
        program="divco-train",
        required=("config", "model_dir"),
        common=("set", "data_dir", "dry_run"),
        examples=(
            "divco-train digits/wide_resnet10_2_split4 --model_dir=runs/digits --set epochs=2 --set strategy=mirrored",
            "divco-train cifar10/wide_resnet28_10_split4 --model_dir=runs/cifar10 --data_dir=data --dry_run",
            "divco-train mine.gin --model_dir=runs/mine",
        ),
    )


if __name__ == "__main__":
    run()
