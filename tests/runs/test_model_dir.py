import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.keras_layers import KerasLayer
from divco_tf.data.sources import ArraySource, open_source
from divco_tf.data.views.policies import Erasing, ViewPolicy
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import claim_model_dir, load, open_model_dir
from divco_tf.runs.records.metrics_json import Records
from divco_tf.runs.warm_start import WarmStart
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.learning_rate import LearningRate
from divco_tf.training.optim.optimizer import OptimizerConfig
from tests.data.images import image_folder, photograph
from tests.runs import runs
from tests.runs.refusals import DIGITS, refusal

CHANGES = {
    "backbone": "tiny_no_norm",
    "dataset": "svhn",
    "split_factor": 4,
    "overrides": {"dropout": 0.3},
    "divide_regularisers": False,
    "rule": "budget",
    "budget": "multiply_adds",
    "image_size": 16,
    "held_out": 0.1,
    "train_images": 100,
    "views": "none",
    "identical_views": True,
    "mixup_alpha": 0.5,
    "cutmix_alpha": 1.0,
    "mix_block": 2,
    "batch_operations": (KerasLayer("keras.layers.RandomBrightness", {"factor": 0.2}),),
    "label_smoothing": 0.1,
    "cotraining": CoTraining(loss="kl", warmup_epochs=1),
    "ensembling": "max_logits",
    "dropout_samples": 4,
    "optimizer": OptimizerConfig(weight_decay=1e-4),
    "learning_rate": LearningRate(learning_rate=0.1),
    "ema_decay": 0.9,
    "epochs": 1,
    "steps": 7,
    "batch_size": 128,
    "early_stopping": 3,
    "warm_start": WarmStart("runs/other", branches=(0,)),
    "same_initialisation": True,
    "synchronised_norm": True,
    "seed": 1,
    "precision": "mixed_bfloat16",
}
"""Another value for each field of `runs.experiment()`."""


def test_the_changes_below_are_of_every_field():
    assert set(CHANGES) == {field.name for field in dataclasses.fields(Experiment)}


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_dir_of_another_experiment_is_refused_and_the_difference_named(tmp_path, name):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    record = (tmp_path / "experiment.json").read_text()
    other = {"epochs": None} if name == "steps" else {}
    said = refusal(claim_model_dir, tmp_path, runs.experiment(**other, **{name: CHANGES[name]}), DIGITS)
    assert str(tmp_path) in said and name in said.partition("Received: ")[2] and "another model_dir" in said
    assert (tmp_path / "experiment.json").read_text() == record


def test_the_difference_inside_a_setting_is_named_with_both_values(tmp_path):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    said = refusal(claim_model_dir, tmp_path, runs.experiment(learning_rate=LearningRate(learning_rate=0.3)), DIGITS)
    assert "learning_rate.learning_rate 0.3 (there 0.05)" in said
    assert "rule" not in said


@pytest.mark.parametrize(
    "spelt_out", [{"image_size": 8}, {"views": ViewPolicy(pad=1, flip=False)}, {"views": "digits"}]
)
def test_a_default_spelt_out_is_the_same_experiment(tmp_path, spelt_out):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    before = (tmp_path / "experiment.json").read_text()
    claim_model_dir(tmp_path, runs.experiment(**spelt_out), DIGITS)
    assert (tmp_path / "experiment.json").read_text() == before
    identity = json.loads(before)["identity"]
    views = {"pad": 1, "flip": False, "augment": [], "erasing": None, "resized_crop": None}
    assert (identity["image_size"], identity["views"]) == (8, views)


def test_other_training_data_are_another_experiment(tmp_path):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    labels = DIGITS.labels.copy()
    labels[0] = (labels[0] + 1) % 10
    assert "data.labels_crc32" in refusal(
        claim_model_dir, tmp_path, runs.experiment(), ArraySource(DIGITS.images, labels, DIGITS.class_names)
    )
    fewer = ArraySource(DIGITS.images[1:], DIGITS.labels[1:], DIGITS.class_names)
    assert "data.images" in refusal(claim_model_dir, tmp_path, runs.experiment(), fewer)


