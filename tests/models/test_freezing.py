"""What is frozen changes neither predictions nor the order of variables; statistics follow Keras's rule."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.models import layers
from divco_tf.models.backbones.registry import register_backbone
from divco_tf.models.branch_stack import BranchStack, build
from tests import tiny
from tests.tiny import lively, tiny_stack

VIEWS = tiny.batch(5)[0]


def everything(stack: BranchStack) -> None:
    stack.trainable = False


def all_but_the_head(stack: BranchStack) -> None:
    for variable in list(stack.trainable_variables):
        variable.trainable = variable.name.startswith("fc.")


def one_kernel(stack: BranchStack) -> None:
    stack.trainable_variables[0].trainable = False


@pytest.mark.parametrize("freeze", [everything, all_but_the_head, one_kernel])
@pytest.mark.parametrize("devices", [None, ["CPU:0", "CPU:1"]])
def test_a_frozen_stack_predicts_as_before_and_has_its_order(freeze, devices):
    stack = lively(tiny_stack(devices=devices))
    before, weights = stack(VIEWS).numpy(), stack.branch_weights
    names, statistics = list(stack.stacked_values()), stack.branch_statistics
    freeze(stack)
    np.testing.assert_array_equal(stack(VIEWS), before)
    assert list(stack.stacked_values()) == names
    assert list(map(id, stack.branch_weights)) == list(map(id, weights))
    assert list(map(id, stack.branch_statistics)) == list(map(id, statistics))


def test_a_frozen_stack_moves_no_statistics_and_a_partly_frozen_one_does():
    stack = lively(tiny_stack(dropout=0.2))
    before = stack.stacked_values()
    everything(stack)
    stack(VIEWS, training=True)
    assert all(np.array_equal(value, before[name]) for name, value in stack.stacked_values().items())
    stack.trainable = True
    all_but_the_head(stack)
    stack(VIEWS, training=True)
    moved = [name for name, value in stack.stacked_values().items() if not np.array_equal(value, before[name])]
    assert moved == ["norm.moving_mean", "norm.moving_variance"]


@pytest.mark.parametrize("remat", [False, True])
def test_frozen_weights_have_gradients_still_and_the_same_ones(remat):
    """`run` is pure: what is not trained is for the trainer to leave out."""
    stack = lively(tiny_stack())

    def gradients() -> list:
        weights, statistics = ([v.value + 0.0 for v in vs] for vs in (stack.branch_weights, stack.branch_statistics))
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits, _ = stack.run(weights, statistics, tf.constant(VIEWS), training=True, remat=remat)
            loss = tf.reduce_sum(tf.nn.log_softmax(logits)[:, :, 0])
        return [gradient.numpy() for gradient in tape.gradient(loss, weights)]

    before = gradients()
    one_kernel(stack)
    assert tiny.largest_difference(gradients(), before) == 0


def test_copies_files_and_configs_keep_what_is_frozen(tmp_path):
    stack = lively(tiny_stack())
    one_kernel(stack)
    assert [v.trainable for v in stack.on(["CPU:0", "CPU:1"]).variables[:4]] == [False, False, True, True]
    everything(stack)
    stack.save(tmp_path / "stack.keras")
    again = keras.models.load_model(tmp_path / "stack.keras")
    assert not again.trainable and again.trainable_variables == []
    np.testing.assert_array_equal(again(VIEWS), stack(VIEWS))
    assert again.get_config() == stack.get_config()


@dataclasses.dataclass(frozen=True)
class FrozenSpec:
    built: bool = False


@register_backbone("frozen_layers", FrozenSpec())
def frozen_layers(spec: FrozenSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """A convolution and a norm that are frozen when they are made, or after they have been called."""
    conv = keras.layers.Conv2D(4, 3, padding="same", name="conv", trainable=spec.built)
    norm = layers.BatchNormalization(name="norm", trainable=spec.built)
    x = norm(conv(image))
    conv.trainable = norm.trainable = False
    return layers.classifier(x, num_classes)


@pytest.mark.parametrize("built", [False, True])
def test_a_builder_may_freeze_layers(built):
    stack = lively(build("frozen_layers", copies=2, num_classes=3, input_shape=(8, 8, 3), built=built))
    assert [v.name for v in stack.trainable_variables] == ["fc.kernel", "fc.bias"]
    assert [v.name for v in stack.branch_weights] == [
        *("conv.kernel", "conv.bias", "norm.gamma", "norm.beta", "fc.kernel", "fc.bias")
    ]
    before, logits = stack.stacked_values(), stack(VIEWS).numpy()
    np.testing.assert_allclose(stack(VIEWS, training=True), logits, rtol=1e-5)  # a frozen norm is in inference
    assert all(np.array_equal(value, before[name]) for name, value in stack.stacked_values().items())
    np.testing.assert_allclose(stack.branch(1)(VIEWS[:, 1]), logits[:, 1], rtol=1e-5, atol=1e-6)
