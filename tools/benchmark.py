"""Measures divco_tf against what else there is, in one run: divco-benchmark step --backbone wide_resnet40_1.

`step` times training steps, `compile` the way to the first one of deep networks, with the peak memory;
`grouped` times grouped convolutions and networks of them (of the flags it takes --rounds and --out);
`views` times making views (--data_dir, --batch_size, --split_factor, --rounds, --steps), `input` what they add to a
step of --backbone, 128 images each. `memory` tells peak memory and time of a step of --backbone for S = 1, 2, 4, by
how activations are kept: all of them, in micro-batches, recomputed, one branch after the other.

`scaling` times steps of --backbones over --split_factors at equal multiply-adds, what of them is not the network's, and
steps over devices and over micro-batches (--parts chooses among the four). `xla` times small networks of all families,
or --backbones, with XLA and without.

`agreement` trains small networks on digits under every strategy and tells how far their weights differ. `kills` kills
--rounds runs of each kind on digits and on CIFAR-10 (--data_dir), resumes them, and compares all that they end with.
`checkpoint` tells how long steps of --backbone wait for --rounds checkpoints that a thread writes.

Every system of a table is timed in turn, round by round: machines are shared and noisy, so ratios count. Run nothing
else meanwhile.
"""

import json
import pathlib
from typing import Any

from absl import flags

from divco_tf import files
from divco_tf.errors import InputError
from divco_tf.tools import _app, _streams

