"""What the programs share: flags, --help, quiet start-up, and errors of one line instead of a traceback."""

import functools
import os
import pathlib
import shlex
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from absl import app, flags, logging

import divco_tf
from divco_tf.errors import InputError, Preempted, RunError
from divco_tf.registry import did_you_mean
from divco_tf.tools.shared import hints, streams
from divco_tf.tools.shared.complaints import gin_complaint

USAGE_ERROR = 2
RUN_ERROR = 1
PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: try again later
INTERRUPTED = 130  # what a shell reports for a program ended by SIGINT

flags.disclaim_key_flags()  # what is defined here is the calling program's


def config_flags() -> tuple[flags.FlagHolder[str], flags.FlagHolder[list[str]]]:
    """Defines --config and --bind, for `configs.parse_config`."""
    return (
        flags.DEFINE_string(
            "config",
            None,
            "The experiment, required: a .gin file, or a name such as cifar10/wide_resnet28_10_split4.",
            required=True,
        ),
        flags.DEFINE_multi_string(
            "bind", [], "One more gin binding, module.function.parameter=value, which wins over --config"
        ),
    )


def model_dir_flag(*, required: bool = True) -> flags.FlagHolder[str]:
    """Defines --model_dir."""
    told = "The folder of one experiment's run" + ", required." * required
    return flags.DEFINE_string("model_dir", None, told, required=required)


def data_dir_flag() -> flags.FlagHolder[str]:
    """Defines --data_dir."""
    return flags.DEFINE_string(
        "data_dir", None, "Prepared TFDS data, or a folder of images with one subfolder a class."
    )


def check_model_dir(model_dir: str) -> None:
    """Refuses a folder without a run, before TensorFlow starts."""
    if not pathlib.Path(model_dir, "experiment.json").is_file():
        raise InputError(
            f"No run lies there (experiment.json is missing). Received: {model_dir}; divco-train's --model_dir works."
        )


def missing_flag(name: str, values: Iterable[str]) -> InputError:
    """The error for a flag that must be given, with values that work."""
    return InputError(f"--{name} is missing. Received: none; for example {', '.join(list(values)[:8])}.")


def run(
    main: Callable[..., None],
    *,
    program: str,
    commands: Sequence[str] = (),
    operand: str = "",
    usage: str = "[--flag=value ...]",
) -> None:
    """Parses the flags, runs `main`, and exits the process.

    Args:
      main: called without arguments, or with the one of `commands` that the user named. It imports TensorFlow inside
        (`load_tensorflow`), so that --help and a misspelt name answer at once. Its module's docstring heads --help.
      program: the name in messages, "divco-train".
      commands: what may, and must, stand beside the flags: ("step",) for `divco-benchmark step`.
      operand: what else must stand there, which `main` is called with: "DIR" for `divco-report DIR`. One that ends
        with "..." may be several.
      usage: what stands behind the program's name, and command, for --help.

    The exit status is 0, also where a reader of stdout has gone (`| head`); 2 after an InputError, a complaint of gin
    or an illegal flag, each told in one line on stderr; 1 after a RunError, or when stdout cannot be written; 75 after
    SIGTERM, when a checkpoint has been written; 130 after Ctrl-C. Anything else that is raised is a bug and keeps its
    traceback.
    """
    streams.open_closed()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras/keras.json says
    usage = " ".join(["usage:", program, *filter(None, ["|".join(commands), operand]), usage])
    status: int | str | None = 0
    sys.stdout = stdout = streams.Stdout(sys.stdout)
    try:
        app.run(
            functools.partial(_run_main, main, program),
            flags_parser=functools.partial(
                _parse_flags,
                program=program,
                usage=usage,
                commands=commands,
                operand=operand,
                module=sys.modules[main.__module__],
            ),
        )
    except SystemExit as ended:
        status = ended.code
    except OSError as error:
        if error is not stdout.error:
            raise
    finally:
        unwritten, sys.stdout = stdout.finish(), stdout.stream
    if unwritten is not None and not status and not isinstance(unwritten, BrokenPipeError):
        _fail(program, f"stdout cannot be written ({unwritten.strerror}).", status=RUN_ERROR)
    sys.exit(status)


