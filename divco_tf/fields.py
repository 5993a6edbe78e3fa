"""Values of a configuration against its type hints: what does not fit is refused in one line that names the field.

@dataclasses.dataclass(frozen=True)
class Erasing:
    probability: Annotated[float, Within(0, most=1)] = 0.5

    def __post_init__(self) -> None:
        fields.check(self)
"""

import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from divco_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class Within:
    """The limits of a number, in the `Annotated` hint of a field."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def fits(self, value: float) -> bool:
        """Whether it lies within them."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def told(self) -> str:
        """For a message: "0 or more", "above 0 and below 1"."""
        parts = (
            ("", self.least, " or more"),
            ("above ", self.above, ""),
            ("at most ", self.most, ""),
            ("below ", self.below, ""),
        )
        return " and ".join(f"{before}{limit:,}{after}" for before, limit, after in parts if limit is not None)


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The names that a text may be."""

    names: tuple[str, ...]

    def fits(self, value: str) -> bool:
        """Whether it is one of them."""
        return value in self.names

    def told(self) -> str:
        """For a message."""
        return f"one of {', '.join(self.names)}"


Whole = Annotated[int, Within(0)]
Positive = Annotated[int, Within(1)]
Above0 = Annotated[float, Within(above=0)]
AtLeast0 = Annotated[float, Within(0)]
Share = Annotated[float, Within(0, most=1)]


class _Unfit(Exception):
    """What would fit, and whether it is the type that does not."""

    def __init__(self, told: str, *, kind: bool = True) -> None:
        super().__init__(told)
        self.kind = kind


def check(instance: Any) -> None:
    """Refuses values that the hints of a dataclass do not allow; to be called first in its `__post_init__`.

    Lists become tuples where the hint says so, numpy's numbers Python's, dictionaries copies.

    Raises:
      InputError: the first field that does not fit.
    """
    kind = type(instance)
    for name, hint in _hints(kind).items():
        value = checked(getattr(instance, name), hint, f"{kind.__name__}.{name}")
        object.__setattr__(instance, name, value)


def checked(value: Any, hint: Any, name: str) -> Any:
    """The value as the type hint has it; `name` is for the message.

    Raises:
      InputError: it does not fit.
    """
    try:
        return _fitted(value, hint)
    except _Unfit as error:
        what = "has another type" if error.kind else "is out of range"
        raise InputError(f"{name} {what}. Received: {shown(value)}; pass {error}.") from None


def shown(value: Any) -> str:
    """The value in one line, however long it is."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def plain(value: Any) -> Any:
    """The value with Python's numbers for numpy's, and copies of its dictionaries and lists."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "dtype") and hasattr(value, "item"):
        return value.item()
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(plain(inner) for inner in value)
    return value


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _fitted(value: Any, hint: Any) -> Any:
    """The value as the hint has it, or else `_Unfit`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = _fitted(value, arguments[0])
        for limits in arguments[1:]:
            if not limits.fits(value):
                raise _Unfit(_told(hint), kind=False)
        return value
    if origin in (typing.Union, types.UnionType):
        return _fitted_to_one(value, hint, arguments)
    value = plain(value)
    if origin is tuple:
        return _fitted_tuple(value, hint, arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _fitted_mapping(value, hint)
    if hint is not None and not isinstance(hint, type):  # list[int], say, of which only the list is looked at
        hint = origin if isinstance(origin, type) else Any
    if not _is_one(value, hint):
        raise _Unfit(_told(hint))
    if hint is float and not _finite(value):
        raise _Unfit(_told(hint), kind=False)
    return str(value) if hint is str else value  # numpy's texts are texts too


def _fitted_to_one(value: Any, hint: Any, arguments: Sequence[Any]) -> Any:
    out_of_range = None
    for argument in arguments:
        try:
            return _fitted(value, argument)
        except _Unfit as error:
            out_of_range = out_of_range or (error if not error.kind else None)
    raise out_of_range or _Unfit(_told(hint))


def _fitted_tuple(value: Any, hint: Any, arguments: Sequence[Any]) -> tuple:
    if not isinstance(value, list | tuple):
        raise _Unfit(_told(hint))
    hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
    if len(hints) != len(value):
        raise _Unfit(_told(hint))
    try:
        return tuple(_fitted(inner, of_inner) for inner, of_inner in zip(value, hints, strict=True))
    except _Unfit as error:
        raise _Unfit(_told(hint), kind=error.kind) from None


def _fitted_mapping(value: Any, hint: Any) -> dict:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise _Unfit(_told(hint))
    return value


def _is_one(value: Any, hint: Any) -> bool:
    """Whether the value is of the type: a truth is no number, a whole number is a number."""
    if hint is Any:
        return True
    if hint is None:
        return value is None
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint)


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of 400 digits
        return False


_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", os.PathLike: "a path"}


def _told(hint: Any) -> str:
    """What fits a hint, for messages."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        limits = arguments[1]
        return limits.told() if isinstance(limits, OneOf) else f"{_told(arguments[0])}, {limits.told()}"
    if origin in (typing.Union, types.UnionType):
        return ", or ".join(dict.fromkeys(map(_told, arguments)))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list, each {_told(arguments[0])}"
    if origin is tuple:
        return f"{len(arguments)} values, each {_told(arguments[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return "a dict of numbers, strings and lists"
    if hint in (None, types.NoneType):
        return "None"
    article = "an" if hint.__name__[0] in "AEIOU" else "a"
    return _NAMES.get(hint) or f"{article} {hint.__name__}"
