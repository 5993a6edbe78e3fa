"""Model_dirs that earlier releases wrote are read for ever: evaluated, gone on with, extended, begun from.

0.1.0 (commit de3750d) named the variables of a checkpoint by position, 0.2.0 (4d6fae2) by name.
"""

import dataclasses
import json
import pathlib
import shutil
import zlib

import numpy as np
import pytest
import tensorflow as tf

from divco_tf.data.sources import open_source
from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.models.template import build_template
from divco_tf.runs.assemble import make_model
from divco_tf.runs.evaluation import evaluate
from divco_tf.runs.imported import import_checkpoint
from divco_tf.runs.loop import train
from divco_tf.runs.model_dir import load, open_model_dir
from divco_tf.runs.options import Options
from divco_tf.runs.warm_start import warm_start
from tests.reference import DATA, old

OLD = DATA / "v0.1.0"
WEIGHTS = [("finished", "last"), ("finished", "best"), ("finished", "ema"), ("stopped", "last")]


def expected(name: str) -> dict:
    return json.loads((OLD / f"{name}.json").read_text())


def copy_of(name: str, folder) -> None:
    shutil.copytree(OLD / name, folder, copy_function=shutil.copyfile)


@pytest.mark.parametrize(("name", "weights"), WEIGHTS)
def test_its_weights_answer_as_they_did(name, weights):
    run = open_model_dir(OLD / name)
    images = open_source("digits", "test").read_batch(np.arange(4))
    logits = load(OLD / name, weights=weights)(run.experiment.preprocessing(tf.constant(images)))
    np.testing.assert_allclose(logits, expected(name)["logits"][weights], atol=1e-3)


@pytest.mark.parametrize("name", ["finished", "stopped"])
def test_positions_in_its_checkpoints_stand_for_the_variables_that_they_stood_for(name):
    run = open_model_dir(OLD / name)
    model = make_model(run.experiment, num_classes=10, steps_per_epoch=10)
    state = {"stack": model.stack.variables, "optimizer": model.optimizer.variables}
    last = run.checkpoints.last()
    last.restore(state, partial=True)
    stored = tf.train.load_checkpoint(str(last.path / "state"))
    for group, variables in state.items():
        found = {variable.path.split("/")[-1]: variable.numpy() for variable in variables}
        for place, known in enumerate(expected(name)["variables"][group]):
            np.testing.assert_array_equal(found[known.split("/")[-1]], stored.get_tensor(f"{group}/{place}"))


ORDERS = json.loads((OLD / "order.json").read_text())
"""Of a backbone of each family in 0.1.0: how many variables, and the CRC-32 of their names in order."""
QUICK = {"efficientnet_b0", "efficientnet_b0_cifar", "keras_mobilenet", "shake_resnet26_2x96d", "wide_resnet16_12"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ORDERS]
)
def test_variables_come_in_the_order_by_which_its_checkpoints_name_them(name):
    template = build_template(BACKBONES.get(name).spec, num_classes=10, input_shape=(64, 64, 3))
    variables = (*template.trainable_variables, *template.non_trainable_variables)
    names = [variable.path.replace("/", ".") for variable in variables]
    assert [len(names), zlib.crc32("\n".join(names).encode())] == ORDERS[name]


def test_it_is_evaluated_as_it_was():
    (recorded,) = [record for record in open_model_dir(OLD / "finished").records if record["split"] == "test"]
    assert evaluate(OLD / "finished").accuracy == pytest.approx(recorded["accuracy"], abs=0.01)


def test_a_stopped_run_goes_on_and_a_finished_one_is_extended(tmp_path):
    options = Options(threads=1, contact_sheet=False)
    for name, epochs, extend in (("stopped", 3, False), ("finished", 5, True)):
        copy_of(name, tmp_path / name)
        experiment = open_model_dir(OLD / name).experiment
        told: list[str] = []
        train(
            dataclasses.replace(experiment, epochs=epochs),
            model_dir=tmp_path / name,
            options=options,
            extend=extend,
            report=told.append,
        )
        assert any(f"going on from step {10 * (epochs - 1)} of {10 * epochs}" in line for line in told)
        before, after = (open_model_dir(folder / name).records for folder in (OLD, tmp_path))
        assert after[-1]["step"] == 10 * epochs and after[-1]["accuracy"] > before[-1]["accuracy"] - 0.1


RUNS = [(release, name) for release in old.RELEASES for name in ("chosen", "drawn", "half", "mixed", "theirs", "warm")]
STOPPED = [(release, name) for release in old.RELEASES for name in ("drawn", "half", "mixed")]
QUICK_TO_ANSWER = {("v0.1.0", "mixed"), ("v0.1.0", "theirs"), ("v0.2.0", "chosen"), ("v0.2.0", "drawn")}
QUICK_TO_END = ("v0.2.0", "mixed")


