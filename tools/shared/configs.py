"""Configs: which there are, and gin's parsing of them."""

import contextlib
import fnmatch
import importlib
import logging
import pathlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

# Plain gin: gin.tf wants tf.estimator, which TensorFlow no longer has.
import gin

from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean
from divco_tf.tools.shared import includes, old_names, outline, settings
from divco_tf.tools.shared.complaints import IMPORT, gin_complaint
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
        raise InputError(f"No config is found. Received: {pattern}; divco-configs lists the shipped ones.")
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
    beside = (str(other.with_suffix("")) for other in path.parent.glob("*.gin"))
    suggestion = did_you_mean(config.removesuffix(".gin"), [*config_names(), *beside])
    raise InputError(
        f"No such config. Received: {config}.{suggestion} A path to a .gin file works too, and divco-configs lists "
        "the shipped ones."
    )


def check(config: str, bindings: Sequence[str] = (), assignments: Sequence[str] = ()) -> outline.Outline:
    """What a config and what the command line adds to it bind, looked at without importing TensorFlow.

    Args:
      config: as for `find_config`.
      bindings: "module.function.parameter=value", or "macro=value" for a macro that the config uses.
      assignments: "name=value", as `settings` has names.

    Raises:
      InputError: a name that is none (of a config, setting, macro, backbone, dataset), or gin's complaint about syntax.
    """
    found = outline.read(find_config(config))
    defined = list(found.macros)
    bound = [statement for binding in bindings for statement in _parsed_binding(binding, defined)]
    for statement in bound:
        outline.check_name(statement, found.modules)
    found.add(bound)
    for statement in bound:
        _check_macro(statement, found)
    assigned = settings.assigned(assignments)
    _check_twice(bound, assigned)
    _check_registered(found, assigned)
    return found


def parse_config(config: str, bindings: Sequence[str] = (), assignments: Sequence[str] = ()) -> list[str]:
    """Makes `config`, then `bindings` and `assignments`, the process's gin configuration, in place of any earlier one.

    Bindings see what the config and its includes import; `includes` says where includes and modules are found.

    Args: as for `check`.

    Returns:
      What each assignment binds, a line each.

    Raises:
      InputError: as `check`, or gin's complaint (unknown parameter, module or name; missing macro).
    """
    found = check(config, bindings, assignments)
    assigned = bindings_of(found, settings.assigned(assignments))
    old_names.answer()
    gin.clear_config()
    logging.disable(logging.ERROR)  # gin logs an error for each folder that an include is not in
    try:
        includes.parse_config_file(find_config(config))
        # Imports hold for one file only, so the bindings are given those of the config; config_str lists them.
        imports = [line for line in gin.config_str().splitlines() if IMPORT.match(line)]
        for binding in bindings:
            gin.parse_config([*imports, binding])
        for _, binding in assigned:
            gin.parse_config([*_SETTINGS_IMPORTS, *binding])
        gin.finalize()
    except Exception as error:
        complaint = gin_complaint(error)
        if complaint is None:
            raise
        raise InputError(complaint) from error
    finally:
        logging.disable(logging.NOTSET)
    return [f"--set {text}: {'; '.join(binding)}" for text, binding in assigned]


def bindings_of(found: outline.Outline, assigned: Iterable[settings.Assignment]) -> list[tuple[str, list[str]]]:
    """How gin says each of some settings: the text that was typed, and the bindings.

    A part that the config does not bind is bound as well, and what it binds of `overrides` is kept.

    Raises:
      InputError: the config has something else in the place of a part.
    """
    told, overrides, parts = [], found.value("Experiment", settings.OVERRIDES, {}), set()
    for setting, value, text in assigned:
        if setting.entry:
            if not outline.is_literal(overrides):
                raise _own(settings.OVERRIDES, text)
            value = overrides = {**overrides, setting.entry: value}
        scope, binding = _scope(found, setting, text)
        told.append((text, binding * (setting.part not in parts)))
        told[-1][1].append(f"{scope}{setting.parameter} = {settings.as_literal(value)}")
        parts.add(setting.part)
    return told


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


