"""What modules of ours hold, read from their text: to import them takes TensorFlow's seconds."""

import ast
import contextlib
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import divco_tf
from divco_tf import fields, tools


@functools.cache
def fields_of(module: str, kind: str) -> dict[str, str]:
    """The type hints of a dataclass's fields by name, as they are written there."""
    (found,) = (node for node in _body(module) if isinstance(node, ast.ClassDef) and node.name == kind)
    return {node.target.id: ast.unparse(node.annotation) for node in found.body if isinstance(node, ast.AnnAssign)}


def hint_of(module: str, kind: str, field: str) -> Any:
    """The type hint of a field, as `fields.checked` takes it; Any where it names what only an import would tell."""
    text = fields_of(module, kind)[field]
    known = {"Annotated": Annotated, "Any": Any, "Mapping": Mapping, "os": os, **vars(fields)}
    names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    try:
        return eval(text, {**known, **{name: _names(module, name) for name in names if name.isupper()}})
    except NameError:
        return Any


@functools.cache
def parameters_of(module: str, function: str) -> tuple[str, ...]:
    """The names of a function's keyword-only parameters."""
    (found,) = (node for node in _body(module) if isinstance(node, ast.FunctionDef) and node.name == function)
    return tuple(parameter.arg for parameter in found.args.kwonlyargs)


@functools.cache
def names_of(module: str) -> tuple[str, ...]:
    """The names of a module's public functions and classes."""
    defined = (node.name for node in _body(module) if isinstance(node, ast.ClassDef | ast.FunctionDef))
    return tuple(name for name in defined if not name.startswith("_"))


@functools.cache
def _names(module: str, constant: str) -> tuple[str, ...]:
    """A constant tuple of names, wherever the module has it from; NameError where it is more than a literal."""
    for node in _body(module):
        if isinstance(node, ast.ImportFrom) and any(alias.name == constant for alias in node.names):
            return _names(node.module, constant)
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [constant]:
            with contextlib.suppress(ValueError):
                return tuple(ast.literal_eval(node.value))
    raise NameError(constant)


@functools.cache
def _body(module: str) -> list[ast.stmt]:
    # Not importlib's find_spec, which imports the packages around a module.
    path, *parts = module.removeprefix("divco_tf.").split(".")
    folder = pathlib.Path(tools.__file__ if path == "tools" else divco_tf.__file__).parent
    parts = parts if path == "tools" else [path, *parts]
    return ast.parse(folder.joinpath(*parts).with_suffix(".py").read_text("utf-8")).body
