"""divco-export on a run of initial weights."""

import pathlib
import subprocess
import sys

import pytest

from divco_tf.data.sources import open_source
from divco_tf.training.experiment import Experiment, claim_model_dir

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "tools" / "export.py"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> pathlib.Path:
    experiment = Experiment(backbone="wide_resnet10_2", dataset="digits", split_factor=2)
    folder = tmp_path_factory.mktemp("runs") / "digits"
    run = claim_model_dir(folder, experiment, open_source("digits", "train"))
    run.checkpoints.save(0, {"stack": experiment.build(10).variables})
    return folder


def divco_export(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True)


def test_it_says_where_the_export_lies_what_it_takes_and_how_it_is_served(model_dir, tmp_path):
    base = tmp_path / "my exports"
    process = divco_export(f"--model_dir={model_dir}", f"--export_dir={base}", "--version=7", "--branch_probabilities")
    assert (process.returncode, process.stderr) == (0, "")
    assert (base / "7" / "saved_model.pb").is_file()
    assert f"exported {model_dir} last step 0" in process.stdout and f"to {base / '7'}" in process.stdout
    assert "serving_default(image_bytes: string [?]) -> branch_probabilities: float32 [?, 2, 10]" in process.stdout
    assert f"--mount 'type=bind,source={base},target=/models/divco,readonly'" in process.stdout
    assert f"--model_base_path='{base}'" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--weights=bset"], "bset"),
        (["--vresion=2"], "version"),
        (["--export_dir=FILE/exports"], "export directory cannot be written"),
    ],
)
def test_bad_input_exits_with_2_after_one_line(model_dir, tmp_path, arguments, says):
    (tmp_path / "file").write_text("")
    arguments = [argument.replace("FILE", str(tmp_path / "file")) for argument in arguments]
    process = divco_export(f"--model_dir={model_dir}", f"--export_dir={tmp_path / 'exports'}", *arguments)
    (line,) = process.stderr.splitlines()
    assert (process.returncode, process.stdout) == (2, "")
    assert line.startswith("divco-export: error: ") and says in line
    assert not (tmp_path / "exports").exists()