_BACKBONE = flags.DEFINE_string("backbone", "wide_resnet40_1", "What `step` trains: a registered backbone.")
_BACKBONES = flags.DEFINE_list("backbones", None, "What `compile`, `scaling`, `xla` run; each has its list.")
_SPLIT_FACTOR = flags.DEFINE_integer("split_factor", 4, "S.", lower_bound=1)
_SPLIT_FACTORS = flags.DEFINE_list("split_factors", ["1", "2", "4"], "Each S of `scaling` and `memory`.")
_PARTS = flags.DEFINE_list("parts", ["division", "overhead", "devices", "micro_batches"], "The tables of `scaling`.")
_UNDIVIDED = flags.DEFINE_bool("undivided", False, "Stack S copies of the backbone instead of dividing it.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", None, "Images a step; 16, for `views` 128, unless given.", lower_bound=1
)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Pixels a side.", lower_bound=1)
_NUM_CLASSES = flags.DEFINE_integer("num_classes", 10, "K.", lower_bound=2)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "CIFAR-10 for `views`, `kills`, prepared by TFDS.")
_XLA = flags.DEFINE_bool("xla", False, "Time the branch stack under XLA too.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds in which every system takes its turn.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 10, "Steps a turn.", lower_bound=1)
_LIMIT = flags.DEFINE_float("limit", 60.0, "Seconds that `xla` waits for a first step.", lower_bound=0.0)
_OUT = flags.DEFINE_string("out", None, "A file for the result as JSON; without it JSON follows the table.")


def main(command: str) -> None:
    """Runs the command, prints its table and its JSON."""
    if _OUT.value:
        _check_out(pathlib.Path(_OUT.value))
    result = _COMMANDS[command]()
    from divco_tf.tools._tables import table

    for head, rows in result.get("tables") or [(result["head"], result["rows"])]:
        print(table(head, rows), end="\n\n" if "tables" in result else "\n")
    text = json.dumps({key: result[key] for key in ("command", "machine", "settings", "systems")}, indent=1)
    if _OUT.value:
        pathlib.Path(_OUT.value).write_text(text + "\n")
    else:
        print(text)


def _check_out(path: pathlib.Path) -> None:
    """Refuses a file that cannot be written, before hours of measuring."""
    if path.is_dir():
        raise InputError(f"--out is a file. Received: {path}, a folder; {path / 'result.json'} works.")
    files.make_writable(path.parent, "folder of --out")


def _step() -> dict[str, Any]:
    from divco_tf.models.division import branch_spec

    division = {"copies" if _UNDIVIDED.value else "split_factor": _SPLIT_FACTOR.value}
    branch_spec(_BACKBONE.value, **division)  # refuses before TensorFlow is imported
    _app.load_tensorflow()
    from divco_tf.tools.benchmarks import step

    return step.run(
        _BACKBONE.value,
        division=division,
        batch_size=_batch_size(16),
        image_size=_IMAGE_SIZE.value,
        num_classes=_NUM_CLASSES.value,
        rounds=_ROUNDS.value,
        steps=_STEPS.value,
        xla=_XLA.value,
        report=_streams.tell,
    )


def _compile() -> dict[str, Any]:
    from divco_tf.models.division import branch_spec

    backbones = _BACKBONES.value or ["pyramidnet272", "densenet190", "senet154"]
    for backbone in backbones:
        branch_spec(backbone, split_factor=_SPLIT_FACTOR.value)
    _app.load_tensorflow()
    from divco_tf.tools.benchmarks import compile_time

    return compile_time.run(
        backbones=backbones,
        split_factor=_SPLIT_FACTOR.value,
        batch_size=_batch_size(16),
        report=_streams.tell,
    )


def _grouped() -> dict[str, Any]:
    _app.load_tensorflow()
    from divco_tf.tools.benchmarks import grouped

    return grouped.run(rounds=_ROUNDS.value, report=_streams.tell)


def _views() -> dict[str, Any]:
    _app.load_tensorflow()
    from divco_tf.tools.benchmarks import views

    return views.run(
        data_dir=_DATA_DIR.value,
        batch_size=_batch_size(128),
        split_factor=_SPLIT_FACTOR.value,
        rounds=_ROUNDS.value,
        steps=_STEPS.value,
        report=_streams.tell,
    )


def _input() -> dict[str, Any]:
    from divco_tf.models.division import branch_spec

    branch_spec(_BACKBONE.value, split_factor=_SPLIT_FACTOR.value)
    _app.load_tensorflow()
    from divco_tf.tools.benchmarks import input_pipeline

    return input_pipeline.run(
        _BACKBONE.value,
        split_factor=_SPLIT_FACTOR.value,
        data_dir=_DATA_DIR.value,
        rounds=_ROUNDS.value,
        steps=_STEPS.value,
        report=_streams.tell,
    )


def _memory() -> dict[str, Any]:
    from divco_tf.models.division import branch_spec

    split_factors = [_whole_number("split_factors", text) for text in _SPLIT_FACTORS.value]
    for split_factor in split_factors:
        branch_spec(_BACKBONE.value, split_factor=split_factor)
    _app.load_tensorflow()
    from divco_tf.tools.benchmarks import memory

    return memory.run(
        _BACKBONE.value,
        split_factors=split_factors,
        batch_size=_batch_size(32),
        image_size=_IMAGE_SIZE.value,
        num_classes=_NUM_CLASSES.value,
        rounds=_ROUNDS.value,
        steps=_STEPS.value,
        jit="on" if _XLA.value else "off",
        report=_streams.tell,
    )


def _scaling() -> dict[str, Any]:
    from divco_tf.models.division import branch_spec

    backbones = _BACKBONES.value or ["wide_resnet16_8", "resnet110", "resnext29_8x64d"]
    split_factors = [_whole_number("split_factors", text) for text in _SPLIT_FACTORS.value]
    for backbone in backbones:
        for split_factor in split_factors:
            branch_spec(backbone, split_factor=split_factor)
    _app.load_tensorflow()
    from divco_tf.tools.benchmarks import scaling

    return scaling.run(
        backbones=backbones,
        split_factors=split_factors,
        batch_size=_BATCH_SIZE.value,
        image_size=_IMAGE_SIZE.value,
        num_classes=_NUM_CLASSES.value,
        parts=_PARTS.value,
        rounds=_ROUNDS.value,
        steps=_STEPS.value,
        report=_streams.tell,
    )


def _xla() -> dict[str, Any]:
    from divco_tf.models.division import branch_spec

    for backbone in _BACKBONES.value or []:
        branch_spec(backbone)
    _app.load_tensorflow()
    from divco_tf.tools.benchmarks import xla

    return xla.run(
        backbones=_BACKBONES.value or list(xla.SMALL),
        batch_size=_batch_size(8),
        image_size=_IMAGE_SIZE.value,
        num_classes=_NUM_CLASSES.value,
        rounds=_ROUNDS.value,
        steps=_STEPS.value,
        limit=_LIMIT.value,
        report=_streams.tell,
    )


def _agreement() -> dict[str, Any]:
    _app.load_tensorflow()
    from divco_tf.tools.benchmarks import agreement

    return agreement.run(report=_streams.tell)


def _kills() -> dict[str, Any]:
    _app.load_tensorflow()
    from divco_tf.tools.benchmarks import kills

    return kills.run(data_dir=_DATA_DIR.value, rounds=_ROUNDS.value, report=_streams.tell)


def _checkpoint() -> dict[str, Any]:
    from divco_tf.models.division import branch_spec

    branch_spec(_BACKBONE.value, split_factor=_SPLIT_FACTOR.value)
    _app.load_tensorflow()
    from divco_tf.runtime.compute import share_cores
    from divco_tf.tools.benchmarks import checkpoint

    share_cores(_SPLIT_FACTOR.value)
    return checkpoint.run(
        _BACKBONE.value,
        split_factor=_SPLIT_FACTOR.value,
        batch_size=_batch_size(16),
        image_size=_IMAGE_SIZE.value,
        num_classes=_NUM_CLASSES.value,
        rounds=_ROUNDS.value,
        report=_streams.tell,
    )


def _whole_number(flag: str, text: str) -> int:
    if not text.isdecimal():
        raise InputError(f"--{flag} is no list of whole numbers. Received: {text}; 1,2,4 is one.")
    return int(text)


def _batch_size(default: int) -> int:
    return default if _BATCH_SIZE.value is None else _BATCH_SIZE.value


_COMMANDS = {
    "step": _step,
    "compile": _compile,
    "grouped": _grouped,
    "views": _views,
    "input": _input,
    "memory": _memory,
    "scaling": _scaling,
    "xla": _xla,
    "agreement": _agreement,
    "kills": _kills,
    "checkpoint": _checkpoint,
}


def run() -> None:
    """The console script."""
    _app.run(main, program="divco-benchmark", commands=tuple(_COMMANDS))


if __name__ == "__main__":
    run()
