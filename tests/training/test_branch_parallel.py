"""Branches on several devices train and predict as those in one block do (logical CPUs)."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import divco_tf
from divco_tf.errors import InputError
from divco_tf.models import placement
from divco_tf.runtime.strategy import make_strategy
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.optim.optimizer import SGD
from tests import tiny
from tests.training import placed_runs

TWO = ["CPU:0", "CPU:1"]
EXACT = 1e-6


def check(case: str, found: dict) -> None:
    """What holds for every case."""
    print(f"{case}: {found['difference']:.2g} of {found['moved']:.2g}, {sum(size for _, size in found['crossings'])} B")
    assert found["difference"] < EXACT, case
    assert found["moved"] > 1e-3, case
    assert found["bad_steps"] == 0, case
    assert len(found["buffers_on"]) == int(case.split()[-2]), case
    # A view is 3 kB, the largest weight ten times that.
    assert found["weights_in_a_block"] > 32_000, case
    assert max(size for _, size in found["crossings"]) <= 4 * 8 * 8 * 3 * 4, case
    views = 4 * 4 * 8 * 8 * 3 * 4
    assert sum(size for _, size in found["crossings"]) < views, case  # those of the first device stay there


@pytest.mark.parametrize("case", ["plain", "micro-batches", "float16"])
def test_two_devices_do_what_one_does_and_exchange_views_and_logits_only(case):
    ((name, found),) = placed_runs.figures(case, (2,)).items()
    check(name, found)


@pytest.mark.slow
def test_so_do_two_and_four_with_all_features(tmp_path):
    written = tmp_path / "figures.json"
    root = pathlib.Path(divco_tf.__file__).parents[1]
    subprocess.run(
        [sys.executable, "-m", "tests.training.placed_runs", str(written)],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        check=True,
    )
    found = json.loads(written.read_text())
    assert len(found) == 2 * len(placed_runs.CASES)
    for case, figures in found.items():
        check(case, figures)


def tiny_model(devices: list[str] | None, *, optimizer=lambda: SGD(0.01), **options) -> CoTrainingModel:
    """Two branches, compiled."""
    model = CoTrainingModel(tiny.lively(tiny.tiny_stack(**options)).on(devices), seed=4)
    model.compile(optimizer())
    return model


def fitted(devices: list[str] | None, **options) -> tuple[CoTrainingModel, dict, np.ndarray]:
    """After an epoch of `fit`: the model, what `evaluate` says, what `predict` says."""
    model = tiny_model(devices, **options)
    views, labels = tiny.batch(12)
    model.fit(views, labels, batch_size=4, verbose=0, shuffle=False)
    return model, model.evaluate(views, labels, verbose=0, return_dict=True), model.predict(views, verbose=0)


def test_fit_evaluate_and_predict_do_not_depend_on_devices():
    (ours, evaluated, predicted), (theirs, expected, probabilities) = fitted(TWO), fitted(None)
    assert evaluated == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(predicted, probabilities, rtol=1e-6)
    assert placed_runs.largest_difference(ours.stack.stacked_values(), theirs.stack.stacked_values()) < EXACT


@pytest.mark.parametrize(
    "optimizer",
    [lambda: SGD(0.01), lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-3))],
    ids=["sgd", "scaled adam"],
)
def test_a_saved_model_loads_in_one_block_and_goes_on(tmp_path, optimizer):
    model, _, _ = fitted(TWO, optimizer=optimizer)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.stack.devices is None
    views, labels = tiny.batch(4, seed=1)
    for each in (model, loaded):
        each.train_on_batch(views, labels)
    assert placed_runs.largest_difference(model.stack.stacked_values(), loaded.stack.stacked_values()) < EXACT
    # And back: the values of one block, optimizer's included, into several.
    again = tiny_model(TWO, optimizer=optimizer)
    loaded.save_weights(tmp_path / "state.weights.h5")
    again.load_weights(tmp_path / "state.weights.h5")
    for blocks, variable in zip(
        placement.grouped_blocks(again.optimizer.variables), loaded.optimizer.variables, strict=True
    ):
        np.testing.assert_array_equal(placement.merged_value(blocks), variable.numpy())


def test_a_step_that_is_not_finite_is_skipped_on_all_devices():
    model = tiny_model(TWO)
    before = model.stack.stacked_values()
    views, labels = tiny.batch(4)
    views[:, 1] = np.nan  # of the branch on the second device
    model.train_on_batch(views, labels)
    assert int(model.bad_steps.numpy()) == 1
    assert placed_runs.largest_difference(before, model.stack.stacked_values()) == 0


def test_an_overflow_lowers_the_loss_scale_and_leaves_all_weights():
    model = tiny_model(TWO, precision="mixed_float16")
    before, scale = tiny.values(model.stack.trainable_variables), float(model.optimizer.dynamic_scale.numpy())
    # The loss stays finite in float32, its gradients do not in float16.
    model.train_on_batch(*tiny.batch(4), sample_weight=np.full(4, 1e7, np.float32))
    assert float(model.optimizer.dynamic_scale.numpy()) == scale / 2
    assert tiny.largest_difference(before, tiny.values(model.stack.trainable_variables)) == 0
    model.train_on_batch(*tiny.batch(4))
    assert 0 < tiny.largest_difference(before, tiny.values(model.stack.trainable_variables)) < 1


@pytest.mark.parametrize("optimizer", [lambda: SGD(0.1, clipnorm=1.0), lambda: keras.optimizers.Lamb(0.1)])
def test_optimizers_that_need_whole_variables_are_refused(optimizer):
    with pytest.raises(InputError) as error:
        tiny_model(TWO, optimizer=optimizer)
    assert tiny.one_line(error.value, says="global_clipnorm")


def test_several_replicas_are_refused():
    placed = tiny.tiny_stack(devices=TWO)
    with make_strategy("mirrored").scope():
        for make in (lambda: tiny.tiny_stack(devices=TWO), lambda: CoTrainingModel(placed)):
            with pytest.raises(InputError) as error:
                make()
            assert tiny.one_line(error.value, says="one replica only")