_SETTINGS_IMPORTS = (
    "from __gin__ import dynamic_registration",
    *(part.statement for part in settings.PARTS.values()),
)


def _scope(found: outline.Outline, setting: settings.Setting, text: str) -> tuple[str, list[str]]:
    """gin's scope of the part that a setting is of, and what binds the part where the config does not."""
    part, experiment = settings.PARTS[setting.part], settings.PARTS[settings.EXPERIMENT]
    if setting.part not in experiment.fields:
        return "", []
    held = found.value(experiment.kind, setting.part)
    if held is None:
        return "", [f"{experiment.name}.{setting.part} = @{part.name}()"]
    if not isinstance(held, outline.Reference) or held.name.rpartition(".")[2] != part.kind:
        raise _own(setting.part, text)
    return held.name[: held.name.rfind("/") + 1], []


def _own(name: str, text: str) -> InputError:
    return InputError(
        f"The config computes its {name}. Received: --set {text}; --bind of what computes it, or another config, works."
    )


def _parsed_binding(binding: str, defined: Collection[str]) -> tuple[Any, ...]:
    name, equals, _ = (part.strip() for part in binding.partition("="))
    if not equals:
        raise InputError(f"A binding has the form module.function.parameter=value. Received: {binding}.")
    if "." not in name and name not in defined:
        # gin would take it for a new macro, and nothing would use it.
        known = f" --set {binding} works." if len(settings.named(name)) == 1 else ""
        raise InputError(
            f"The config has no macro {name}. Received: {binding}.{known or did_you_mean(name, defined)} "
            f"Anything else is bound as module.function.parameter=value."
        )
    return outline.parse(binding)


def _check_macro(statement: Any, found: outline.Outline) -> None:
    """Refuses a macro that the config defines and then binds something else in its place."""
    if statement.arg_name or found.uses(statement.selector):
        return
    name = statement.selector
    works = f"--set {name}=VALUE works" if settings.named(name) else "binding what it stood for works"
    raise InputError(
        f"The config binds another value where the macro {name} stood. Received: --bind "
        f"{statement.location.line_content.strip()}; {works}."
    )


def _check_twice(bound: Sequence[Any], assigned: Iterable[settings.Assignment]) -> None:
    """Refuses what --bind binds, by itself or by its macro, and --set sets."""
    names = {(statement.selector.rpartition(".")[2], statement.arg_name): statement for statement in bound}
    for setting, _, text in assigned:
        statement = names.get((settings.PARTS[setting.part].kind, setting.field)) or names.get((setting.field, ""))
        if statement is not None:
            received = f"--bind {statement.location.line_content.strip()} and --set {text}"
            raise InputError(f"{setting.path} is set twice. Received: {received}; give one of them.")


def _check_registered(found: outline.Outline, assigned: Iterable[settings.Assignment]) -> None:
    """Refuses a backbone, its division or a dataset that is none, unless a module of the user's may bring it."""
    if not all(module.startswith(("divco_tf.", "__gin__.")) for module in found.modules.values()):
        return
    from divco_tf.data.datasets import get_dataset
    from divco_tf.models import spec_json
    from divco_tf.models.division import check_division

    values = {setting.path: value for setting, value, _ in assigned if not setting.entry}
    kinds = {"backbone": str, "dataset": str, "split_factor": int, "rule": str, "budget": str, settings.OVERRIDES: dict}
    bound = {name: values.get(name, found.value("Experiment", name)) for name in kinds}
    bound = {name: value for name, value in bound.items() if isinstance(value, kinds[name])}
    overrides = bound.pop(settings.OVERRIDES, {})
    overrides = {**overrides, **{setting.entry: value for setting, value, _ in assigned if setting.entry}}
    if "dataset" in bound:
        get_dataset(bound.pop("dataset"))
    if "backbone" in bound:
        backbone = bound.pop("backbone")
        overrides = spec_json.with_tuples(backbone, overrides)
        spec_json.check_overrides(backbone, overrides)
        check_division(backbone, **{"split_factor": 1, **bound, **overrides})
