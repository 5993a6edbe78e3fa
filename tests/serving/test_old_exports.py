"""SavedModels that earlier releases exported are served and evaluated for ever."""

import numpy as np
import pytest
import tensorflow as tf

from divco_tf.runs.model_dir import open_model_dir
from divco_tf.serving.evaluation import evaluate_saved_model
from divco_tf.serving.export import export, read_class_names, read_record
from tests.reference import old

WEIGHTS = {"chosen": "best", "theirs": "last", "warm": "last"}
QUICK = {("v0.1.0", "chosen"), ("v0.2.0", "warm")}
EXPORTS = [
    (release, name) if (release, name) in QUICK else pytest.param(release, name, marks=pytest.mark.slow)
    for release in old.RELEASES
    for name in WEIGHTS
]
PNGS = [tf.io.encode_png(image).numpy() for image in old.IMAGES]


def assert_serves(version, said) -> None:
    """Whether both signatures of an export answer what was `said`."""
    signatures = tf.saved_model.load(str(version)).signatures
    given = {"images": tf.constant(old.IMAGES, tf.float32), "serving_default": tf.constant(PNGS)}
    for (name, images), argument in zip(given.items(), ("images", "image_bytes"), strict=True):
        outputs = signatures[name](**{argument: images})
        assert outputs.keys() == said[name].keys()
        for key, output in outputs.items():
            np.testing.assert_allclose(output, said[name][key], atol=1e-5, err_msg=f"{name} {key}")


@pytest.mark.parametrize(("release", "name"), EXPORTS)
def test_an_export_of_a_release_serves_and_has_its_runs_figures(tmp_path, release, name):
    run = old.unpacked(release, name, tmp_path)
    version = tmp_path / "exports" / name / "1"
    assert_serves(version, old.told(release, "exports")[name])
    said = old.told(release, "runs")[name][WEIGHTS[name]]
    figures = evaluate_saved_model(version.parent, dataset="digits")
    assert figures.negative_log_likelihood == pytest.approx(said["negative_log_likelihood"], rel=1e-4)
    assert figures.accuracy == pytest.approx(said["accuracy"], abs=0.003)
    assert len(figures.branch_accuracies) == (2 if name == "chosen" else 0)
    assert read_class_names(version) == open_model_dir(run).class_names
    assert read_record(version)["weights_from"] == f"{name} {said['of']}"


@pytest.mark.parametrize(("release", "name"), EXPORTS)
def test_a_run_of_a_release_is_exported_as_there(tmp_path, release, name):
    run = old.unpacked(release, name, tmp_path)
    version = export(run, export_dir=tmp_path / "anew", weights=WEIGHTS[name], branch_probabilities=name == "chosen")
    assert_serves(version, old.told(release, "exports")[name])
