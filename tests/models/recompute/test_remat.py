"""Recomputed activations and branches in turn: the plain gradient and the plain statistics, of every family."""

import concurrent.futures
import functools
import multiprocessing

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models import draws
from divco_tf.models.backbones.keras_applications import EfficientNetV2Spec
from divco_tf.models.backbones.wide_resnet_cifar import WideResNetSpec
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.call_graph import call_graph
from divco_tf.models.recompute import remat
from divco_tf.tools.benchmarks.process import keep_freed_memory, peak_growth
from tests.models.one_step import gradients
from tests.models.siblings import SIBLINGS, sibling_stack
from tests.models.wrapped import small_stack
from tests.tiny import tiny_stack

REMAT, IN_TURN = {"remat": True}, {"in_turn": True}
QUICK = ("densenet", "resnext_cifar", "wide_resnet_cifar")


def relative_difference(ours: list, plain: list) -> float:
    """Largest difference of a tensor over its largest entry, or over a hundredth of the largest of all.

    A bias in front of a norm has a gradient of zero, of which rounding makes noise.
    """
    ours, plain = ([np.asarray(value, np.float64) for value in values] for values in (ours, plain))
    least = max(np.max(np.abs(value)) for value in plain) / 100
    return max(np.max(np.abs(a - b)) / max(np.max(np.abs(b)), least) for a, b in zip(ours, plain, strict=True))


def check_same(ours: tuple[list, list], plain: tuple[list, list], limit: float = 1e-6) -> None:
    for values, expected in zip(ours, plain, strict=True):
        assert relative_difference(values, expected) <= limit


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SIBLINGS]
)
def family(request) -> tuple[BranchStack, tuple[list, list]]:
    stack = sibling_stack(request.param)
    return stack, gradients(stack)


@pytest.mark.parametrize("way", [REMAT, IN_TURN, REMAT | IN_TURN], ids=["remat", "in_turn", "both"])
def test_gradients_and_statistics_are_the_plain_ones(family, way):
    stack, plain = family
    check_same(gradients(stack, **way), plain)


@pytest.mark.parametrize("way", [REMAT, IN_TURN], ids=["remat", "in_turn"])
@pytest.mark.parametrize("name", ["tiny", pytest.param("resnext_cifar", marks=pytest.mark.slow)])
def test_xla_computes_the_same(name, way):
    stack = tiny_stack(dropout=0.2) if name == "tiny" else sibling_stack(name)
    check_same(gradients(stack, jit=True, **way), gradients(stack, jit=True), limit=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", [REMAT, IN_TURN], ids=["remat", "in_turn"])
def test_kerass_random_layers_draw_once(way):
    # Their seeds are statistics: both runs start from the same ones, and the step keeps the first run's.
    stack = small_stack(EfficientNetV2Spec("efficientnetv2-b0", width_coefficient=0.1, depth_coefficient=0.3))
    assert any(not keras.backend.is_float_dtype(variable.dtype) for variable in stack.non_trainable_variables)
    check_same(gradients(stack, **way), gradients(stack))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_lower_precisions_compute_the_same(precision):
    stack = sibling_stack("wide_resnet_cifar", precision=precision)
    check_same(gradients(stack, **REMAT), gradients(stack), limit=1e-2)


def test_evaluation_does_not_care():
    stack, views = tiny_stack(), tf.random.stateless_uniform([4, 2, 8, 8, 3], [1, 2])
    state = [
        [variable.value for variable in kind] for kind in (stack.trainable_variables, stack.non_trainable_variables)
    ]
    plain, _ = stack.run(*state, views, training=False)
    ours, _ = stack.run(*state, views, training=False, **REMAT, **IN_TURN)
    np.testing.assert_array_equal(ours, plain)


def peaks() -> dict[str, int]:
    """Bytes of a step of two branches on 256 images, by way; for a process of its own."""
    keep_freed_memory(False)
    stack = build(spec=WideResNetSpec(depth=16, widen_factor=1), copies=2, num_classes=3, input_shape=(32, 32, 3))
    views = tf.zeros([256, 2, *stack.view_shape])
    state = [[v.value for v in kind] for kind in (stack.trainable_variables, stack.non_trainable_variables)]
    found = {}
    for name, way in {"plain": {}, "remat": REMAT, "in turn": IN_TURN, "both": REMAT | IN_TURN}.items():

        @tf.function(autograph=False)
        def step(weights: list, statistics: list, way: dict = way) -> list:
            with tf.GradientTape() as tape:
                tape.watch(weights)
                loss = tf.reduce_sum(stack.run(weights, statistics, views, training=True, **way)[0] ** 2)
            return tape.gradient(loss, weights)

        step(*state)
        found[name] = peak_growth(functools.partial(step, *state))
    return found


@pytest.mark.slow  # tens of megabytes, so that what runs at once, and so what else the machine does, tells little
def test_recomputation_lowers_the_peak():
    """Neither TensorFlow's common subexpressions nor its schedule undo it."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        found = process.submit(peaks).result()
    print(found)
    for way in ("remat", "in turn", "both"):
        assert found[way] < 0.75 * found["plain"], way


def test_nested_models_are_taken_apart_and_layers_called_twice_keep_both_updates():
    layer = {"dtype": "float64"}  # three norms in a row magnify what rounding does
    image, draw = keras.Input((8, 8, 3), dtype="float64"), keras.Input(draws.DRAW_SHAPE, dtype="uint64")
    inner_image = keras.Input((8, 8, 4), dtype="float64")
    norm = keras.layers.BatchNormalization(momentum=0.5, **layer)
    inner = keras.Model(inner_image, norm(keras.layers.Conv2D(4, 3, padding="same", **layer)(inner_image)))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", **layer)(image)
    x = inner(keras.layers.Add(**layer)([inner(x), x]))
    logits = keras.layers.Dense(3, **layer)(keras.layers.GlobalAveragePooling2D(**layer)(norm(x)))
    model = keras.Model([image, draw], logits)
    graph = call_graph(model)
    assert sum(call.operation is norm for call in graph.calls) == 3
    weights = [variable.value for variable in model.trainable_variables]
    statistics = [variable.value for variable in model.non_trainable_variables]
    views, keys = tf.random.stateless_uniform([4, 8, 8, 3], [0, 1], dtype=tf.float64), tf.zeros([4, 2], tf.uint64)

    def run(function) -> tuple[list, list]:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits, new = function(weights, statistics, views, keys)
            loss = tf.reduce_sum(logits**2)
        return tape.gradient(loss, weights), new

    def plain(weights, statistics, view, draw):
        return model.stateless_call(weights, statistics, [view, draw], training=True)

    check_same(run(remat.segmented(model, training=True, jit=False, keep_last=False)), run(plain), limit=1e-9)


def test_what_is_no_template_is_refused():
    with pytest.raises(InputError, match=r"functional model .* Received: .*Sequential"):
        remat.segmented(keras.Sequential([keras.layers.Dense(2)]), training=True, jit=False)
