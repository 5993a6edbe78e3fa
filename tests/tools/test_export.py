"""divco-export on a run of initial weights."""

import pathlib

import pytest

import divco_tf
import tests.tiny  # noqa: F401 registers the backbone
from divco_tf.data.sources import open_source
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import claim_model_dir


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory) -> pathlib.Path:
    experiment = Experiment(backbone="tiny", dataset="digits", split_factor=2)
    folder = tmp_path_factory.mktemp("runs") / "digits"
    run = claim_model_dir(folder, experiment, open_source("digits", "train"))
    run.checkpoints.save(0, {"stack": experiment.build(10).variables})
    return folder


def test_it_says_where_the_export_lies_what_it_takes_and_how_it_is_served(divco, model_dir, tmp_path):
    base = tmp_path / "my exports"
    result = divco(
        "export", f"--model_dir={model_dir}", f"--export_dir={base}", "--version=7", "--branch_probabilities"
    )
    assert (result.status, result.stderr) == (0, "")
    assert (base / "7" / "saved_model.pb").is_file()
    assert f"exported {model_dir} last step 0" in result.stdout and f"to {base / '7'}" in result.stdout
    assert "serving_default(image_bytes: string [?]) -> branch_probabilities: float32 [?, 2, 10]" in result.stdout
    assert f"--mount 'type=bind,source={base},target=/models/divco,readonly'" in result.stdout
    assert f"--model_base_path='{base}'" in result.stdout


def test_version_alone_is_the_programs_own(divco):
    assert divco("export", "--version").stdout == f"divco-export {divco_tf.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--export_dir=exports", "--weights=bset"], "bset"),
        (["--export_dir=exports", "--vresion=2"], "version"),
        (["--export_dir=exports", "--version=two"], "flag --version=two: invalid literal for int()"),
        (["--export_dir=file/exports"], "export directory cannot be written"),
        ([], "--export_dir is missing"),
    ],
)
def test_bad_input_exits_with_2_after_one_line(divco, model_dir, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert says in divco.refusal("export", f"--model_dir={model_dir}", *arguments)
    assert not (tmp_path / "exports").exists()