def load_tensorflow() -> None:
    """Imports TensorFlow and finds the devices, without what its C++ writes until its log is set up.

    TF_CPP_MIN_LOG_LEVEL does not reach those lines (TensorFlow 2.21: "All log messages before absl::InitializeLog()
    is called are written to STDERR"), so file descriptor 2 is held for the moment, and shown if the import fails.
    TF_CPP_MIN_LOG_LEVEL=0 or 1 in the environment shows everything.

    oneDNN's kernels are asked for: TensorFlow 2.21 takes them by itself only on processors with instructions for neural
    networks, and Eigen's elsewhere, with which a step of WRN-16-8 takes a fifth longer (`divco-benchmark scaling`, on a
    processor with AVX2). TF_ENABLE_ONEDNN_OPTS=0 in the environment wins.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") in ("0", "1"):
        _import_tensorflow()
        return
    with streams.stderr_held():
        _import_tensorflow()


def _import_tensorflow() -> None:
    with streams.temporary_folder_named():
        import tensorflow as tf

    tf.config.list_physical_devices()
    tf.get_logger().setLevel("ERROR")


def _run_main(main: Callable[..., None], program: str, arguments: Sequence[str]) -> None:
    try:
        main(*arguments)
    except KeyboardInterrupt:
        _fail(program, "interrupted", status=INTERRUPTED)
    except InputError as error:
        # gin adds where it was called from, on further lines.
        _fail(program, hints.as_typed(str(error).split("\n  In call to configurable", maxsplit=1)[0]))
    except Preempted as error:
        _fail(program, str(error), status=PREEMPTED)
    except RunError as error:
        _fail(program, str(error), status=RUN_ERROR)
    except Exception as error:
        complaint = gin_complaint(error)
        if complaint is None:
            raise
        _fail(program, complaint)


def _parse_flags(
    argv: Sequence[str], *, program: str, usage: str, commands: Sequence[str], operand: str, module: types.ModuleType
) -> Sequence[str]:
    """Parses `argv`; returns what stands beside the flags: one of `commands`, the operand, or nothing."""
    if {"--help", "-help", "-h", "-?"} & set(argv):
        # absl's own --help takes the console script for the program, and exits with 1.
        print(f"{(module.__doc__ or '').strip()}\n\n{usage}", flags.FLAGS.module_help(module), sep="\n")
        print("  --version, alone: Print divco_tf's version.")
        sys.exit(0)
    if {"--version", "-version"} & set(argv) and ("version" not in flags.FLAGS or len(argv) == 2):
        print(f"{program} {divco_tf.__version__}")  # divco-export's own --version has a value
        sys.exit(0)
    try:
        _, *arguments = flags.FLAGS(argv)
    except flags.Error as error:
        told = str(error) if str(error)[-1] in ".?" else f"{error}."
        _fail(program, f"{told} Received: {shlex.join(argv[1:]) or 'none'}; {program} --help lists the flags.")
    for flag in flags.FLAGS.get_key_flags_for_module(module):
        if flag.present and flag.value in ("", [], [""]):
            _fail(program, f"--{flag.name} is empty. Received: --{flag.name}=; --{flag.name}=VALUE works.")
        if flag.present > 1 and not isinstance(flag, flags.MultiFlag):
            _fail(program, f"--{flag.name} is given {flag.present} times. Received: {flag.value} at last; give one.")
    if commands and not arguments:
        _fail(program, f"Say what to do. Received: no command; one of {', '.join(commands)} works.")
    if commands and arguments[0] not in commands:
        _fail(program, f"Unknown command. Received: {arguments[0]}.{did_you_mean(arguments[0], commands)}")
    if operand and not arguments:
        _fail(program, f"{operand} is missing. Received: none; {program} {operand} works.")
    if len(arguments) > bool(commands or operand) and not operand.endswith("..."):
        _fail(program, f"Too many arguments. Received: {arguments[-1]}; the rest is given by flags, as --name=value.")
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING  # INFO is TFDS and others telling what they do
    return arguments


def _fail(program: str, message: str, *, status: int = USAGE_ERROR) -> NoReturn:
    streams.warn(f"{program}: error: {' '.join(message.split())}")  # where that fails, the status tells
    sys.exit(status)
