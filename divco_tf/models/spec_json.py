"""Specs as JSON and back: what files say of a network, in a `.keras` file's configuration and in a run's record.

A tuple is JSON's list. What JSON has no word for is an object with one of ours:

    {"list": [...]}                             {"dict": [[key, value], ...]}
    {"dataclass": name, "fields": {...}}        {"enum": name, "member": name}
"""

import dataclasses
import enum
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from divco_tf import fields
from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import BACKBONES, backbone_of
from divco_tf.registry import did_you_mean


def spec_to_json(spec: Any) -> dict[str, Any]:
    """{"backbone": a name of the spec's family, "spec": its fields}, of what `json` writes.

    Raises:
      InputError: no registered backbone takes it, or a field holds what has no form in JSON (named).
    """
    name = backbone_of(spec).name
    return {"backbone": name, "spec": _fields_to_json(spec, type(spec).__name__)}


def spec_from_json(data: Mapping[str, Any]) -> Any:
    """The inverse of `spec_to_json`. What 0.1.0 wrote is read too: there, a nested spec was a plain object.

    Raises:
      InputError: no such backbone, no such field, or a class that the backbone's module does not know.
    """
    registered = BACKBONES.get(data["backbone"]).spec
    return _fields_from_json(data["spec"], type(registered), registered, known=_classes(registered))


def _fields_to_json(spec: Any, where: str) -> dict[str, Any]:
    values = {field.name: getattr(spec, field.name) for field in dataclasses.fields(spec) if field.init}
    return {name: _to_json(value, f"{where}.{name}") for name, value in values.items()}


def _to_json(value: Any, where: str) -> Any:
    if isinstance(value, enum.Enum):
        return {"enum": type(value).__qualname__, "member": value.name}
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | str | int | float):
        return value
    if isinstance(value, tuple) and not hasattr(value, "_fields"):  # a named one would come back as a plain one
        return [_to_json(item, where) for item in value]
    if isinstance(value, list):
        return {"list": [_to_json(item, where) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_to_json(key, where), _to_json(item, where)] for key, item in value.items()]}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {"dataclass": type(value).__qualname__, "fields": _fields_to_json(value, where)}
    raise InputError(
        f"A spec is written to files, and {where} has no form there. Received: {' '.join(repr(value).split())[:80]}; "
        "numbers, texts, tuples, lists, dicts, enums and dataclasses of these would work."
    )


def _fields_from_json(content: Mapping[str, Any], cls: type, like: Any, known: Mapping[str, type]) -> Any:
    """An instance of `cls`; `like` is one whose fields say what a plain object of 0.1.0 stands for."""
    names = [field.name for field in dataclasses.fields(cls) if field.init]
    if unknown := sorted(set(content) - set(names)):
        raise InputError(
            f"{cls.__name__} has no such field, so the file is of another version of it. "
            f"Received: {', '.join(unknown)}; it has {', '.join(names)}."
        )
    return cls(**{name: _from_json(value, getattr(like, name, None), known) for name, value in content.items()})


def _from_json(value: Any, like: Any, known: Mapping[str, type]) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_from_json(item, None, known) for item in value)
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"list"}:
        return [_from_json(item, None, known) for item in value["list"]]
    if set(value) == {"dict"}:
        return {_from_json(key, None, known): _from_json(item, None, known) for key, item in value["dict"]}
    if set(value) == {"dataclass", "fields"}:
        return _fields_from_json(value["fields"], _known(value["dataclass"], known), None, known)
    if set(value) == {"enum", "member"}:
        return _known(value["enum"], known)[value["member"]]
    if dataclasses.is_dataclass(like):
        return _fields_from_json(value, type(like), like, known)
    return {key: _from_json(item, None, known) for key, item in value.items()}


def _known(name: str, known: Mapping[str, type]) -> type:
    if name not in known:
        raise InputError(
            f"The spec holds a class that its backbone does not name. Received: {name}; annotate the field with it."
            f"{did_you_mean(name, known)}"
        )
    return known[name]


def _classes(spec: Any) -> dict[str, type]:
    """Dataclasses and enums that a spec like this may hold, by name: only those are made of what a file says."""
    found = {}
    for cls in [*_annotated(type(spec)), *_held(spec), *vars(sys.modules[type(spec).__module__]).values()]:
        if isinstance(cls, type) and (dataclasses.is_dataclass(cls) or issubclass(cls, enum.Enum)):
            found.setdefault(cls.__qualname__, cls)
    return found


def _held(value: Any) -> Iterator[type]:
    """The classes of a value and of what it is made of."""
    yield type(value)
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _held(getattr(value, field.name))
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _held(item)


def _annotated(hint: Any) -> Iterator[type]:
    """The classes that an annotation names, `tuple[Block, ...]`, and those that their fields' annotations name."""
    if typing.get_args(hint):
        for part in typing.get_args(hint):
            yield from _annotated(part)
    elif isinstance(hint, type):
        yield hint
        if dataclasses.is_dataclass(hint):
            try:
                hints = typing.get_type_hints(hint)
            except NameError:  # written as text, of a class that is not in its module
                return
            for name in {field.name for field in dataclasses.fields(hint)} & set(hints):
                yield from _annotated(hints[name])


def overrides_to_json(backbone: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overridden fields of a backbone's spec, of what `json` writes.

    Raises:
      InputError: a field holds what has no form there.
    """
    content = spec_to_json(dataclasses.replace(BACKBONES.get(backbone).spec, **overrides))["spec"]
    return {name: content[name] for name in overrides}


def overrides_from_json(backbone: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `overrides_to_json`.

    Raises:
      InputError: no such backbone or field.
    """
    table = spec_to_json(BACKBONES.get(backbone).spec)
    spec = spec_from_json({**table, "spec": {**table["spec"], **content}})
    return {name: getattr(spec, name) for name in content}


def with_tuples(backbone: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The same with tuples for lists (gin's, or JSON's) of fields that are none in the backbone's table."""
    spec = BACKBONES.get(backbone).spec
    return {
        name: _tuples(value) if not isinstance(getattr(spec, name, None), list) else value
        for name, value in overrides.items()
    }


def check_overrides(backbone: str, overrides: Mapping[str, Any]) -> None:
    """Refuses values of another type than the backbone's spec says of its fields.

    Raises:
      InputError: the first that does not fit.
    """
    kind = type(BACKBONES.get(backbone).spec)
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except NameError:  # written as text, of a class that is not in its module
        return
    for name, value in overrides.items():
        fields.checked(value, hints.get(name, Any), f"overrides of {kind.__name__}.{name}")


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) and not hasattr(value, "_fields") else value