@pytest.fixture
def photographs(tmp_path) -> pathlib.Path:
    return image_folder(tmp_path / "photographs", images=20)


def claims(tmp_path, folder) -> list[str]:
    """Claims tmp_path/run for the images of a folder; what it said."""
    said, described = [], runs.experiment(dataset="image_folder", image_size=8, batch_size=4)
    source = open_source("image_folder", "train", data_dir=folder, image_size=8)
    claim_model_dir(tmp_path / "run", described, source, report=said.append)
    return said


def test_other_photographs_under_the_same_names_are_another_experiment(tmp_path, photographs):
    assert claims(tmp_path, photographs) == claims(tmp_path, shutil.copytree(photographs, tmp_path / "moved")) == []
    for file in photographs.rglob("*.*"):
        photograph(21, 20, seed=int(file.stem) + 500).save(file)
    assert "data of as many images and the same labels, but other files" in refusal(claims, tmp_path, photographs)


def test_a_file_that_was_replaced_does_not_end_a_run_and_is_told(tmp_path, photographs):
    claims(tmp_path, photographs)
    photograph(21, 20, seed=500).save(open_source("image_folder", "train", data_dir=photographs).name_of(0))
    assert claims(tmp_path, photographs) == [
        "some image files have changed since the run was begun; it goes on with them as they are"
    ]
    assert claims(tmp_path, photographs) == []


def test_a_run_of_a_release_that_did_not_record_its_files_goes_on_and_says_so(tmp_path, photographs):
    claims(tmp_path, photographs)
    record = json.loads((tmp_path / "run" / "experiment.json").read_text())
    del record["identity"]["data"]["files_crc32"]
    (tmp_path / "run" / "experiment.json").write_text(json.dumps(record))
    assert "did not record which image files it had" in "".join(claims(tmp_path, photographs))
    assert claims(tmp_path, photographs) == []


def test_more_epochs_need_extend(tmp_path):
    claim_model_dir(tmp_path, runs.experiment(epochs=2), DIGITS)
    longer = runs.experiment(epochs=3)
    assert "epochs 3 (there 2); pass --extend" in refusal(claim_model_dir, tmp_path, longer, DIGITS)
    claim_model_dir(tmp_path, longer, DIGITS, extend=True)
    assert open_model_dir(tmp_path).experiment.epochs == 3


@pytest.mark.parametrize("changes", [{"epochs": 1}, {"epochs": 3, "seed": 1}, {"seed": 1}])
def test_extend_allows_more_epochs_and_nothing_else(tmp_path, changes):
    claim_model_dir(tmp_path, runs.experiment(epochs=2), DIGITS)
    said = refusal(claim_model_dir, tmp_path, runs.experiment(**changes), DIGITS, extend=True)
    assert all(name in said for name in changes) and "--extend" not in said


