"""What the programs share: flags, --help, quiet start-up, and errors of one line instead of a traceback."""

import functools
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from absl import app, flags, logging

from divco_tf.errors import InputError, Preempted, RunError
from divco_tf.registry import did_you_mean
from divco_tf.tools._configs import gin_complaint

USAGE_ERROR = 2
RUN_ERROR = 1
PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: try again later
INTERRUPTED = 130  # what a shell reports for a program ended by SIGINT


def config_flags() -> tuple[flags.FlagHolder[str], flags.FlagHolder[list[str]]]:
    """Defines --config and --bind, for `_configs.parse_config`."""
    return (
        flags.DEFINE_string(
            "config", None, "The experiment: a .gin file, or a name such as cifar10/wide_resnet28_10_split4."
        ),
        flags.DEFINE_multi_string(
            "bind", [], "One more gin binding, module.function.parameter=value, which wins over --config"
        ),
    )


def model_dir_flag(*, required: bool = True) -> flags.FlagHolder[str]:
    """Defines --model_dir."""
    return flags.DEFINE_string("model_dir", None, "The folder of one experiment's run.", required=required)


def data_dir_flag() -> flags.FlagHolder[str]:
    """Defines --data_dir."""
    return flags.DEFINE_string(
        "data_dir", None, "Prepared TFDS data, or a folder of images with one subfolder a class."
    )


def missing_flag(name: str, values: Iterable[str]) -> InputError:
    """The error for a flag that must be given, with values that work."""
    return InputError(f"--{name} is missing. Received: none; for example {', '.join(list(values)[:8])}.")


def run(main: Callable[..., None], *, program: str, commands: Sequence[str] = ()) -> None:
    """Parses the flags, runs `main`, and exits the process.

    Args:
      main: called without arguments, or with the one of `commands` that the user named. It imports TensorFlow inside
        (`load_tensorflow`), so that --help and a misspelt name answer at once. Its module's docstring heads --help.
      program: the name in messages, "divco-train".
      commands: what may, and must, stand beside the flags: ("step",) for `divco-benchmark step`.

    The exit status is 0; 2 after an InputError, a complaint of gin or an illegal flag, each told in one line on
    stderr; 1 after a RunError; 75 after SIGTERM, when a checkpoint has been written; 130 after Ctrl-C. Anything
    else that is raised is a bug and keeps its traceback.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras/keras.json says
    if hasattr(sys.stdout, "reconfigure"):  # a name that the terminal cannot print is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    description = (sys.modules[main.__module__].__doc__ or "").strip()
    app.run(
        functools.partial(_run_main, main, program),
        flags_parser=functools.partial(_parse_flags, program=program, description=description, commands=commands),
    )


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
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            _import_tensorflow()
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _import_tensorflow() -> None:
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
        _fail(program, str(error).split("\n  In call to configurable", maxsplit=1)[0])
    except Preempted as error:
        _fail(program, str(error), status=PREEMPTED)
    except RunError as error:
        _fail(program, str(error), status=RUN_ERROR)
    except Exception as error:
        complaint = gin_complaint(error)
        if complaint is None:
            raise
        _fail(program, complaint)


def _parse_flags(argv: Sequence[str], *, program: str, description: str, commands: Sequence[str]) -> Sequence[str]:
    """Parses `argv`; returns what stands beside the flags: one of `commands`, or nothing."""
    if {"--help", "-help", "-h", "-?"} & set(argv):
        # absl's own --help shows the main module's flags only, none for a console script, and exits with 1.
        print(_help(program, description, commands))
        sys.exit(0)
    try:
        _, *arguments = flags.FLAGS(argv)
    except flags.Error as error:
        _fail(
            program,
            f"{re.sub(r'^flag --[^:]*: ', '', str(error), flags=re.MULTILINE)} {program} --help lists the flags.",
        )
    if commands and not arguments:
        _fail(program, f"Say what to do. Received: no command; one of {', '.join(commands)} works.")
    if commands and arguments[0] not in commands:
        _fail(program, f"Unknown command. Received: {arguments[0]}.{did_you_mean(arguments[0], commands)}")
    if len(arguments) > bool(commands):
        _fail(program, f"Too many arguments. Received: {arguments[-1]}; the rest is given by flags, as --name=value.")
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING  # INFO is TFDS and others telling what they do
    return arguments


def _help(program: str, description: str, commands: Sequence[str]) -> str:
    ours = [
        flag
        for module, module_flags in flags.FLAGS.flags_by_module_dict().items()
        if not module.startswith("absl.")
        for flag in module_flags
    ]
    usage = " ".join([program, *(["|".join(commands)] if commands else []), "[--flag=value ...]"])
    lines = [description, "", f"usage: {usage}", ""]
    for flag in sorted(ours, key=lambda flag: flag.name):
        default = f" (default: {flag.default_as_str})" if flag.default not in (None, [], "") else ""
        lines += [f"  --{flag.name}", flags.text_wrap(flag.help + default, length=100, indent=" " * 6)]
    return "\n".join(lines)


def _fail(program: str, message: str, *, status: int = USAGE_ERROR) -> NoReturn:
    print(f"{program}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
