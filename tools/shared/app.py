"""What the programs share: flags, --help, quiet start-up, and errors of one line instead of a traceback."""

import functools
import json
import math
import os
import pathlib
import shlex
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from absl import app, flags, logging

import divco_tf
from divco_tf.errors import InputError, Preempted, RunError
from divco_tf.tools.shared import configs, hints, streams, usage
from divco_tf.tools.shared.complaints import gin_complaint

if TYPE_CHECKING:
    from divco_tf.runs.experiment import Experiment
    from divco_tf.runs.options import Options

USAGE_ERROR = 2
RUN_ERROR = 1
PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: try again later
INTERRUPTED = 130  # what a shell reports for a program ended by SIGINT

flags.disclaim_key_flags()  # what is defined here is the calling program's


class ConfigFlags:
    """--config (or what stands beside the flags), --bind and --set: an experiment as the command line tells it."""

    def __init__(
        self,
        told: str = "The experiment: a .gin file, or a name of divco-configs. --config=CONFIG is the same.",
    ) -> None:
        self._config = flags.DEFINE_string("config", None, told)
        self._set = flags.DEFINE_multi_string(
            "set", [], "One setting by its name, which wins over the config: epochs=2, cotraining.loss=none."
        )
        self._bind = flags.DEFINE_multi_string(
            "bind", [], "One gin binding, which wins over the config: module.function.parameter=value, macro=value."
        )

    @property
    def name(self) -> str | None:
        """The config's."""
        return self._config.value

    @property
    def bind(self) -> list[str]:
        """As --bind was given."""
        return self._bind.value

    @property
    def set(self) -> list[str]:
        """As --set was given."""
        return self._set.value

    def check(self, name: str | None = None, *, more: Sequence[str] = ()) -> None:
        """Refuses what is wrong without TensorFlow's seconds, as `configs.check` does.

        Args:
          name: another config in place of the user's.
          more: further settings.
        """
        configs.check(name or self.name, self.bind, [*self.set, *more])

    def parse(
        self, name: str | None = None, *, more: Sequence[str] = (), echo: bool = True
    ) -> "tuple[Experiment, Options]":
        """What the config describes with the settings, as for `check`; `echo` tells these on stderr."""
        settings = configs.parse_config(name or self.name, self.bind, [*self.set, *more])[: len(self.set)]
        described = configs.experiment(), configs.options()
        for line in settings if echo else ():
            streams.note(line)
        return described


def json_flag(told: str = "Print JSON, alone on stdout; progress goes to stderr.") -> flags.FlagHolder[bool]:
    """Defines --json; `print_json` prints what it asks for."""
    return flags.DEFINE_bool("json", False, told)


def quiet_flag() -> flags.FlagHolder[bool]:
    """Defines --quiet, which `streams.tell` and `streams.note` heed."""
    return flags.DEFINE_bool("quiet", False, "Tell no progress and no notes, but results and errors.")


def print_json(content: Any) -> None:
    """Prints JSON that every reader takes: a number that is not finite is null."""
    print(as_json(content))


