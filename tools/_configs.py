"""Configs: where they lie, and gin's parsing of them with each complaint told in one line."""

import contextlib
import fnmatch
import importlib
import inspect
import logging
import pathlib
import re
import sys
import tokenize
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

# Plain gin: gin.tf wants tf.estimator, which TensorFlow no longer has.
import gin

from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean
from divco_tf.tools import _includes, _old_names
from divco_tf.tools._includes import configs_dir

if TYPE_CHECKING:
    from divco_tf.runs.experiment import Experiment
    from divco_tf.runs.options import Options

_LOCATION = re.compile(r'\n\s*In (?:file "(?P<file>.*?)",|bindings string) line (?P<line>\d+)\n\s*(?P<text>.*)')
_IMPORT = re.compile(r"^(?:from\s+(?P<package>\S+)\s+)?import\s+(?P<name>[\w.]+)(?:\s+as\s+(?P<alias>\w+))?")


def config_names() -> list[str]:
    """Names of the shipped configs, as --config takes them: "cifar10/wide_resnet28_10_split4"."""
    folder = configs_dir()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.gin"))


def experiment_names() -> list[str]:
    """Those of the shipped configs that are experiments: what others include is a part of them."""
    names = config_names()
    texts = (_includes.read(configs_dir() / f"{name}.gin") for name in names)
    included = {part for text in texts for part in _includes.included(text)}
    return [name for name in names if name not in included]


def matching_configs(pattern: str) -> list[str]:
    """Names of the shipped experiments that a shell's pattern finds.

    Raises:
      InputError: none.
    """
    found = fnmatch.filter(experiment_names(), pattern)
    if not found:
        raise InputError(f"No config is found. Received: {pattern}; the shipped ones are in {configs_dir()}.")
    return found


def find_config(config: str) -> pathlib.Path:
    """The file that `config` stands for: a path, or a name in `configs_dir()` with or without ".gin".

    Raises:
      InputError: there is none.
    """
    path = pathlib.Path(config).expanduser()
    for place in (path, configs_dir() / config, configs_dir() / f"{config}.gin", pathlib.Path(f"{path}.gin")):
        if place.is_file():
            return place
    if path.is_dir():
        raise InputError(f"A config is a file. Received: {config}, a folder; a .gin file in it works.")
    raise InputError(
        f"No such config. Received: {config}.{_suggest_config(config)} A path to a .gin file works too, "
        f"and the shipped ones are in {configs_dir()}."
    )


def parse_config(config: str, bindings: Sequence[str] = ()) -> None:
    """Makes `config`, then `bindings`, the process's gin configuration, in place of any earlier one.

    Bindings see what the config and its includes import; `_includes` says where includes and modules are found.

    Args:
      config: as for `find_config`.
      bindings: "module.function.parameter=value", or "macro=value" for a macro that the config defines.

    Raises:
      InputError: no such config, or gin's complaint (unknown parameter, module or name; syntax; missing macro).
    """
    path = find_config(config)
    _old_names.answer()
    gin.clear_config()
    logging.disable(logging.ERROR)  # gin logs an error for each folder that an include is not in
    try:
        _includes.parse_config_file(path)
        # Imports hold for one file only, so the bindings are given those of the config; config_str lists them.
        imports = [line for line in gin.config_str().splitlines() if _IMPORT.match(line)]
        macros = _macros()
        for binding in bindings:
            _check_binding(binding, macros)
            gin.parse_config([*imports, binding])
        gin.finalize()
    except Exception as error:
        complaint = gin_complaint(error)
        if complaint is None:
            raise
        raise InputError(complaint) from error
    finally:
        logging.disable(logging.NOTSET)


def experiment() -> "Experiment":
    """The experiment that the parsed config describes."""
    from divco_tf.runs.experiment import Experiment

    return _configured(Experiment)


def options() -> "Options":
    """The parsed config's options of a run."""
    from divco_tf.runs.options import Options

    return _configured(Options)


def operative_config() -> str:
    """What the parsed config set, defaults included, as gin reads it again."""
    return gin.operative_config_str()


@contextlib.contextmanager
def modules_of(model_dir: str) -> Iterator[None]:
    """Imports what the config of a run imports, as it may register a backbone or an operation that the run names.

    A module is looked for among the installed and in the working directory, but not in the run's own folder, which is
    data. One that is not found is named if the block raises an InputError.
    """
    if not pathlib.Path.cwd().is_relative_to(pathlib.Path(model_dir).resolve()):
        _includes.make_importable([pathlib.Path.cwd()])
    config, missing = pathlib.Path(model_dir, "config.gin"), []
    for line in _includes.read(config).splitlines() if config.is_file() else ():
        match = _IMPORT.match(line)
        if match and not line.startswith(("from __gin__ ", "from divco_tf.")):
            module = ".".join(filter(None, (match["package"], match["name"])))
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:
                missing.append(module)
    try:
        yield
    except InputError as error:
        if not missing:
            raise
        raise InputError(
            f"{error} The run's config imports {', '.join(missing)}, found neither here nor on PYTHONPATH: a working "
            "directory where it lies works."
        ) from error


