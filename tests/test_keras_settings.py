"""Keras's global settings change nothing of ours, and are the user's again after."""

import contextlib
import json
import threading
from collections.abc import Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf import compat, keras_settings
from divco_tf.data.keras_layers import KerasLayer
from divco_tf.errors import InputError
from divco_tf.models.branch_stack import build
from divco_tf.models.summary import summarize
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.optimizer import SGD
from tests import tiny
from tests.tiny import lively, tiny_stack


def settings() -> tuple:
    return keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()


@contextlib.contextmanager
def foreign(
    floatx="float16", epsilon=0.1, image_data_format="channels_first", policy="mixed_float16"
) -> Iterator[None]:
    """As a keras.json or a notebook's first cell leaves them; they are so at the end, too."""
    before, mine = settings(), compat.exchange_dtype_policy(policy)
    keras_settings._exchanged((floatx, epsilon, image_data_format))
    try:
        yield
        assert settings() == (floatx, epsilon, image_data_format)
    finally:
        keras_settings._exchanged(before)
        after = compat.exchange_dtype_policy(mine)
    assert (after and after.name) == policy


FOREIGN = [
    {},
    {"policy": None},
    {"floatx": "float64", "policy": "float64", "image_data_format": "channels_last"},
]


@pytest.mark.parametrize("options", FOREIGN, ids=str)
def test_a_training_step_is_the_same(options):
    def train() -> tuple[list[np.ndarray], list[str], np.ndarray]:
        model = CoTrainingModel(lively(tiny_stack(dropout=0.2)), cotraining=CoTraining(warmup_epochs=0), ema_decay=0.9)
        model.compile(SGD(0.1, momentum=0.9))
        model.fit(*tiny.batch(8), batch_size=4, shuffle=False, verbose=0)
        variables = [*model.stack.variables, *model.optimizer.variables, *model.ema, *model.means.variables]
        branch = model.stack.branch(0)(tiny.batch(3)[0][:, 0]).numpy()
        return tiny.values(variables), [v.dtype for v in variables], branch

    expected = train()
    with foreign(**options):
        values, dtypes, logits = train()
    assert dtypes == expected[1] and logits.dtype == np.float32
    assert tiny.largest_difference(values, expected[0]) == 0
    np.testing.assert_array_equal(logits, expected[2])


@pytest.mark.parametrize("name", ["se_resnet50", "keras_mobilenet_v3_small", "keras_cv_resnet50_v2"])
def test_networks_are_the_same(name):
    options = {"num_classes": 3, "input_shape": (64, 64, 3), "copies": 2}
    expected = summarize(name, **options)
    with foreign():
        assert summarize(name, **options) == expected


def test_a_wrapped_networks_initial_values_and_logits_are_the_same():
    def logits() -> np.ndarray:
        stack = lively(build("keras_mobilenet", copies=2, num_classes=3, input_shape=(32, 32, 3), alpha=0.05))
        return stack(np.ones((1, 2, 32, 32, 3), np.float32)).numpy()

    expected = logits()
    with foreign():
        np.testing.assert_array_equal(logits(), expected)


def test_a_batch_operation_is_the_same():
    views, labels = np.random.default_rng(0).uniform(0, 255, (2, 2, 8, 8, 3)).astype(np.float32), np.eye(2)

    def changed() -> np.ndarray:
        layer = KerasLayer("keras.layers.RandomTranslation", {"height_factor": 0.3, "width_factor": 0.3})
        return layer.build(image_size=8)(views, labels, 7)[0]

    expected = changed()
    assert not np.array_equal(expected, views)
    with foreign():
        np.testing.assert_array_equal(changed(), expected)


def test_an_optimizers_rate_is_float32():
    with foreign():
        rates = SGD(0.1), SGD.from_config(SGD(0.1).get_config())
    assert [rate.learning_rate.dtype for rate in rates] == ["float32", "float32"]


def test_threads_leave_the_users_settings_whichever_leaves_last():
    first, second = threading.Event(), threading.Event()

    def early() -> None:
        with keras_settings.ours():
            first.set()
            second.wait(10)

    with foreign():
        thread = threading.Thread(target=early)
        thread.start()
        first.wait(10)
        with keras_settings.ours("mixed_bfloat16"):
            second.set()
            thread.join()
            assert settings() == ("float32", 1e-7, "channels_last")
            assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_an_error_inside_leaves_the_users_settings():
    with foreign(), pytest.raises(ZeroDivisionError), keras_settings.ours():
        raise ZeroDivisionError


def test_another_backend_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(InputError) as error:
        tiny_stack()
    assert tiny.one_line(error.value, says="Keras was imported with 'jax'")
    # Before Keras is imported, which would fail where jax is not installed.
    monkeypatch.delitem(__import__("sys").modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(InputError, match="KERAS_BACKEND is 'torch'"):
        keras_settings.check_backend()
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for text in ("", "{", "[]", "{}", json.dumps({"backend": "tensorflow"})):
        (tmp_path / "keras.json").write_text(text)
        keras_settings.check_backend()
    (tmp_path / "keras.json").write_text(json.dumps({"backend": "jax"}))
    with pytest.raises(InputError, match=r"keras\.json says 'jax'") as error:
        keras_settings.check_backend()
    assert tiny.one_line(error.value, says="KERAS_BACKEND=tensorflow")


def test_tracing_is_under_our_settings():
    """Keras's functions take what is not said from the settings of the moment at which they are called."""
    with foreign():
        stack = tiny_stack()
        logits = tf.function(lambda views: stack(views), autograph=False)(tiny.batch(2)[0])
    np.testing.assert_allclose(logits, tiny_stack()(tiny.batch(2)[0]), rtol=1e-6)
