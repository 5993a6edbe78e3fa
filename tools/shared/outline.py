"""What a config binds, read by gin's parser without importing anything: names are checked before TensorFlow starts."""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from gin import config_parser
from gin.config_parser import BindingStatement, ImportStatement, IncludeStatement

from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean
from divco_tf.tools.shared import includes, unimported
from divco_tf.tools.shared.complaints import gin_complaint
from divco_tf.tools.shared.settings import PARTS


class Reference(NamedTuple):
    """gin's @name or @name()."""

    name: str
    evaluate: bool


class Macro(NamedTuple):
    """gin's %name."""

    name: str


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name, evaluate)

    def macro(self, macro_name: str) -> Macro:
        return Macro(macro_name)


class Bound(NamedTuple):
    """A binding that holds: its value, and the statement."""

    value: Any
    statement: BindingStatement


@dataclasses.dataclass
class Outline:
    """What holds at the end of a config.

    Attributes:
      bindings: by scope, the last part of the name ("Experiment") and the parameter.
      macros: by name.
      modules: all that is imported, by the name that it is bound to.
    """

    bindings: dict[tuple[str, str, str], Bound] = dataclasses.field(default_factory=dict)
    macros: dict[str, Bound] = dataclasses.field(default_factory=dict)
    modules: dict[str, str] = dataclasses.field(default_factory=dict)

    def value(self, kind: str, name: str, default: Any = None) -> Any:
        """What is bound, a macro's value for the macro."""
        bound = self.bindings.get(("", kind, name))
        value = default if bound is None else bound.value
        while isinstance(value, Macro):
            value = self.macros[value.name].value if value.name in self.macros else default
        return value

    def uses(self, macro: str) -> bool:
        """Whether anything has the macro for its value, or in it."""
        return any(_holds(bound.value, macro) for bound in (*self.bindings.values(), *self.macros.values()))

    def add(self, statements: Iterable[Any]) -> None:
        """Takes further statements."""
        for statement in statements:
            if isinstance(statement, ImportStatement):
                self.modules[statement.bound_name()] = statement.module
            elif isinstance(statement, BindingStatement) and not statement.arg_name:
                self.macros[statement.selector] = Bound(statement.value, statement)
            elif isinstance(statement, BindingStatement):
                key = (statement.scope, statement.selector.rpartition(".")[2], statement.arg_name)
                self.bindings[key] = Bound(statement.value, statement)


def read(path: pathlib.Path) -> Outline:
    """The outline of a config with its includes.

    Raises:
      InputError: gin cannot parse it, an include is not found, or the name of a setting is misspelt.
    """
    includes.files(path)  # refuses circles
    outline = Outline()
    try:
        outline.add(_statements(path.absolute()))
    except RecursionError as error:  # a circle in a form that only gin knows
        raise includes.circle(path) from error
    return outline


@functools.cache
def parse(text: str, file: str | None = None) -> tuple[Any, ...]:
    """gin's statements in a text; `file` is for messages.

    Raises:
      InputError: gin cannot parse it.
    """
    source = io.StringIO(text)
    source.name = file
    try:
        return tuple(config_parser.ConfigParser(source, _Delegate()))
    except Exception as error:
        complaint = gin_complaint(error)
        if complaint is None:
            raise
        raise InputError(complaint) from error


def check_name(statement: BindingStatement, modules: dict[str, str]) -> None:
    """Refuses a binding to a class or a parameter that one of the modules of settings does not have.

    Raises:
      InputError: as said.
    """
    symbol, _, kind = statement.selector.rpartition(".")
    part = next((part for part in PARTS.values() if part.module == modules.get(symbol)), None)
    if part is None or not statement.arg_name:
        return
    file, place = statement.location.filename, ""
    if file:
        place = f" ({file}:{statement.location.line_num})"
    received = f"Received: {statement.location.line_content.strip()}{place}."
    if kind not in (names := unimported.names_of(part.module)):
        raise InputError(f"{symbol} has no {kind}.{did_you_mean(kind, names)} {received}")
    if kind == part.kind and statement.arg_name not in part.fields:
        close = did_you_mean(statement.arg_name, part.fields)
        raise InputError(f"{statement.selector} has no parameter {statement.arg_name}.{close} {received}")


def _statements(path: pathlib.Path) -> Iterator[Any]:
    """Those of a file, with those of its includes in their places."""
    modules: dict[str, str] = {}
    for statement in parse(includes.read(path), str(includes.shown(path))):
        if isinstance(statement, IncludeStatement):
            place = statement.location
            yield from _statements(
                includes.resolve(statement.filename, path, line=place.line_num, statement=place.line_content)
            )
            continue
        if isinstance(statement, ImportStatement):
            modules[statement.bound_name()] = statement.module
        elif isinstance(statement, BindingStatement):
            check_name(statement, modules)
        yield statement


def is_literal(value: Any) -> bool:
    """Whether a value is Python's, with no macro and no reference in it."""
    if isinstance(value, dict):
        return all(map(is_literal, (*value, *value.values())))
    if isinstance(value, list | tuple) and not isinstance(value, Macro | Reference):
        return all(map(is_literal, value))
    return not isinstance(value, Macro | Reference)


def _holds(value: Any, macro: str) -> bool:
    if isinstance(value, Macro):
        return value.name.removesuffix("/macro") == macro
    if isinstance(value, dict):
        return any(_holds(inner, macro) for pair in value.items() for inner in pair)
    if isinstance(value, Sequence) and not isinstance(value, str | Reference):
        return any(_holds(inner, macro) for inner in value)
    return False
