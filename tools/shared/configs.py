"""Configs: which there are, and gin's parsing of them."""

import contextlib
import fnmatch
import importlib
import logging
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

# Plain gin: gin.tf wants tf.estimator, which TensorFlow no longer has.
import gin

from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean
from divco_tf.tools.shared import includes, old_names
from divco_tf.tools.shared.complaints import IMPORT, gin_complaint, macros
from divco_tf.tools.shared.includes import config_names, configs_dir

if TYPE_CHECKING:
    from divco_tf.runs.experiment import Experiment
    from divco_tf.runs.options import Options


def experiment_names() -> list[str]:
    """Those of the shipped configs that are experiments: what others include is a part of them."""
    names = config_names()
    texts = (includes.read(configs_dir() / f"{name}.gin") for name in names)
    included = {part for text in texts for part in includes.included(text)}
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
    suggestion = did_you_mean(config.removesuffix(".gin"), config_names())
    raise InputError(
        f"No such config. Received: {config}.{suggestion} A path to a .gin file works too, and the shipped ones are in "
        f"{configs_dir()}."
    )


def parse_config(config: str, bindings: Sequence[str] = ()) -> None:
    """Makes `config`, then `bindings`, the process's gin configuration, in place of any earlier one.

    Bindings see what the config and its includes import; `includes` says where includes and modules are found.

    Args:
      config: as for `find_config`.
      bindings: "module.function.parameter=value", or "macro=value" for a macro that the config defines.

    Raises:
      InputError: no such config, or gin's complaint (unknown parameter, module or name; syntax; missing macro).
    """
    path = find_config(config)
    old_names.answer()
    gin.clear_config()
    logging.disable(logging.ERROR)  # gin logs an error for each folder that an include is not in
    try:
        includes.parse_config_file(path)
        # Imports hold for one file only, so the bindings are given those of the config; config_str lists them.
        imports = [line for line in gin.config_str().splitlines() if IMPORT.match(line)]
        defined = macros()
        for binding in bindings:
            _check_binding(binding, defined)
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
        includes.make_importable([pathlib.Path.cwd()])
    config, missing = pathlib.Path(model_dir, "config.gin"), []
    for line in includes.read(config).splitlines() if config.is_file() else ():
        match = IMPORT.match(line)
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


def _check_binding(binding: str, defined: Iterable[str]) -> None:
    name, equals, _ = (part.strip() for part in binding.partition("="))
    if not equals:
        raise InputError(f"A binding has the form module.function.parameter=value. Received: {binding}.")
    if "." not in name and name not in defined:
        # gin would take it for a new macro, and nothing would use it.
        raise InputError(
            f"The config has no macro {name}. Received: {binding}.{did_you_mean(name, defined)} "
            f"Anything else is bound as module.function.parameter=value."
        )
