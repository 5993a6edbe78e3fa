"""Trains an experiment: divco-train --config digits/wide_resnet10_2_split4 --model_dir runs/digits.

The same command run again goes on where it stopped. All settings are gin's; --bind changes one of them. With --dry_run
the plan of the run is printed, with what is missing for it, and nothing is trained or written.
"""

import pathlib

from absl import flags

from divco_tf.tools import _app, _configs

_CONFIG, _BIND = _app.config_flags()
_MODEL_DIR = _app.model_dir_flag()
_DATA_DIR = _app.data_dir_flag()
_EXTEND = flags.DEFINE_bool("extend", False, "Train a finished run for the more epochs that its config asks for now.")
_DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "Print the plan of the run, check config, data and disk, and end; the last line says if all is there.",
)


def main() -> None:
    """Runs the experiment of --config."""
    if _CONFIG.value is None:
        raise _app.missing_flag("config", _configs.config_names())
    _configs.find_config(_CONFIG.value)
    _app.load_tensorflow()
    _configs.parse_config(_CONFIG.value, _BIND.value)
    experiment, options = _configs.experiment(), _configs.options()
    if _DRY_RUN.value:
        from divco_tf.training.plan import plan

        described = plan(
            experiment,
            model_dir=_MODEL_DIR.value,
            data_dir=_DATA_DIR.value,
            options=options,
            extend=_EXTEND.value,
        )
        print(*described.lines(), sep="\n")
        return

    from divco_tf.tools._tables import evaluation_table
    from divco_tf.training.loop import train
    from divco_tf.training.runtime import resolve_jit, share_cores

    if not resolve_jit(options.jit):  # XLA wants all cores for one branch: divco-benchmark step --xla
        share_cores(experiment.split_factor)
    model_dir = pathlib.Path(_MODEL_DIR.value)
    evaluation = train(
        experiment,
        model_dir=model_dir,
        data_dir=_DATA_DIR.value,
        options=options,
        extend=_EXTEND.value,
        report=lambda line: print(line, flush=True),
        operative_config=_configs.operative_config(),
    )
    print(evaluation_table({model_dir.name: evaluation}))


def run() -> None:
    """The console script."""
    _app.run(main, program="divco-train")


if __name__ == "__main__":
    run()
