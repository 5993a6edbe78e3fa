"""Trains an experiment: divco-train --config digits/wide_resnet10_2_split4 --model_dir runs/digits.

The same command run again goes on where it stopped. All settings are gin's; --bind changes one of them.
"""

import pathlib

from absl import flags

from divco_tf.tools import _app, _configs

_CONFIG, _BIND = _app.config_flags()
_MODEL_DIR = _app.model_dir_flag()
_DATA_DIR = _app.data_dir_flag()
_EXTEND = flags.DEFINE_bool("extend", False, "Train a finished run for the more epochs that its config asks for now.")


def main() -> None:
    """Runs the experiment of --config."""
    if _CONFIG.value is None:
        raise _app.missing_flag("config", _configs.config_names())
    _configs.find_config(_CONFIG.value)
    _app.load_tensorflow()
    _configs.parse_config(_CONFIG.value, _BIND.value)
    experiment, options = _configs.experiment(), _configs.options()

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
