"""A checkout in numbers, to compare with another one's: python tools/reports/tree.py [PATH].

Of divco_tf/ and tools/: files, lines, functions, names; arrows between folders (imports, wherever they stand but under
TYPE_CHECKING), and circles of them. A file at the top of divco_tf/ counts as a folder, as all import errors.py.
"""

import ast
import pathlib
import statistics
import sys
from collections.abc import Collection, Iterator

Arrows = dict[str, set[str]]


def main(root: pathlib.Path) -> None:
    """Prints the numbers, the circles, and the arrows that leave each folder."""
    trees = {}
    for package in ("divco_tf", "tools"):
        texts = {path.relative_to(root).as_posix(): path.read_text() for path in sorted((root / package).rglob("*.py"))}
        trees |= {path: ast.parse(text) for path, text in texts.items()}
        print(package, *(f"  {name:<16}  {told}" for name, told in numbers(texts).items()), sep="\n")
    files, folders = arrows_of(trees)
    for kind, found in (("files", circles(files)), ("folders", circles(folders))):
        print(f"circles of {kind}: {len(found)}", *sorted(map(" <-> ".join, found)), sep="\n  ")
    print(f"arrows between folders: {sum(map(len, folders.values()))}")
    print(*(f"  {one} -> {', '.join(sorted(found))}" for one, found in sorted(folders.items()) if found), sep="\n")


def numbers(texts: dict[str, str]) -> dict[str, str]:
    """Sizes of files and functions, and how many functions, classes and constants have public or private names."""
    files, functions, names = [(len(text.splitlines()), path) for path, text in texts.items()], [], []
    for path, text in texts.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                functions.append((node.end_lineno - node.lineno + 1, f"{path}: {node.name}"))
            if isinstance(node, ast.Module | ast.ClassDef):
                targets = [target for part in node.body for target in getattr(part, "targets", [part])]
                found = [getattr(target, "id", getattr(target, "name", "__")) for target in targets]
                names += [name for name in found if not name.startswith("__")]
    private = sum(name.startswith("_") for name in names)
    told = f"{len(names) - private} public, {private} private"
    return {"files": _sizes(files), "functions": _sizes(functions), "names": told}


def _sizes(found: list[tuple[int, str]]) -> str:
    sizes, (most, where) = [size for size, _ in found], max(found, default=(0, "none"))
    return f"{len(sizes)}: {sum(sizes)} lines, median {statistics.median(sizes or [0]):g}, most {most} ({where})"


def arrows_of(trees: dict[str, ast.Module]) -> tuple[Arrows, Arrows]:
    """Which files import which, and so which folders."""
    names = {path: f"divco_tf/{path.removeprefix('divco_tf/').removesuffix('.py')}" for path in trees}  # as installed
    modules = {name.removesuffix("/__init__").replace("/", "."): path for path, name in names.items()}
    files = {path: {modules[name] for name in _imported(tree, modules)} - {path} for path, tree in trees.items()}
    folders: Arrows = {_folder(path): set() for path in files}
    for path, others in files.items():
        folders[_folder(path)] |= set(map(_folder, others)) - {_folder(path)}
    return files, folders


def _folder(path: str) -> str:
    folder = path.rpartition("/")[0]
    return path if folder == "divco_tf" else folder


def _imported(node: ast.AST, modules: Collection[str]) -> Iterator[str]:
    if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
    if isinstance(node, ast.ImportFrom) and node.module in modules:
        names = {f"{node.module}.{alias.name}" for alias in node.names}
        yield from {name if name in modules else node.module for name in names}
    for part in ast.iter_child_nodes(node):
        yield from _imported(part, modules)


def circles(arrows: Arrows) -> set[tuple[str, ...]]:
    """Those that lead to each other."""
    reached = {one: set(others) for one, others in arrows.items()}
    for _ in arrows:  # no way is longer
        for others in reached.values():
            others |= set().union(*(reached.get(other, ()) for other in others))
    return {tuple(sorted(b for b in reached[a] if a in reached.get(b, ()))) for a in reached if a in reached[a]}


if __name__ == "__main__":
    main(pathlib.Path(*sys.argv[1:2]))