def _configured(kind: type) -> Any:
    """`kind()` with gin's bindings; gin knows only what a config imports and mentions."""
    try:
        configurable = gin.get_configurable(kind)
    except ValueError:
        configurable = kind
    try:
        return configurable()
    except TypeError as error:
        raise InputError(
            f"The config does not describe an experiment. Received: {str(error).splitlines()[0]}; "
            f"bind it, as the configs in {configs_dir()} do."
        ) from error


def gin_complaint(error: Exception) -> str | None:
    """One line for an error that gin itself raised about a config, naming what exists; None for any other error."""
    frames = _modules_of(error.__traceback__)
    if not any(name.startswith("gin.") for name in frames) or not re.match(r"gin\.|tokenize$", frames[-1]):
        return None
    if isinstance(error, SyntaxError | tokenize.TokenError):
        return _syntax_complaint(error)
    message, *_ = str(error).split("\n", maxsplit=1)
    location = _LOCATION.search(str(error))
    complaint = _translate(message, location["file"] if location else None)
    if location:
        complaint += f" Received: {location['text']}{_place(location['file'], location['line'])}."
    elif arguments := re.search(r"No values supplied by Gin or caller for arguments: (\[.*\])", str(error)):
        complaint += f" Bind {arguments[1]}."
    return complaint


def _suggest_config(name: str) -> str:
    return did_you_mean(name.removesuffix(".gin"), config_names())


def _check_binding(binding: str, macros: Iterable[str]) -> None:
    name, equals, _ = (part.strip() for part in binding.partition("="))
    if not equals:
        raise InputError(f"A binding has the form module.function.parameter=value. Received: {binding}.")
    if "." not in name and name not in macros:
        # gin would take it for a new macro, and nothing would use it.
        raise InputError(
            f"The config has no macro {name}. Received: {binding}.{did_you_mean(name, macros)} "
            f"Anything else is bound as module.function.parameter=value."
        )


def _modules_of(traceback: types.TracebackType | None) -> list[str]:
    """Names of the modules that `traceback` runs through, the one that raised last."""

    def frames() -> Iterator[str]:
        step = traceback
        while step is not None:
            yield step.tb_frame.f_globals.get("__name__", "")
            step = step.tb_next

    return list(frames())


def _place(file: str | None, line: str | int | None) -> str:
    return f" ({file}:{line})" if file else ""


def _syntax_complaint(error: SyntaxError | tokenize.TokenError) -> str:
    if isinstance(error, tokenize.TokenError):
        return f"gin cannot parse the config: {error.args[0]}. Close every bracket and quote."
    reason = error.msg.splitlines()[-1].strip().rstrip(".")
    received = f" Received: {error.text.strip()}{_place(error.filename, error.lineno)}." if error.text else ""
    hint = ""
    if re.search(r"token|value", reason):
        hint = " Texts stand in quotes, which a shell keeps only inside other quotes: --bind 'x.name=\"text\"'."
    return f"gin cannot parse the config: {reason}.{received}{hint}"


def _translate(message: str, file: str | None) -> str:
    """gin's message with what exists in place of what was asked for."""
    if match := re.match(r"Configurable '(.+)' doesn't have a parameter named '(.+)'", message):
        selector, name = match.groups()
        return f"{selector} has no parameter {name}.{did_you_mean(name, _parameters(selector))}"
    if match := re.match(r"Couldn't resolve selector .+; <\w+ '?([\w.]+).*> has no attribute (\w+)", message):
        module, name = match.groups()
        return f"{module} has no {name}.{did_you_mean(name, _public_names(module))}"
    if match := re.match(r"'(.+)' was not provided by an import statement", message):
        symbols = _imported_symbols(pathlib.Path(file).read_text() if file else gin.config_str())
        return f"The config imports no {match[1]}.{did_you_mean(match[1], symbols)}"
    if match := re.match(r"Unable to open file: (.+)\. Searched", message):
        return f"No such file to include: {match[1]}.{_suggest_config(match[1])}"  # of a form that _includes passes by
    if match := re.match(r"No bindings specified for '(.+)/(?:gin\.)?macro'", message):
        return f"The config uses the macro {match[1]} and does not define it.{did_you_mean(match[1], _macros())}"
    return message.rstrip(".") + "."


def _macros() -> list[str]:
    return re.findall(r"^(\w+) = ", gin.config_str(), flags=re.MULTILINE)


def _parameters(selector: str) -> list[str]:
    for name in (selector, selector.rpartition(".")[2]):  # gin knows an old name by its end only
        with contextlib.suppress(KeyError, ValueError):  # gin finds nothing, or several
            configurable = gin.get_configurable(name)
            called = configurable.__init__ if inspect.isclass(configurable) else configurable
            return [parameter for parameter in inspect.signature(called).parameters if parameter != "self"]
    return []


def _public_names(module: str) -> list[str]:
    """Functions and classes of an imported module, without those it imports from elsewhere."""
    members = vars(sys.modules[module]) if module in sys.modules else {}
    return [
        name
        for name, member in members.items()
        if not name.startswith("_") and callable(member) and str(member.__module__).startswith(module)
    ]


def _imported_symbols(text: str) -> list[str]:
    return [match["alias"] or match["name"] for line in text.splitlines() if (match := _IMPORT.match(line))]
