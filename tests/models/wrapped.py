"""What holds for every backbone that wraps another library's network."""

import pathlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from divco_tf.data.datasets import get_dataset
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.sizes import count_multiply_adds
from divco_tf.serving.export import export_stack

SIDE = 32


def small_stack(spec: Any) -> BranchStack:
    """Two networks of `spec` for 10 classes of 32-pixel images."""
    return build(spec=spec, copies=2, num_classes=10, input_shape=(SIDE, SIDE, 3), seed=3)


def views(size: int = 6) -> np.ndarray:
    """[size, 2, 32, 32, 3]"""
    return np.random.default_rng(0).standard_normal((size, 2, SIDE, SIDE, 3)).astype(np.float32)


def profiled_multiply_adds(model: keras.Model, side: int) -> int:
    """Half of what TensorFlow's profiler counts in the frozen graph's convolutions and matrix products."""
    profiler = tf.compat.v1.profiler
    function = tf.function(lambda image: model(image, training=False), autograph=False)
    concrete = function.get_concrete_function(tf.TensorSpec([1, side, side, 3]))
    options = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation()).with_empty_output()
    graph = convert_variables_to_constants_v2(concrete).graph
    node, total = profiler.profile(graph, cmd="op", options=options.build()), 0
    while True:  # the operations stand in a chain, each with its own count
        total += node.float_ops if node.name in ("Conv2D", "DepthwiseConv2dNative", "MatMul") else 0
        if not node.children:
            return total // 2
        (node,) = node.children


def check_multiply_adds(stack: BranchStack) -> None:
    """Counted from shapes they are what TensorFlow's profiler finds."""
    counted = count_multiply_adds(stack.network.template)
    assert counted == count_multiply_adds(stack.branch(0)) == profiled_multiply_adds(stack.branch(0), SIDE) > 0


def check_training(stack: BranchStack) -> None:
    """Each weight has a gradient that is not zero, each branch its own values, and statistics and seeds move."""
    for variable in stack.trainable_variables:
        if variable.name == "fc.kernel":  # the initial one would let little of the gradient through
            variable.assign(np.random.default_rng(1).standard_normal(variable.shape))
    before = [variable.numpy() for variable in stack.non_trainable_variables]
    tf.config.run_functions_eagerly(True)  # tracing would take most of the time
    try:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.nn.log_softmax(stack(views(), training=True))[:, :, 0])
        gradients = tape.gradient(loss, [variable.value for variable in stack.trainable_variables])
    finally:
        tf.config.run_functions_eagerly(False)
    for variable, gradient in zip(stack.trainable_variables, gradients, strict=True):
        assert np.all(np.isfinite(gradient)) and all(np.any(branch != 0) for branch in gradient.numpy()), variable.name
        if variable.name.endswith("kernel"):
            assert not np.array_equal(variable[0], variable[1]), variable.name
    pairs = zip(stack.non_trainable_variables, before, strict=True)
    moved = {variable.name: not np.array_equal(variable.numpy(), values) for variable, values in pairs}
    seeds = [moved.pop(name) for name in list(moved) if "seed_generator" in name]
    assert all(moved.values()), moved
    assert any(seeds) or not seeds  # keras-cv makes random layers that it never calls


def check_saving(stack: BranchStack, folder: pathlib.Path) -> None:
    """Saved and loaded it answers the same; a branch is copied and written back."""
    logits = stack(views()).numpy()
    stack.save(folder / "stack.keras")
    again = keras.models.load_model(folder / "stack.keras")
    assert again.spec == stack.spec
    np.testing.assert_array_equal(again(views()), logits)
    again.set_branch(0, stack.branch(1))
    shown = np.repeat(views()[:, 1:], 2, axis=1)
    both = again(shown).numpy()
    np.testing.assert_array_equal(both[:, 0], both[:, 1])


def check_export(stack: BranchStack, folder: pathlib.Path) -> None:
    """The SavedModel gives the ensemble's probabilities."""
    facts = get_dataset("cifar10")
    preprocessing, names = Preprocessing.for_dataset(facts), [str(index) for index in range(10)]
    path = export_stack(stack, preprocessing=preprocessing, class_names=names, export_dir=folder)
    images = np.random.default_rng(2).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.float32)
    served = tf.saved_model.load(str(path)).signatures["images"](images=tf.constant(images))
    logits = stack(preprocessing(images)).numpy().mean(axis=1)
    np.testing.assert_allclose(served["probabilities"], tf.nn.softmax(logits), rtol=1e-4)


def check_reproducible(spec: Any) -> None:
    """A seed gives the same stack, whatever layers were made in between."""
    one = small_stack(spec)
    keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)
    for ours, theirs in zip(one.variables, small_stack(spec).variables, strict=True):
        assert ours.name == theirs.name
        np.testing.assert_array_equal(ours, theirs)


CHECKS = ("reproducible", "training", "multiply_adds", "saving", "export")


def check(what: str, spec: Any, folder: pathlib.Path) -> None:
    """One of CHECKS."""
    if what == "reproducible":
        check_reproducible(spec)
    elif what in ("saving", "export"):
        {"saving": check_saving, "export": check_export}[what](small_stack(spec), folder)
    else:
        {"training": check_training, "multiply_adds": check_multiply_adds}[what](small_stack(spec))


def every_check(specs: dict[str, Any], *, exported: str) -> Any:
    """Parametrizes a test with each spec and each of CHECKS; of exports only one's is in the fast selection."""

    def marks(name: str, what: str) -> tuple:
        return (pytest.mark.slow,) if what == "export" and name != exported else ()

    return pytest.mark.parametrize(
        ("spec", "what"),
        [
            pytest.param(spec, what, id=f"{name}-{what}", marks=marks(name, what))
            for name, spec in specs.items()
            for what in CHECKS
        ],
    )
