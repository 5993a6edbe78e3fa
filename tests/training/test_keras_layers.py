"""A builder may use Keras's own layers, random ones included, and leave them unnamed."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest

from divco_tf.models.backbones.registry import register_backbone
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.runtime.strategy import make_strategy
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.optim.optimizer import SGD
from tests import tiny


@dataclasses.dataclass(frozen=True)
class KerasSpec:
    width: int = 4


@register_backbone("tiny_keras", KerasSpec())
def tiny_keras(spec: KerasSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    x = keras.layers.Conv2D(spec.width, 3)(image)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.layers.Dense(num_classes, dtype="float32")(x)


def keras_stack(**options: Any) -> BranchStack:
    return build("tiny_keras", **{"copies": 2, "num_classes": 3, "input_shape": (8, 8, 3), "seed": 1, **options})


def seeds(stack: BranchStack) -> list[np.ndarray]:
    """(seed, counter) of each random layer's S branches."""
    return [variable.numpy() for variable in stack.non_trainable_variables if "seed_generator" in variable.name]


def trained(steps: int, *, stack: BranchStack | None = None, **options: Any) -> BranchStack:
    model = CoTrainingModel(keras_stack() if stack is None else stack, **options)
    model.compile(SGD(0.1))
    for _ in range(steps):
        model.train_on_batch(*tiny.batch())
    return model.stack


def test_every_branch_and_layer_draws_its_own_masks():
    found = np.array(seeds(keras_stack()))
    assert found.shape == (2, 2, 2) and len(set(found[..., 0].flat)) == 4
    stack, views = tiny.lively(keras_stack()), tiny.batch()[0][:, 0]
    for variable in stack.trainable_variables:  # the branches differ in their masks only
        variable.assign(np.repeat(variable.numpy()[:1], 2, axis=0))
    logits = stack(views, training=True).numpy()
    assert not np.allclose(logits[:, 0], logits[:, 1])
    logits = stack(views).numpy()
    np.testing.assert_array_equal(logits[:, 0], logits[:, 1])


@pytest.mark.parametrize("options", [{}, {"micro_batches": 2}])
def test_a_step_moves_their_counters_and_is_repeatable(options):
    once, again = trained(3, **options), trained(3, **options)
    assert np.array_equal([seed[:, 1] for seed in seeds(once)], [[3, 3], [3, 3]])
    for ours, theirs in zip(once.variables, again.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_their_state_is_the_same_on_every_replica():
    with make_strategy("mirrored").scope():
        model = CoTrainingModel(keras_stack())
        model.compile(SGD(0.1))
    model.fit(*tiny.batch(), batch_size=8, epochs=2, verbose=0)
    for variable in model.stack.non_trainable_variables:
        first, second = (value.numpy() for value in variable.value.values)
        np.testing.assert_array_equal(first, second)
    assert np.array_equal([seed[:, 1] for seed in seeds(model.stack)], [[2, 2], [2, 2]])


def test_unnamed_layers_are_named_alike_whatever_was_made_before():
    before = keras_stack()
    keras.layers.Conv2D(1, 1), keras.layers.Dropout(0.1)
    for ours, theirs in zip(before.variables, keras_stack().variables, strict=True):
        assert ours.name == theirs.name
        np.testing.assert_array_equal(ours, theirs)


def test_a_build_leaves_the_users_counting_of_names_alone():
    first = keras.layers.Conv2D(1, 1).name
    keras_stack()
    number = int(first.rpartition("_")[2]) if first != "conv2d" else 0
    assert keras.layers.Conv2D(1, 1).name == f"conv2d_{number + 1}"


def test_a_branch_with_unnamed_layers_is_written_back():
    stack = keras_stack()
    stack.set_branch(0, stack.branch(1))
    for variable in stack.variables:
        np.testing.assert_array_equal(variable.numpy()[0], variable.numpy()[1])
