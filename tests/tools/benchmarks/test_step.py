"""`divco-benchmark step`, on networks small enough for a test."""

import functools
import json

import keras
import numpy as np
import pytest

from divco_tf.models.branch_stack import build
from divco_tf.models.division import branch_spec
from divco_tf.tools.benchmarks import step
from tests import tiny  # noqa: F401 registers the network
from tests.tools.told_times import told_times  # noqa: F401 the fixture

SIZES = {"num_classes": 3, "input_shape": (8, 8, 3)}
TINY = {"batch_size": 4, "image_size": 8, "num_classes": 3, "report": lambda line: None}


def test_a_step_is_told_beside_separate_models(told_times, monkeypatch):  # noqa: F811
    monkeypatch.setattr(step, "torch_version", lambda: None)
    result = step.run(backbone="tiny", split_factor=2, rounds=2, steps=3, **TINY)
    kept = json.loads(json.dumps({key: result[key] for key in ("settings", "systems")}))
    assert kept["settings"]["split_factor"] == 2
    names = [
        *("branch stack", "branch stack, TensorFlow's threads"),
        *("separate Keras models", "separate Keras models, the stack's threads", "S=1 network"),
    ]
    # The turn before the rounds is not counted: n times 2 and 3 s.
    assert [system["rounds"] for system in kept["systems"].values()] == [[2 * n, 3 * n] for n in range(1, 6)]
    assert list(kept["systems"]) == names
    assert kept["systems"]["S=1 network"]["step_of_separate"] == 5 / 3
    assert result["rows"][0] == ("branch stack", "1.00", "2.00", "0.33", "2.500", "0.33", "2.000")
    assert result["rows"][4] == ("S=1 network", "5.00", "10.00", "1.67", "12.500", "1.67", "10.000")


def test_separate_models_have_kerass_own_batch_norm(monkeypatch):
    used = []
    call = keras.layers.BatchNormalization.call

    @functools.wraps(call)  # Keras reads the signature
    def noted(self, *args, **options):
        used.append(type(self))
        return call(self, *args, **options)

    monkeypatch.setattr(keras.layers.BatchNormalization, "call", noted)
    spec = branch_spec("tiny", split_factor=2)
    labels = np.eye(3, dtype=np.float32)[:2]
    step._separate_step(spec, 2, SIZES, np.zeros((2, 2, 8, 8, 3), np.float32), labels)()
    assert set(used) == {keras.layers.BatchNormalization}


def test_separate_models_are_trained_by_the_same_loss_as_the_stack():
    spec = branch_spec("tiny", split_factor=2)
    rng = np.random.default_rng(0)
    views = rng.standard_normal((4, 2, 8, 8, 3)).astype(np.float32)
    labels = np.eye(3, dtype=np.float32)[rng.integers(3, size=4)]
    stack = step.stack_step(step.cotraining_model(build(spec=spec, copies=2, **SIZES)), views, labels)
    separate = step._separate_step(spec, 2, SIZES, views, labels)
    # Initial logits are nearly 0 whatever the draw (a linear layer of standard deviation 1e-3): 2 log 3.
    assert stack() == pytest.approx(2 * np.log(3), abs=0.05)
    assert separate() == pytest.approx(2 * np.log(3), abs=0.05)
