import ast
import importlib
import pathlib
import re
import subprocess
import sys
import tomllib

import keras
import pytest

from divco_tf import compat

ROOT = pathlib.Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PYPROJECT["tool"]["setuptools"]
SOURCES = sorted([*(ROOT / "divco_tf").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])
LINT_IMPORTS = "from importlinter.cli import lint_imports_command as run; run()"


def imported_modules(path: pathlib.Path) -> set[str]:
    """Every absolute module that a file imports anywhere, and each name that it takes from one."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def run_python(code: str) -> str:
    """What a fresh process prints for `code`, run in the checkout."""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_imports_between_the_wings_point_one_way():
    assert "0 broken" in run_python(LINT_IMPORTS)


def test_the_library_does_not_import_the_tools():
    for path in (ROOT / "divco_tf").rglob("*.py"):
        tools = {name for name in imported_modules(path) if re.match(r"(divco_tf\.)?tools\b", name)}
        assert not tools, f"{path} imports {tools}"


def test_the_tools_import_each_other_by_their_installed_name():
    for path in (ROOT / "tools").rglob("*.py"):
        # `import app` or `from tools.shared import app` would work in a checkout only.
        names = {name.split(".")[0] for name in imported_modules(path)}
        assert not names & ({"tools"} | {other.stem for other in path.parent.glob("*.py")}), path


LIGHT_MODULES = [
    "divco_tf",
    "divco_tf.errors",
    "divco_tf.registry",
    "divco_tf.fields",
    "divco_tf.files",
    "divco_tf.models.divide",
    "divco_tf.models.division",
    "divco_tf.models.backbones",
    "divco_tf.torch_files.checkpoint",
    "divco_tf.data.datasets",
    *sorted(f"divco_tf.tools.{path.stem}" for path in (ROOT / "tools").glob("*.py") if path.stem[0] != "_"),
]


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_tables_and_programs_load_without_tensorflow(module):
    heavy = "{'tensorflow', 'keras', 'numba', 'torch', 'sklearn'} & set(sys.modules)"
    assert run_python(f"import sys, {module}; print({heavy} or 'light')").strip() == "light"


def test_every_package_of_the_tree_is_installed():
    folders = [path.parent.relative_to(ROOT) for path in (ROOT / "divco_tf").rglob("__init__.py")]
    in_tree = {".".join(folder.parts) for folder in folders}
    rooms = ("benchmarks", "reports", "shared")  # laboratory/ and quickstart/ are for a checkout
    tools = {"divco_tf.tools", *(f"divco_tf.tools.{room}" for room in rooms)}
    assert in_tree | tools | {"divco_tf.configs"} == set(SETUPTOOLS["packages"])


def test_every_folder_with_python_is_a_package():
    for path in SOURCES:
        if path.parent.name == "quickstart":  # scripts
            continue
        assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"


def test_gin_holds_no_python():
    # An __init__.py would make the folder shadow the gin library wherever the checkout is on sys.path.
    assert not list((ROOT / "gin").rglob("*.py"))


def test_gin_the_library_is_found_from_the_checkout():
    assert "site-packages" in run_python("import gin; print(gin.__file__)")


@pytest.mark.parametrize(("script", "target"), PYPROJECT["project"]["scripts"].items())
def test_every_console_script_has_its_program(script, target):
    module, function = target.split(":")
    # `import` is no module's name.
    assert script == "divco-" + module.rsplit(".", 1)[-1].removesuffix("_checkpoint")
    run_python(f"import {module}; assert callable({module}.{function})")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_or_function_is_too_long(path):
    assert len(path.read_text().splitlines()) <= 450
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} has {node.end_lineno - node.lineno + 1} lines"


def own_private_names() -> set[str]:
    """Every name with one underscore that our own code defines."""
    names = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                owner = node.value
                if isinstance(owner, ast.Name) and owner.id in ("self", "cls"):
                    names.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.alias):
                names.add(node.asname or node.name.split(".")[-1])
    return names


def test_private_names_of_others_are_in_compat_only():
    ours = own_private_names() | {hook.name for hook in compat.HOOKS}
    private = re.compile(r"(tensorflow\.(python|core|compiler)|keras\.src|keras_cv\.(src|core)|numba\.core)\b")
    for path in SOURCES:
        if path == ROOT / "divco_tf" / "compat.py":
            continue
        foreign = {name for name in imported_modules(path) if private.match(name)}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and node.attr not in ours:
                foreign.add(node.attr)
        assert not foreign, f"{path}: {foreign} belong into divco_tf/compat.py"


def test_every_private_method_of_others_that_is_overridden_is_a_hook():
    hooks = {hook.name for hook in compat.HOOKS}
    for name in (
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES if path.parts[-2] != "tools"
    ):
        if name.startswith("divco_tf") and not name.endswith("__init__"):
            importlib.import_module(name)
    for kind in list(subclasses(keras.Layer)) + list(subclasses(keras.optimizers.Optimizer)):
        if kind.__module__.startswith("divco_tf"):
            theirs = [base for base in kind.__mro__ if not base.__module__.startswith("divco_tf")]
            taken = {name for name in vars(kind) if re.match(r"_[a-z]", name) and any(name in vars(b) for b in theirs)}
            assert taken - {"_abc_impl"} <= hooks, f"{kind}: {taken}"


def subclasses(kind: type):
    for inner in type.__subclasses__(kind):
        yield inner
        yield from subclasses(inner)
