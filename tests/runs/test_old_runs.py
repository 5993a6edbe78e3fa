"""Model_dirs that 0.1.0 (commit de3750d) wrote are read for ever: its checkpoints name variables by position."""

import dataclasses
import json
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
from divco_tf.runs.loop import train
from divco_tf.runs.model_dir import load, open_model_dir
from divco_tf.runs.options import Options
from tests.reference import DATA

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
