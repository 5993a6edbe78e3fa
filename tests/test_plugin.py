"""A package that knows divco_tf, and that divco_tf does not know, adds a backbone."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "tests" / "plugin"


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """The environment of a process that has the plugin installed."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "source")  # setuptools leaves its traces in the folder that it builds in
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    target = ["--target", str(folder / "site"), str(folder / "source")]
    process = subprocess.run([sys.executable, *command, *target], capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    path = os.pathsep.join(filter(None, (str(folder / "site"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def divco(name: str, *arguments: str, environment: dict[str, str]) -> str:
    """What divco-<name> prints."""
    command = [sys.executable, str(ROOT / "tools" / f"{name}.py"), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (process.returncode, process.stderr) == (0, ""), process.stdout + process.stderr
    return process.stdout


def test_it_is_a_spec_and_a_builder_of_few_lines():
    assert len((PLUGIN / "plain_cnn.py").read_text().splitlines()) < 40


def test_it_is_listed_once_installed(environment):
    def listed(environment: dict[str, str]) -> set[str]:
        return {line.split()[0] for line in divco("summarize", "--list", environment=environment).splitlines()}

    assert listed(environment) - listed(dict(os.environ)) == {"plain_cnn"}


@pytest.mark.slow
def test_it_is_divided_trained_and_exported(environment, tmp_path):
    command = ("summarize", "--backbone=plain_cnn", "--split_factor=3", "--rule=budget", "--image_size=8", "--json")
    summary = json.loads(divco(*command, environment=environment))
    assert summary["of_budget"] <= 1 and summary["width"] == {"width": 18}
    run, exported = tmp_path / "run", tmp_path / "export"
    bind = ["--bind", 'experiment.Experiment.backbone="plain_cnn"', "--bind", "experiment.Experiment.epochs=3"]
    config = ["--config=digits/wide_resnet10_2_split4", f"--model_dir={run}"]
    assert "branch 3" in divco("train", *config, *bind, environment=environment)
    assert json.loads((run / "metrics.json").read_text())[-1]["accuracy"] > 0.5
    divco("export", f"--model_dir={run}", f"--export_dir={exported}", environment=environment)
    command = ("evaluate", f"--saved_model={exported}", "--dataset=digits")
    assert "accuracy" in divco(*command, environment=environment)
