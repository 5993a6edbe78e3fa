"""What modules of ours hold, read from their text: to import them takes TensorFlow's seconds."""

import ast
import functools
import importlib.util
import pathlib


@functools.cache
def fields_of(module: str, kind: str) -> dict[str, str]:
    """The type hints of a dataclass's fields by name, as they are written there."""
    (found,) = (node for node in _body(module) if isinstance(node, ast.ClassDef) and node.name == kind)
    return {node.target.id: ast.unparse(node.annotation) for node in found.body if isinstance(node, ast.AnnAssign)}


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


def _body(module: str) -> list[ast.stmt]:
    return ast.parse(pathlib.Path(importlib.util.find_spec(module).origin).read_text("utf-8")).body