ERASINGS = st.builds(
    Erasing,
    probability=st.sampled_from([0.0, 0.5, 1.0]),
    area=st.sampled_from([(0.1, 0.2), (0.5, 0.5)]),
    aspect=st.just((0.9, 1.1)),
)
EXPERIMENTS = st.builds(
    Experiment,
    backbone=st.sampled_from(["wide_resnet10_2", "tiny"]),
    dataset=st.just("digits"),
    split_factor=st.integers(1, 8),
    overrides=st.dictionaries(st.just("dropout"), st.sampled_from([0.0, 0.1]), max_size=1),
    held_out=st.floats(0, 0.9),
    views=st.none()
    | st.sampled_from(["none", "crop_flip"])
    | st.builds(ViewPolicy, pad=st.integers(0, 4), flip=st.booleans(), erasing=st.none() | ERASINGS),
    cotraining=st.builds(CoTraining, loss=st.sampled_from(["js", "kl"]), weight=st.floats(0, 2)),
    optimizer=st.builds(OptimizerConfig, weight_decay=st.floats(0, 1e-2), divide_weight_decay=st.booleans())
    | st.builds(
        OptimizerConfig,
        name=st.just("adamw"),
        betas=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
        epsilon=st.none() | st.floats(1e-9, 1),
        exclude_from_decay=st.lists(st.sampled_from(["^stem", r"fc\.kernel"])).map(tuple),
    ),
    ema_decay=st.none() | st.floats(0.1, 0.9),
    warm_start=st.none()
    | st.builds(
        WarmStart,
        model_dir=st.sampled_from(["runs/a", "/b"]),
        weights=st.sampled_from(["last", "best", "ema"]),
        branches=st.none() | st.lists(st.integers(0, 7), min_size=1, max_size=4).map(tuple),
    ),
    learning_rate=st.builds(
        LearningRate,
        milestones=st.none() | st.lists(st.integers(0, 9), max_size=3).map(tuple),
        base_batch_size=st.none() | st.integers(1, 4096),
    ),
    seed=st.integers(0, 2**63),
)


@given(described=EXPERIMENTS)
@settings(max_examples=30, deadline=None)
def test_an_experiment_survives_its_model_dir(tmp_path_factory, described):
    model_dir = tmp_path_factory.mktemp("run")
    claim_model_dir(model_dir, described, DIGITS)
    read = open_model_dir(model_dir).experiment
    resolved = dataclasses.replace(
        described, views=described.view_policies, image_size=described.preprocessing.image_size
    )
    assert read == resolved
    claim_model_dir(model_dir, read, DIGITS)


def test_experiment_json_holds_identity_classes_and_versions(tmp_path):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    record = json.loads((tmp_path / "experiment.json").read_text())
    assert record["identity"]["data"]["images"] == len(DIGITS)
    assert record["class_names"] == list("0123456789")
    assert (
        record["versions"]["tensorflow"] == tf.__version__.replace("-rc", "rc")
        and record["versions"]["numpy"] == np.__version__
    )
    assert set(record["versions"]) == {"python", "divco_tf", "tensorflow", "keras", "numpy", "numba"}


def test_what_is_no_run_or_has_no_such_weights_is_refused(tmp_path):
    assert "experiment.json is missing" in refusal(load, tmp_path)
    assert "experiment.json is missing" in refusal(open_model_dir, tmp_path / "absent")
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    assert "no checkpoint has been written yet" in refusal(load, tmp_path)
    assert "held_out=0" in refusal(load, tmp_path, weights="best")
    assert "no moving average" in refusal(load, tmp_path, weights="ema")
    assert "last, best, ema" in refusal(load, tmp_path, weights="bset")


def test_loaded_weights_say_where_they_are_from(tmp_path):
    described = runs.experiment(held_out=0.2)
    run = claim_model_dir(tmp_path, described, DIGITS)
    stack = described.build(10)
    for step, scale in ((5, 2.0), (10, 3.0)):
        for variable in stack.variables:
            variable.assign(scale * tf.ones(variable.shape))
        run.checkpoints.save(step, {"stack": stack.variables})
        Records(tmp_path).add({"step": step, "split": "held_out", "accuracy": 1 / step})
    for weights, step, scale in (("last", 10, 3.0), ("best", 5, 2.0)):
        loaded = load(tmp_path, weights=weights)
        assert loaded.weights_from == f"{tmp_path} {weights} step {step}"
        assert all(np.all(variable.numpy() == scale) for variable in loaded.variables)


def test_an_unwritable_model_dir_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    said = refusal(claim_model_dir, tmp_path / "file" / "run", runs.experiment(), DIGITS)
    assert "model_dir cannot be written" in said and str(tmp_path / "file" / "run") in said