def assert_answers(model_dir: pathlib.Path, said: dict[str, dict], *, atol: float) -> None:
    """Whether logits, and figures of the test images, are as they were `said` to be, of all weights that are kept."""
    preprocessing = open_model_dir(model_dir).experiment.preprocessing
    for weights, expected in said.items():
        stack = load(model_dir, weights=weights)
        assert stack.weights_from == f"{model_dir} {expected['of']}"
        np.testing.assert_allclose(stack(preprocessing(old.IMAGES)), expected["logits"], atol=atol)
    figures = evaluate(model_dir, weights=weights)
    assert figures.negative_log_likelihood == pytest.approx(expected["negative_log_likelihood"], rel=atol)
    assert figures.accuracy == pytest.approx(expected["accuracy"], abs=0.01)
    assert figures.branch_accuracies == pytest.approx(expected["branch_accuracies"], abs=0.01)


@pytest.mark.parametrize(
    ("release", "name"),
    [case if case in QUICK_TO_ANSWER else pytest.param(*case, marks=pytest.mark.slow) for case in RUNS],
)
def test_a_run_of_a_release_answers_and_is_evaluated_as_there(tmp_path, release, name):
    assert_answers(old.unpacked(release, name, tmp_path), old.told(release, "runs")[name], atol=1e-4)


def goes_on(model_dir: pathlib.Path, *, extend: int = 0) -> list[str]:
    """Trains the run in `model_dir` to its end, or `extend` epochs more; what was told."""
    experiment = open_model_dir(model_dir).experiment
    options = Options(threads=1, keep_checkpoints=1, micro_batches=2 if model_dir.name == "drawn" else 1)
    longer = dataclasses.replace(experiment, epochs=experiment.epochs + extend)
    told: list[str] = []
    train(longer, model_dir=model_dir, options=options, extend=bool(extend), report=told.append)
    return told


@pytest.mark.parametrize(
    ("release", "name"),
    [case if case == QUICK_TO_END else pytest.param(*case, marks=pytest.mark.slow) for case in STOPPED],
)
def test_a_run_that_a_release_stopped_ends_as_it_would_have_there(tmp_path, release, name):
    model_dir = old.unpacked(release, name, tmp_path)
    told = goes_on(model_dir)
    assert any("going on from step 14 of" in line for line in told)
    assert not any("otherwise" in line for line in told)
    said, atol = old.told(release, "ended")[name], 2e-3
    if name == "drawn":
        # RMSprop divides by the root of small squares, which magnifies the rounding of this process's several devices,
        # and of evaluations that are nearly equal another one may be the best.
        said, atol = {weights: answers for weights, answers in said.items() if weights != "best"}, 3e-2
    assert_answers(model_dir, said, atol=atol)


@pytest.mark.slow
@pytest.mark.parametrize("release", old.RELEASES)
def test_a_run_that_a_release_finished_is_extended_as_there(tmp_path, release):
    model_dir = old.unpacked(release, "warm", tmp_path)
    goes_on(model_dir, extend=1)
    assert_answers(model_dir, old.told(release, "ended")["warm"], atol=2e-3)


@pytest.mark.parametrize("release", old.RELEASES)
def test_a_run_of_a_release_that_ended_early_has_ended(tmp_path, release):
    model_dir = old.unpacked(release, "chosen", tmp_path)
    records = (model_dir / "metrics.json").read_text()
    assert open_model_dir(model_dir).records[-1]["step"] < 48
    told = goes_on(model_dir)
    assert not any(line.startswith("step ") for line in told)
    assert (model_dir / "metrics.json").read_text() == records


@pytest.mark.parametrize("release", old.RELEASES)
def test_a_run_begins_with_the_weights_of_a_release(tmp_path, release):
    model_dir = old.unpacked(release, "chosen", tmp_path)
    other = load(model_dir, weights="ema")
    stack = open_model_dir(model_dir).experiment.build(10)
    warm_start(stack, other, branches=(1, 0))
    logits = stack(open_model_dir(model_dir).experiment.preprocessing(old.IMAGES))
    expected = old.told(release, "runs")["chosen"]["ema"]["logits"]
    np.testing.assert_allclose(logits, np.flip(expected, axis=1), atol=1e-4)


@pytest.mark.parametrize("release", old.RELEASES)
def test_a_file_of_weights_is_imported_as_by_a_release(tmp_path, release):
    theirs = old.unpacked(release, "theirs", tmp_path)
    network = {"backbone": "wide_resnet10_1", "split_factor": 2, "num_classes": 10, "dataset": "digits"}
    ours = import_checkpoint(tmp_path / "theirs.pth.tar", model_dir=tmp_path / "ours", **network)
    for here, there in zip(load(ours.model_dir).variables, load(theirs).variables, strict=True):
        np.testing.assert_array_equal(here, there)
    told = open_model_dir(theirs).imported  # 0.1.0 did not tell the key
    assert told == {name: ours.imported[name] for name in told}
