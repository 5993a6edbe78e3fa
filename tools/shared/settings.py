"""Settings by their names, as --set, --grid and the hints of errors call them: epochs, strategy, cotraining.loss.

A setting is a field of `Experiment`, of a dataclass that it holds, or of `Options`. Its path is that of divco-sweep's
--grid, with `options.` before those of `Options`; the field alone will do where one place has it. Names are known
without TensorFlow.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from absl import flags

from divco_tf import fields
from divco_tf.analysis.grid import Cell, cell_name, literal, split
from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean
from divco_tf.tools.shared import unimported

EXPERIMENT, OVERRIDES = "experiment", "overrides"


@dataclasses.dataclass(frozen=True)
class Part:
    """A dataclass of settings, and where it is defined."""

    module: str
    kind: str

    @property
    def name(self) -> str:
        """As gin's bindings call it."""
        return f"{self.module.rpartition('.')[2]}.{self.kind}"

    @property
    def statement(self) -> str:
        """What a config says to import it."""
        package, _, module = self.module.rpartition(".")
        return f"from {package} import {module}"

    @property
    def fields(self) -> dict[str, str]:
        """Type hints by name."""
        return unimported.fields_of(self.module, self.kind)


PARTS = {
    EXPERIMENT: Part("divco_tf.runs.experiment", "Experiment"),
    "options": Part("divco_tf.runs.options", "Options"),
    "optimizer": Part("divco_tf.training.optim.optimizer", "OptimizerConfig"),
    "learning_rate": Part("divco_tf.training.optim.learning_rate", "LearningRate"),
    "cotraining": Part("divco_tf.training.losses", "CoTraining"),
    "warm_start": Part("divco_tf.runs.warm_start", "WarmStart"),
}
"""By the first part of a path; those behind `options` are fields of `Experiment` as well."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting: a field of a part, and of `overrides` an entry."""

    part: str
    field: str
    entry: str = ""

    @property
    def path(self) -> str:
        """As --grid calls it, the fields of `Options` as --set does."""
        inner = f"{self.field}.{self.entry}" if self.entry else self.field
        return inner if self.part == EXPERIMENT else f"{self.part}.{inner}"

    @property
    def parameter(self) -> str:
        """As gin calls it: "options.Options.strategy"."""
        return f"{PARTS[self.part].name}.{self.field}"

    def checked(self, text: str) -> Any:
        """What a text stands for, where the field takes it as far as is known without TensorFlow.

        Raises:
          InputError: it does not.
        """
        part, value = PARTS[self.part], self.value(text)
        hint = Any if self.entry else unimported.hint_of(part.module, part.kind, self.field)
        fields.checked(value, hint, f"{part.kind}.{self.field}")
        return value

    def value(self, text: str) -> Any:
        """What a text stands for: Python's literals, and whatever the field takes for a text."""
        hint, found = "Any" if self.entry else PARTS[self.part].fields[self.field], literal(text)
        if hint.startswith(("str", "Annotated[str")) and isinstance(found, bool | int | float):
            return text  # a folder that is called 2020
        if "tuple[" in hint and isinstance(found, str) and len(split(text, ",")) > 1:
            return tuple(literal(part.strip()) for part in split(text, ","))
        if hint.startswith("tuple[") and not isinstance(found, tuple | list | None):
            return (found,)
        return found


class Assignment(NamedTuple):
    """A setting, its value, and both as they were typed: "epochs=2"."""

    setting: Setting
    value: Any
    text: str


def find(name: str, *, received: str | None = None) -> Setting:
    """The setting of a name.

    Args:
      name: a path, or a field that one part alone has.
      received: what the user typed; `name` unless given.

    Raises:
      InputError: nothing is called so, or several settings are.
    """
    received = received or name
    found = named(name)
    if len(found) == 1:
        return found[0]
    if found:
        _, equals, value = received.partition("=")
        choices = " or ".join(f"{setting.path}{equals}{value}" for setting in found)
        raise InputError(f"Several settings are called {name}. Received: {received}; {choices} works.")
    head, _, rest = name.partition(".")
    if head in PARTS and not rest:
        listed = ", ".join(f"{head}.{field}" for field in PARTS[head].fields)
        raise InputError(f"{head} is several settings. Received: {received}; one of {listed} works.")
    if head in PARTS:
        close = did_you_mean(rest, PARTS[head].fields)
        raise InputError(f"{PARTS[head].kind} has no {rest}. Received: {received}.{close}")
    raise InputError(f"No setting is called {name}. Received: {received}.{did_you_mean(name, _all_names())}")


def named(name: str) -> list[Setting]:
    """All settings of a name: one where it is a path, several where it is a field of several parts."""
    for part in PARTS.values():  # a path that gin's bindings would take
        name = re.sub(rf"^(\w+\.)?{part.kind}\.", f"{_key(part)}.", name)
    head, _, rest = name.removeprefix(f"{EXPERIMENT}.").partition(".")
    own = PARTS[EXPERIMENT].fields
    if head == OVERRIDES and rest:
        return [Setting(EXPERIMENT, head, rest)]
    if rest:
        return [Setting(head, rest)] if head in PARTS and rest in PARTS[head].fields else []
    if head in own and head not in PARTS:
        return [Setting(EXPERIMENT, head)]
    if name != head:
        return []
    return [Setting(key, head) for key, part in PARTS.items() if key != EXPERIMENT and head in part.fields]


def assigned(texts: Iterable[str]) -> list[Assignment]:
    """What "name=value" texts set.

    Raises:
      InputError: another form, an unknown name, no value, or a setting twice.
    """
    found: dict[Setting, Assignment] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not name:
            raise InputError(f"A setting has the form name=value. Received: --set {text}; --set epochs=2 works.")
        setting = find(name, received=f"--set {name}={value}")
        if setting.path != name and name in flags.FLAGS:
            raise InputError(
                f"{name} is a flag. Received: --set {text}; --{name}={value} works, or --set {setting.path}={value} "
                "for the field of that name."
            )
        if not value:
            raise InputError(f"{setting.path} gets no value. Received: --set {text}; {name}=None is none.")
        if setting in found:
            raise InputError(f"{setting.path} is set twice. Received: --set {text} at last; give one of them.")
        found[setting] = Assignment(setting, setting.checked(value), f"{name}={value}")
    return list(found.values())


def of_experiment(cell: Cell) -> Cell:
    """A grid's cell with the full path of each of its fields.

    Raises:
      InputError: a field that `Experiment` does not have.
    """
    own = PARTS[EXPERIMENT].fields.keys() - PARTS.keys()
    # What a config may hold there has fields of its own.
    found = {path: find(path) for path in cell.arguments if path.partition(".")[0] not in own}
    for path, setting in found.items():
        if setting.part == "options":
            raise InputError(
                f"A grid is of the experiment. Received: {path}, of the options; --set {path}=VALUE works."
            )
    arguments = {found[path].path if path in found else path: value for path, value in cell.arguments.items()}
    return dataclasses.replace(cell, name=cell_name(arguments), arguments=arguments)


def as_literal(value: Any) -> str:
    """A value as gin, and Python, read it."""
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)  # a path may be no UTF-8
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{as_literal(key)}: {as_literal(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, tuple):
        return f"({', '.join(map(as_literal, value))}{',' * (len(value) == 1)})"
    return repr(value)


def _key(part: Part) -> str:
    return next(key for key, known in PARTS.items() if known == part)


def _all_names() -> list[str]:
    return [*PARTS, *(field for part in PARTS.values() for field in part.fields)]