def as_json(content: Any) -> str:
    """What `print_json` prints."""
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False, default=str)


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def model_dir_flag() -> flags.FlagHolder[str]:
    """Defines --model_dir."""
    return flags.DEFINE_string("model_dir", None, "The folder of one experiment's run.")


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
    required: Sequence[str] = (),
    common: Sequence[str] = (),
    examples: Sequence[str] = (),
    flags_of: Callable[[str], Iterable[str]] | None = None,
    behind: str = "[--flag=value ...]",
) -> None:
    """Parses the flags, runs `main`, and exits the process.

    Args:
      main: called without arguments, or with the one of `commands` that the user named. It imports TensorFlow inside
        (`load_tensorflow`), so that --help and a misspelt name answer at once. Its module's docstring heads --help.
      program: the name in messages, "divco-train".
      commands: what may, and must, stand beside the flags: ("step",) for `divco-benchmark step`.
      operand: what else must stand there, which `main` is called with: "DIR" for `divco-report DIR`. "[PATTERN]" may
        stand there; one that ends with "..." may be several.
      required: names of the flags that must be given. Where --config is a flag, CONFIG may stand alone in its place.
      common: names of those that --help lists next; the others follow.
      examples: commands that end --help.
      flags_of: names of the flags that a command takes, for its own --help.
      behind: what stands behind the program's name, command and required flags, for --help.

    The exit status is 0, also where a reader of stdout has gone (`| head`); 2 after an InputError, a complaint of gin
    or an illegal flag, each told in one line on stderr; 1 after a RunError, or when stdout cannot be written; 75 after
    SIGTERM, when a checkpoint has been written; 130 after Ctrl-C. Anything else that is raised is a bug and keeps its
    traceback.
    """
    streams.open_closed()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever ~/.keras/keras.json says
    told = usage.Usage(program, commands, operand, tuple(required), tuple(common), tuple(examples), flags_of, behind)
    status: int | str | None = 0
    sys.stdout = stdout = streams.Stdout(sys.stdout)
    try:
        app.run(
            functools.partial(_run_main, main, program),
            flags_parser=functools.partial(_parse_flags, told=told, module=sys.modules[main.__module__]),
        )
    except SystemExit as ended:
        status = ended.code
    except OSError as error:
        if error is not stdout.error:
            raise
    finally:
        streams.route()
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


def _parse_flags(argv: Sequence[str], *, told: usage.Usage, module: types.ModuleType) -> Sequence[str]:
    """Parses `argv`; returns what stands beside the flags: one of the commands, the operand, or nothing."""
    program = told.program
    if {"--help", "-help", "-h", "-?"} & set(argv):
        # absl's own --help takes the console script for the program, and exits with 1.
        command = next((text for text in argv[1:] if text in told.commands), None)
        print(told.help(module, command))
        sys.exit(0)
    if {"--version", "-version"} & set(argv) and ("version" not in flags.FLAGS or len(argv) == 2):
        print(f"{program} {divco_tf.__version__}")  # divco-export's own --version has a value
        sys.exit(0)
    try:
        _, *arguments = flags.FLAGS(argv)
    except flags.Error as error:
        reason = str(error) if str(error)[-1] in ".?" else f"{error}."
        _fail(program, f"{reason} Received: {shlex.join(argv[1:]) or 'none'}; {program} --help lists the flags.")
    for flag in flags.FLAGS.get_key_flags_for_module(module):
        if flag.present and flag.value in ("", [], [""]):
            _fail(program, f"--{flag.name} is empty. Received: --{flag.name}=; --{flag.name}=VALUE works.")
        if flag.present > 1 and not isinstance(flag, flags.MultiFlag):
            _fail(program, f"--{flag.name} is given {flag.present} times. Received: {flag.value} at last; give one.")
    if arguments and "config" in flags.FLAGS and not (told.commands or told.operand):
        _take_config(program, arguments.pop(0))
    if complaint := told.complaint(arguments, argv[1:]):
        _fail(program, complaint)
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS.verbosity = logging.WARNING  # INFO is TFDS and others telling what they do
    streams.route(**{name: name in flags.FLAGS and flags.FLAGS[name].value for name in ("quiet", "json")})
    return arguments


def _take_config(program: str, config: str) -> None:
    """Lets what stands beside the flags be --config."""
    given = flags.FLAGS["config"].value
    if given not in (None, config):
        _fail(program, f"Two configs. Received: {config} and --config={given}; give one of them.")
    flags.FLAGS["config"].value = config


def _fail(program: str, message: str, *, status: int = USAGE_ERROR) -> NoReturn:
    streams.warn(f"{program}: error: {' '.join(message.split())}")  # where that fails, the status tells
    sys.exit(status)
