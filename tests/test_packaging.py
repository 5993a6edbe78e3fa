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


def test_the_wheel_holds_the_reports_style(wheel):
    assert "divco_tf/analysis/report/page.css" in wheel.namelist()


def test_the_wheel_is_typed_and_licensed(wheel):
    assert {"divco_tf/py.typed", "divco_tf/__init__.pyi"} <= set(wheel.namelist())
    assert "Apache License" in metadata(wheel, "licenses/LICENSE")
    assert "License-Expression: Apache-2.0" in metadata(wheel, "METADATA")


def test_the_wheel_announces_the_console_scripts(wheel):
    entry_points = configparser.ConfigParser()
    entry_points.read_string(metadata(wheel, "entry_points.txt"))
    assert dict(entry_points["console_scripts"]) == PYPROJECT["project"]["scripts"]


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory) -> pathlib.Path:
    site = tmp_path_factory.mktemp("site")
    wheel.extractall(site)
    return site


def python(site: pathlib.Path, code: str) -> subprocess.CompletedProcess:
    """Runs code with the unpacked wheel, and not with the checkout's editable install."""
    alone = "import sys; sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in repr(finder)]\n"
    command, environment = [sys.executable, "-c", alone + code], os.environ | {"PYTHONPATH": str(site)}
    return subprocess.run(command, capture_output=True, text=True, cwd=site, env=environment)


def test_the_configs_of_an_unpacked_wheel_are_found_beside_the_package(unpacked):
    process = python(unpacked, "from divco_tf.tools.shared import configs; print(configs.configs_dir())")
    assert process.stdout.strip() == str(unpacked / "divco_tf" / "configs"), process.stderr


def benchmark(*arguments: str) -> str:
    """Code that runs the console script."""
    argv = ["divco-benchmark", *arguments]
    return f"import sys; sys.argv = {argv}; from divco_tf.tools import benchmark; benchmark.run()"


def test_benchmarks_of_a_wheel_run_or_say_that_they_need_a_checkout(unpacked):
    small = ("--split_factor=2", "--batch_size=2", "--image_size=8", "--rounds=1", "--steps=1")
    ran = python(unpacked, benchmark("step", "--backbone=wide_resnet10_2", *small))
    assert ran.returncode == 0 and '"torch": null' in ran.stdout, ran.stderr
    refused = python(unpacked, benchmark("views"))
    assert (refused.returncode, refused.stdout) == (2, "")
    (line,) = refused.stderr.splitlines()
    assert line.startswith("divco-benchmark: error: `views` needs a checkout. Received: an installed divco_tf;")
