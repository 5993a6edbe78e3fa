import ast
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

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
    for path in (ROOT / "tools").glob("*.py"):
        # `import _app` or `from tools import _app` would work in a checkout only.
        names = {name.split(".")[0] for name in imported_modules(path)}
        assert not names & ({"tools"} | {other.stem for other in path.parent.glob("_*.py")}), path


LIGHT_MODULES = [
    "divco_tf",
    "divco_tf.errors",
    "divco_tf.registry",
    "divco_tf.models.divide",
    "divco_tf.models.spec",
    "divco_tf.models.backbones",
    "divco_tf.models.torch_checkpoint",
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
    assert in_tree | {"divco_tf.configs", "divco_tf.tools"} == set(SETUPTOOLS["packages"])


def test_every_folder_with_python_is_a_package():
    for path in SOURCES:
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
