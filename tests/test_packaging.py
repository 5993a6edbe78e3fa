import configparser
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """A wheel built from a copy of the checkout, as setuptools leaves its traces in the folder that it builds in."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("divco_tf", "tools", "gin"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(copy / "dist"), str(copy)]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    (path,) = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_the_wheel_holds_every_module_and_nothing_more(wheel):
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "divco_tf").rglob("*.py")}
    packages = [name.removeprefix("divco_tf.") for name in PYPROJECT["tool"]["setuptools"]["packages"]]
    for folder in (ROOT / name.replace(".", "/") for name in packages if name.startswith("tools")):
        expected |= {f"divco_tf/{path.relative_to(ROOT).as_posix()}" for path in folder.glob("*.py")}
    assert {name for name in wheel.namelist() if name.endswith(".py")} == expected


def test_the_wheel_holds_every_config_and_the_papers_tables(wheel):
    files = [path.relative_to(ROOT / "gin").as_posix() for path in ROOT.glob("gin/**/*") if path.is_file()]
    assert "paper_tables.json" in files and "base.gin" in files
    packed = {name for name in wheel.namelist() if name.startswith("divco_tf/configs/")}
    assert packed == {f"divco_tf/configs/{name}" for name in files}


def test_the_wheel_is_typed_and_licensed(wheel):
    assert {"divco_tf/py.typed", "divco_tf/__init__.pyi"} <= set(wheel.namelist())
    assert "Apache License" in metadata(wheel, "licenses/LICENSE")
    assert "License-Expression: Apache-2.0" in metadata(wheel, "METADATA")


def test_the_wheel_announces_the_console_scripts(wheel):
    entry_points = configparser.ConfigParser()
    entry_points.read_string(metadata(wheel, "entry_points.txt"))
    assert dict(entry_points["console_scripts"]) == PYPROJECT["project"]["scripts"]


def test_the_configs_of_an_unpacked_wheel_are_found_beside_the_package(wheel, tmp_path):
    wheel.extractall(tmp_path / "site")
    code = "from divco_tf.tools import _configs; print(_configs.configs_dir())"
    # PYTHONPATH comes before the checkout's editable install.
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert process.stdout.strip() == str(tmp_path / "site" / "divco_tf" / "configs"), process.stderr
