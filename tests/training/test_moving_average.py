"""The moving average of weights and statistics: by hand, through checkpoints, on two devices."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.runs.assemble import make_model
from divco_tf.runs.evaluation import evaluate
from divco_tf.runs.model_dir import load, open_model_dir
from divco_tf.runtime.strategy import make_strategy
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.optim.learning_rate import LearningRate
from divco_tf.training.optim.optimizer import OptimizerConfig
from divco_tf.training.optim.rules import SGD
from tests import tiny
from tests.runs import runs
from tests.tiny import batch, lively, tiny_stack
from tests.training.test_keras_layers import keras_stack


def compiled(stack=None, *, ema_decay: float | None = 0.5, optimizer=None, **options) -> CoTrainingModel:
    model = CoTrainingModel(lively(tiny_stack()) if stack is None else stack, ema_decay=ema_decay, **options)
    model.compile(optimizer or SGD(0.1))
    return model


def moved(average: list[np.ndarray], now: list[np.ndarray], step: int, decay: float) -> list[np.ndarray]:
    """The average after `step` steps before this one, by the textbook."""
    kept = min(decay, (1 + step) / (10 + step))
    return [kept * a + (1 - kept) * b for a, b in zip(average, now, strict=True)]


@pytest.mark.parametrize("decay", [0.15, 0.999])
def test_weights_and_statistics_are_averaged_with_a_warm_up(decay):
    model = compiled(ema_decay=decay)
    assert [v.name for v in model.ema] == [f"ema.{v.name}" for v in model.stack.variables]
    expected = tiny.values(model.stack.variables)
    assert tiny.largest_difference(tiny.values(model.ema), expected) == 0
    for step in range(4):
        model.train_on_batch(*batch(seed=step))
        expected = moved(expected, tiny.values(model.stack.variables), step, decay)
        assert tiny.largest_difference(tiny.values(model.ema), expected) < 1e-6
    assert tiny.largest_difference(tiny.values(model.ema), tiny.values(model.stack.variables)) > 1e-3


def test_training_is_the_same_with_it_and_without():
    models = compiled(ema_decay=0.9), compiled(ema_decay=None)
    for model in models:
        model.fit(*batch(), epochs=3, shuffle=False, verbose=0)
    assert models[1].ema == []
    assert tiny.largest_difference(*(tiny.values(model.stack.variables) for model in models)) == 0
    assert len(models[0].stack.variables) == len(models[1].stack.variables)


def test_a_step_that_is_not_finite_leaves_it():
    model = compiled()
    views, soft = batch()
    model.train_on_batch(views, soft)
    kept = tiny.values(model.ema)
    model.train_on_batch(np.full_like(views, np.nan), soft)
    assert int(model.bad_steps.numpy()) == 1
    assert tiny.largest_difference(kept, tiny.values(model.ema)) == 0


def test_it_starts_anew_where_other_weights_are_put_into_the_stack():
    model = compiled()
    for variable in model.stack.variables:
        variable.assign(variable + 1)
    assert tiny.largest_difference(tiny.values(model.ema), tiny.values(model.stack.variables)) == 1
    model.reset_ema()
    assert tiny.largest_difference(tiny.values(model.ema), tiny.values(model.stack.variables)) == 0


def test_the_state_of_keras_random_layers_is_copied():
    stack = keras_stack()
    model = compiled(stack)
    for _ in range(3):
        model.train_on_batch(*batch())
    pairs = [(v, a) for v, a in zip(stack.variables, model.ema, strict=True) if not v.dtype.startswith("float")]
    assert len(pairs) == 2
    for variable, average in pairs:
        np.testing.assert_array_equal(average.numpy(), variable.numpy())


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_the_whole_model_saves_and_loads_and_goes_on(precision, tmp_path):
    model = compiled(lively(tiny_stack(precision=precision)), ema_decay=0.7)
    views, soft = batch()
    model.fit(views, soft, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    for each in (model, loaded):
        each.fit(views, soft, epochs=2, shuffle=False, verbose=0)
    assert loaded.ema_decay == 0.7
    assert tiny.largest_difference(tiny.values(model.ema), tiny.values(loaded.ema)) == 0


def test_two_devices_average_as_one_does():
    averages = []
    for name in ("mirrored", "one_device"):
        strategy = make_strategy(name)
        with strategy.scope():
            stack = lively(tiny_stack("tiny_no_norm"))
            model = compiled(stack, ema_decay=0.6, optimizer=SGD(0.01), jit="off")
        step = tf.function(lambda *data, s=strategy, m=model: s.run(m.train_step, args=(data,)))
        for seed in range(3):
            dataset = tf.data.Dataset.from_tensors(batch(seed=seed)).unbatch().batch(8)
            step(*next(iter(strategy.experimental_distribute_dataset(dataset))))
        replicas = [[v.numpy() for v in strategy.experimental_local_results(average.value)] for average in model.ema]
        for first, *others in replicas:
            for other in others:
                np.testing.assert_array_equal(first, other)
        averages.append([first for first, *_ in replicas])
    assert tiny.largest_difference(*averages) < 1e-5


def test_statistics_on_two_devices_are_averaged_as_they_are_after_the_step():
    strategy = make_strategy("mirrored")
    with strategy.scope():
        model = compiled(lively(tiny_stack()), ema_decay=0.6, optimizer=SGD(0.01), jit="off")
    step = tf.function(lambda *data: strategy.run(model.train_step, args=(data,)))
    expected = tiny.values(model.stack.variables)
    for seed in range(3):
        dataset = tf.data.Dataset.from_tensors(batch(seed=seed)).unbatch().batch(8)
        step(*next(iter(strategy.experimental_distribute_dataset(dataset))))
        expected = moved(expected, tiny.values(model.stack.variables), seed, 0.6)
    for average, values in zip(model.ema, expected, strict=True):
        for local in strategy.experimental_local_results(average.value):
            np.testing.assert_allclose(local.numpy(), values, atol=1e-6)


def test_a_run_keeps_it_and_gives_it(tmp_path):
    described = runs.experiment(ema_decay=0.9)
    runs.run(tmp_path / "averaged", described)
    runs.run(tmp_path / "plain")
    for last, plain in zip(*(runs.final_weights(tmp_path / name) for name in ("averaged", "plain")), strict=True):
        np.testing.assert_array_equal(last, plain)
    stack = load(tmp_path / "averaged", weights="ema")
    assert stack.weights_from == f"{tmp_path / 'averaged'} ema step 10"
    assert open_model_dir(tmp_path / "averaged").described("ema") == "ema step 10"
    model = make_model(described, num_classes=10, steps_per_epoch=runs.STEPS_PER_EPOCH)
    open_model_dir(tmp_path / "averaged").checkpoint("ema").restore({"ema": model.ema}, partial=True)
    assert tiny.largest_difference(tiny.values(stack.variables), tiny.values(model.ema)) == 0
    assert tiny.largest_difference(tiny.values(stack.variables), runs.final_weights(tmp_path / "averaged")) > 1e-4
    assert evaluate(tmp_path / "averaged", weights="ema").weights == "ema step 10"
    with pytest.raises(InputError) as error:
        load(tmp_path / "plain", weights="ema")
    assert tiny.one_line(error.value, says="kept no moving average of its weights")


@pytest.mark.parametrize("name", ["rmsprop_tf", "adamw"])
def test_a_stopped_run_goes_on_with_it_and_with_what_the_optimizer_keeps(tmp_path, name):
    described = runs.experiment(
        ema_decay=0.9,
        optimizer=OptimizerConfig(name, weight_decay=1e-3, exclude_from_decay=("^fc",)),
        learning_rate=LearningRate(learning_rate=1e-3, base_batch_size=128),
    )
    runs.run(tmp_path / "whole", described)
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    *_, before, last = open_model_dir(tmp_path / "stopped").checkpoints.all()
    shutil.rmtree(last.path)
    lines = []
    runs.run(tmp_path / "stopped", described, report=lines.append)
    assert any(line.startswith(f"going on from step {before.step} of {last.step}") for line in lines)
    for weights in ("last", "ema"):
        both = [runs.final_weights(tmp_path / name, weights) for name in ("whole", "stopped")]
        assert tiny.largest_difference(*both) == 0


@pytest.mark.parametrize("decay", [0, 1, 1.5, -0.1, "0.9", True])
def test_a_decay_outside_its_range_is_refused_in_one_line(decay):
    for call in (lambda: compiled(ema_decay=decay), lambda: runs.experiment(ema_decay=decay)):
        with pytest.raises(InputError) as error:
            call()
        assert tiny.one_line(error.value, says=f"Received: {decay!r}")
