"""A grid of experiments: "split_factor=1,4; seed=0..5; cotraining.loss=js,none" is 24 cells."""

import ast
import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_LONGEST_NAME = 120  # file systems take 255 bytes; the rest is for what stands behind it


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One experiment of a grid.

    Attributes:
      name: its folder's: "split_factor=4,seed=0".
      arguments: what it sets, by the path of the field in `Experiment`.
    """

    name: str
    arguments: Mapping[str, Any]


def cells(grids: Sequence[str]) -> list[Cell]:
    """All cells of some grids, each once, in their order.

    Args:
      grids: each a list of "field=value,value" with semicolons between; its cells are all combinations. A field is one
        of `Experiment`, or of what that holds ("cotraining.loss", "overrides.dropout"). "0..5" is 0 to 5. Values are
        Python's, or a text without quotes.

    Raises:
      InputError: something else, a field twice, or no grid.
    """
    if not grids or isinstance(grids, str):
        raise InputError(f'A sweep has a grid. Received: {grids!r}; ["split_factor=1,4; seed=0..5"] would work.')
    found = {}
    for grid in grids:
        axes = dict(_axes(grid))
        for values in itertools.product(*axes.values()):
            arguments = dict(zip(axes, values, strict=True))
            name = cell_name(arguments)
            found.setdefault(name, Cell(name, arguments))
    return list(found.values())


def cell_name(arguments: Mapping[str, Any]) -> str:
    """What a cell is called: "split_factor=4,seed=0", as a file may be called, and not longer than is good."""
    text = ",".join(f"{path}={value}" for path, value in arguments.items())
    name = re.sub(r"[^\w.,=+-]", "_", text)
    if name == text and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def with_arguments(instance: Any, arguments: Mapping[str, Any]) -> Any:
    """A dataclass with some fields set, also fields of what it holds.

    Args:
      instance: an `Experiment`, say.
      arguments: values by path: {"split_factor": 4, "cotraining.loss": "js"}.

    Raises:
      InputError: no such field, or a value that it does not take.
    """
    names = [field.name for field in dataclasses.fields(instance)]
    changes: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for path, value in arguments.items():
        head, _, rest = path.partition(".")
        if head not in names:
            kind = type(instance).__name__
            raise InputError(f"{kind} has no such field. Received: {head}.{did_you_mean(head, names)}")
        if rest:
            inner.setdefault(head, {})[rest] = value
        else:
            changes[head] = value
    for head, values in inner.items():
        held = changes.get(head, getattr(instance, head))
        if dataclasses.is_dataclass(held):
            changes[head] = with_arguments(held, values)
        elif isinstance(held, Mapping):
            changes[head] = {**held, **values}
        else:
            raise InputError(
                f"{head} holds no fields. Received: {head}.{next(iter(values))}, with {head}={held!r}; {head}=VALUE "
                "would work."
            )
    return dataclasses.replace(instance, **changes)


def _axes(grid: str) -> Iterator[tuple[str, list[Any]]]:
    seen = set()
    for part in filter(None, map(str.strip, split(grid, ";"))):
        path, equals, values = map(str.strip, part.partition("="))
        if not equals or not values or not re.fullmatch(r"\w+(\.\w+)*", path):
            raise InputError(f"A part of a grid is field=value,value. Received: {part}; seed=0..5 would work.")
        if path in seen:
            raise InputError(f"A grid has a field twice. Received: {path} in {grid}; name all its values in one place.")
        seen.add(path)
        yield path, [value for text in split(values, ",") for value in _values(text.strip(), part)]
    if not seen:
        raise InputError(f"A grid is empty. Received: {grid!r}; split_factor=1,4 would work.")


def _values(text: str, part: str) -> list[Any]:
    if not text:
        raise InputError(f"A grid has an empty value. Received: {part}; take out the comma.")
    if found := _RANGE.fullmatch(text):
        first, last = map(int, found.groups())
        if last < first:
            raise InputError(f"A range runs upwards. Received: {text}; {last}..{first} would work.")
        return list(range(first, last + 1))
    return [literal(text)]


def literal(text: str) -> Any:
    """Python's value of a literal; "true" and "false" are meant so too, and what is none is a text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def split(text: str, separator: str) -> list[str]:
    """The parts of a text between separators that stand outside of quotes and brackets."""
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        else:
            depth += (character in "([{") - (character in ")]}")
        if character == separator and not quote and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
