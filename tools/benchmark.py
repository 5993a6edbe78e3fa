"""Measures divco_tf against what else there is, in one run: divco-benchmark step --backbone wide_resnet40_1.

`step` times training steps, `compile` the way to the first one of deep networks, with the peak memory;
`grouped` times grouped convolutions and networks of them.
`views` times making views, `input` what they add to a step of --backbone, 128 images each. `memory` tells peak memory
and time of a step of --backbone for S = 1, 2, 4, by how activations are kept: all of them, in micro-batches,
recomputed, one branch after the other.

`scaling` times steps of --backbones over --split_factors at equal multiply-adds, what of them is not the network's, and
steps over devices and over micro-batches (--parts chooses among the four). `xla` times small networks of all families,
or --backbones, with XLA and without.

`latency` times answers instead of steps, for 1 image and for 32 (--batch_sizes): of the large network, and of its S
branches in sequence and side by side, by threads, by devices and in one graph, with as many of TensorFlow's --threads.

`agreement` trains small networks on digits under every strategy and tells how far their weights differ. `kills` kills
--rounds runs of each kind on digits and on CIFAR-10 (--data_dir), resumes them, and compares all that they end with.
`checkpoint` tells how long steps of --backbone wait for --rounds checkpoints that a thread writes.

Every system of a table is timed in turn, round by round: machines are shared and noisy, so ratios count. Run nothing
else meanwhile. PyTorch is timed beside in a checkout, where it is installed.
"""

import importlib
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from divco_tf import files
from divco_tf.errors import InputError
from divco_tf.tools.shared import app, streams, unimported

COMMANDS = {  # and the module whose `run` takes the flags of its parameters' names, and has their defaults
    **{name: name for name in ("step", "grouped", "views", "memory", "scaling", "xla")},
    **{name: name for name in ("latency", "agreement", "kills", "checkpoint")},
    **{"compile": "compile_time", "input": "input_pipeline"},
}
_OUT = flags.DEFINE_string("out", None, "A file for the result as JSON; without it JSON follows the table.")
_JSON = app.json_flag("Print the result as JSON alone on stdout, without the table; progress goes to stderr.")
_QUIET = app.quiet_flag()
PARAMETERS = (
    flags.DEFINE_string("backbone", None, "A registered backbone; wide_resnet40_1 unless given."),
    flags.DEFINE_list("backbones", None, "What `compile`, `scaling`, `xla`, `latency` run; each has its list."),
    flags.DEFINE_integer("split_factor", None, "S; 4 unless given.", lower_bound=1),
    flags.DEFINE_list("split_factors", None, "Each S of `scaling`, `memory`, `latency`; 1,2,4 unless given."),
    flags.DEFINE_list("parts", None, "The tables of `scaling`: division, overhead, devices, micro_batches; or all."),
    flags.DEFINE_bool("undivided", None, "Stack S copies of the backbone instead of dividing it."),
    flags.DEFINE_integer("batch_size", None, "Images a step; each command has its number.", lower_bound=1),
    flags.DEFINE_list("batch_sizes", None, "Images an answer of `latency`, each of them; 1,32 unless given."),
    flags.DEFINE_list("threads", None, "Of `latency`, intra-op/inter-op: 2/2,1/2; each setting has its process."),
    flags.DEFINE_integer("image_size", None, "Pixels a side; 32 unless given.", lower_bound=1),
    flags.DEFINE_integer("num_classes", None, "K; 10 unless given.", lower_bound=2),
    flags.DEFINE_string("data_dir", None, "CIFAR-10 for `views`, `input`, `kills`, prepared by TFDS."),
    flags.DEFINE_bool("xla", None, "Time the branch stack under XLA too; `memory`: under XLA alone."),
    flags.DEFINE_integer("rounds", None, "Rounds in which every system takes its turn; 5 unless given.", lower_bound=1),
    flags.DEFINE_integer("steps", None, "Steps a turn, 10 unless given; answers of `latency`.", lower_bound=1),
    flags.DEFINE_float("limit", None, "Seconds that `xla` waits for a first step; 60 unless given.", lower_bound=0.0),
)


def main(command: str) -> None:
    """Runs the command, prints its table and its JSON."""
    if _OUT.value:
        _check_out(pathlib.Path(_OUT.value))
    arguments = _arguments(command)
    app.load_tensorflow()
    result = run_of(command)(**arguments, report=streams.tell)
    from divco_tf.tools.benchmarks.step import machine

    if not _JSON.value:
        _print_tables(result)
    told = {"command": " ".join(["divco-benchmark", *sys.argv[1:]]), "machine": machine()}
    text = app.as_json({**told, "settings": result["settings"], "systems": result["systems"]})
    if _OUT.value:
        pathlib.Path(_OUT.value).write_text(text + "\n")
    if _JSON.value or not _OUT.value:
        print(text)


def _print_tables(result: Mapping[str, Any]) -> None:
    from divco_tf.tools.shared.tables import table

    for head, rows in result.get("tables") or [(result["head"], result["rows"])]:
        print(table(head, rows), end="\n\n" if "tables" in result else "\n")
    if "conclusion" in result:
        print(result["conclusion"])


def run_of(command: str) -> Callable[..., dict[str, Any]]:
    """The function of a command.

    Raises:
      InputError: it compares with what is in a checkout only.
    """
    try:
        return importlib.import_module(f"divco_tf.tools.benchmarks.{COMMANDS[command]}").run
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("divco_tf.tools.laboratory"):
            raise
        raise InputError(
            f"`{command}` needs a checkout. Received: an installed divco_tf; in a checkout python tools/benchmark.py "
            f"{command} works."
        ) from error


def flags_of(command: str) -> list[str]:
    """The names of the flags that a command takes."""
    takes = unimported.parameters_of(f"divco_tf.tools.benchmarks.{COMMANDS[command]}", "run")
    return [*(flag.name for flag in PARAMETERS if flag.name in takes), "out", "json", "quiet"]


def _arguments(command: str) -> dict[str, Any]:
    """The flags that were given, for a command that takes them."""
    given = {flag.name: flag.value for flag in PARAMETERS if flag.present}
    takes = flags_of(command)
    for name in given:
        if name not in takes:
            taken = ", ".join(f"--{flag}" for flag in takes)
            raise InputError(f"`{command}` has no --{name}. Received: --{name}; it takes {taken}.")
    for name, example in (("split_factors", "1,2,4"), ("batch_sizes", "1,32")):
        for text in given.get(name, ()):
            if not text.isdecimal():
                raise InputError(f"--{name} is no list of whole numbers. Received: {text}; {example} is one.")
        if name in given:
            given[name] = [int(text) for text in given[name]]
    return given


def _check_out(path: pathlib.Path) -> None:
    """Refuses a file that cannot be written, before hours of measuring."""
    if path.is_dir():
        raise InputError(f"--out is a file. Received: {path}, a folder; {path / 'result.json'} works.")
    files.make_writable(path.parent, "folder of --out")


def run() -> None:
    """The console script."""
    app.run(
        main,
        program="divco-benchmark",
        commands=tuple(COMMANDS),
        flags_of=flags_of,
        examples=(
            "divco-benchmark step --help",
            "divco-benchmark step --backbone=wide_resnet40_1 --split_factor=4 --out=step.json",
        ),
    )


if __name__ == "__main__":
    run()
