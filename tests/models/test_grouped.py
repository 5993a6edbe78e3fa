"""Grouped convolution beside its definition, on every way it is computed."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.models.layers import GroupedConv2D, grouped

WAYS = ("native", "super-groups", "XLA")
PLAIN = {"strides": 1, "padding": "SAME"}
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.03, "float16": 0.01}


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def definition(images, kernel, outer, *, groups: int, stride: int, padding: str) -> list[np.ndarray]:
    """Outputs, and the gradients of images and kernel for `outer`, the gradient of the outputs; float64."""
    height, width, depth, filters = kernel.shape
    taps = kernel.reshape(height, width, depth, groups, filters // groups)
    totals = [
        max((-(-side // stride) - 1) * stride + size - side, 0) if padding == "same" else 0
        for side, size in zip(images.shape[1:3], (height, width), strict=True)
    ]
    pads = [(0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)]
    padded = np.pad(images, pads)
    patches = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))[:, ::stride, ::stride]
    size, out_height, out_width = patches.shape[:3]
    patches = patches.reshape(size, out_height, out_width, groups, depth, height, width)
    outputs = np.einsum("bxygcij,ijcgf->bxygf", patches, taps)
    outer = outer[:, :out_height, :out_width].reshape(outputs.shape)
    of_images = np.zeros(padded.shape)
    for i in range(height):
        for j in range(width):
            part = np.einsum("bxygf,cgf->bxygc", outer, taps[i, j]).reshape(size, out_height, out_width, -1)
            of_images[:, i : i + stride * out_height : stride, j : j + stride * out_width : stride][
                :, :out_height, :out_width
            ] += part
    (top, _), (left, _) = pads[1:3]
    of_images = of_images[:, top : top + images.shape[1], left : left + images.shape[2]]
    of_kernel = np.einsum("bxygcij,bxygf->ijcgf", patches, outer).reshape(kernel.shape)
    return [outputs.reshape(size, out_height, out_width, filters), of_images, of_kernel]


def computed(layer, images, kernel, outer, *, way: str = "native") -> list[np.ndarray]:
    """The same three of the layer, on one of WAYS."""

    def compute(images: tf.Tensor, kernel: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            outputs = layer.convolution_op(images, kernel)
            loss = tf.reduce_sum(outputs * tf.cast(outer[:, : outputs.shape[1], : outputs.shape[2]], outputs.dtype))
        return [outputs, *tape.gradient(loss, [images, kernel])]

    arguments = [tf.cast(value, layer.compute_dtype) for value in (images, kernel)]
    with pytest.MonkeyPatch.context() as patch:
        if way == "super-groups":
            patch.setattr(grouped, "grouped_op_trains", lambda dtype: False)
        function = tf.function(compute, jit_compile=way == "XLA", autograph=False)
        return [tf.cast(value, tf.float32).numpy() for value in function(*arguments)]


def assert_equal(ours, theirs, tolerance: float = TOLERANCE["float32"]) -> None:
    for value, reference in zip(ours, theirs, strict=True):
        assert value.shape == reference.shape
        assert np.abs(value - reference).max() <= tolerance * (1 + np.abs(reference).max())


def case(groups: int, depth: int, width: int, kernel_size: int = 3, *, side: int = 6, seed: int = 0) -> tuple:
    """Images, kernel, gradient of the outputs (as large as they are at most)."""
    return (
        numbers(seed, 2, side, side + 1, groups * depth),
        numbers(seed + 1, kernel_size, kernel_size, depth, groups * width),
        numbers(seed + 2, 2, side, side + 1, groups * width),
    )


def layer_of(kernel: np.ndarray, groups: int, *, stride: int = 1, padding: str = "same", **options) -> GroupedConv2D:
    return GroupedConv2D(kernel.shape[3], kernel.shape[:2], stride, padding, groups=groups, **options)


@settings(max_examples=25, deadline=None)
@given(
    groups=st.integers(2, 12),
    depth=st.integers(1, 5),
    width=st.integers(1, 5),
    kernel_size=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.sampled_from(["same", "valid"]),
    side=st.integers(5, 8),
    way=st.sampled_from(["native", "super-groups"]),
)
def test_outputs_and_gradients_are_the_definitions(groups, depth, width, kernel_size, stride, padding, side, way):
    images, kernel, outer = case(groups, depth, width, kernel_size, side=side)
    layer = layer_of(kernel, groups, stride=stride, padding=padding)
    expected = definition(images, kernel, outer, groups=groups, stride=stride, padding=padding)
    assert_equal(computed(layer, images, kernel, outer, way=way), expected)


@pytest.mark.parametrize(("groups", "depth", "width"), [(2, 3, 5), (8, 4, 4), (6, 2, 4), (3, 20, 16)])
@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, "valid")])
def test_xla_computes_the_same(groups, depth, width, stride, padding):
    images, kernel, outer = case(groups, depth, width)
    layer = layer_of(kernel, groups, stride=stride, padding=padding)
    expected = definition(images, kernel, outer, groups=groups, stride=stride, padding=padding)
    assert_equal(computed(layer, images, kernel, outer, way="XLA"), expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("stride", [1, 2])
def test_outputs_and_gradients_are_pytorchs(stride, way):
    torch = pytest.importorskip("torch", reason="PyTorch is for comparison only, and not installed")
    images, kernel, _ = case(4, 3, 2)
    x, k = (
        torch.tensor(value.transpose(axes).copy(), requires_grad=True)
        for value, axes in ((images, (0, 3, 1, 2)), (kernel, (3, 2, 0, 1)))
    )
    y = torch.nn.functional.conv2d(x, k, stride=stride, groups=4)
    outer = numbers(9, *y.shape)
    y.backward(torch.tensor(outer))
    expected = [
        y.detach().numpy().transpose(0, 2, 3, 1),
        x.grad.numpy().transpose(0, 2, 3, 1),
        k.grad.numpy().transpose(2, 3, 1, 0),
    ]
    layer = layer_of(kernel, 4, stride=stride, padding="valid")
    assert_equal(computed(layer, images, kernel, outer.transpose(0, 2, 3, 1), way=way), expected)


@pytest.mark.parametrize("merged", [1, 2, 3, 4, 6, 12])
def test_any_super_group_gives_the_same(merged):
    images, kernel, outer = case(12, 2, 3)
    expected = definition(images, kernel, outer, groups=12, stride=1, padding="same")[0]
    ours = grouped.super_grouped_conv2d(
        tf.constant(images, tf.float32), tf.constant(kernel, tf.float32), groups=12, merged=merged, **PLAIN
    )
    assert_equal([ours.numpy()], [expected])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_low_precision_is_near(precision, way):
    images, kernel, outer = case(4, 4, 4)
    layer = layer_of(kernel, 4, dtype=precision)
    expected = definition(images, kernel, outer, groups=4, stride=1, padding="same")
    assert_equal(computed(layer, images, kernel, outer, way=way), expected, TOLERANCE[layer.compute_dtype])


@pytest.mark.parametrize("way", WAYS)
def test_two_runs_give_the_same_bits(way):
    images, kernel, outer = case(8, 4, 4, side=16)
    layer = layer_of(kernel, 8)
    once, again = (computed(layer, images, kernel, outer, way=way) for _ in range(2))
    for value, other in zip(once, again, strict=True):
        np.testing.assert_array_equal(value, other)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_the_probe_says_whether_the_native_gradient_runs(dtype):
    images, kernel = tf.ones([2, 5, 5, 8], dtype), tf.ones([3, 3, 4, 8], dtype)

    @tf.function(autograph=False)
    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            outputs = tf.nn.conv2d(images, kernel, 1, "SAME")
        return tape.gradient(outputs, [images, kernel])

    with tf.device("CPU:0"):
        if grouped._cpu_has_gradient(dtype):
            gradients()
        else:
            with pytest.raises(tf.errors.OpError):
                gradients()


def convolutions(function, *arguments) -> list[tf.Operation]:
    graph = function.get_concrete_function(*arguments).graph
    return [operation for operation in graph.get_operations() if operation.type.startswith("Conv2D")]


def is_grouped(operation: tf.Operation) -> bool:
    images, kernel = operation.inputs[:2]
    return images.shape[-1] != kernel.shape[2]


def test_xla_on_cpu_sees_dense_convolutions_only():
    layer = GroupedConv2D(64, 3, groups=16, padding="same")
    layer.build((None, 8, 8, 64))
    arguments = tf.zeros([1, 8, 8, 64]), layer.kernel.value
    seen = convolutions(tf.function(layer.convolution_op, jit_compile=True, autograph=False), *arguments)
    assert len(seen) == 4 and not any(map(is_grouped, seen))
    nested, asked = [], tf.function(lambda: nested.append(grouped.grouped_op_trains(tf.float32)), autograph=False)
    tf.function(asked, jit_compile=True, autograph=False)()
    assert nested == [False]


@pytest.mark.parametrize("jit", [False, True])
def test_an_accelerator_gets_the_native_op(jit, monkeypatch):
    monkeypatch.setattr(grouped, "_on_accelerator", lambda: True)
    layer = GroupedConv2D(64, 3, groups=16, padding="same")
    function = tf.function(layer.convolution_op, jit_compile=jit, autograph=False)
    seen = convolutions(function, tf.zeros([1, 8, 8, 64]), tf.zeros([3, 3, 4, 64]))
    assert len(seen) == 1 and is_grouped(seen[0])


@pytest.mark.parametrize(("groups", "depth", "parts"), [(64, 4, 16), (64, 8, 32), (8, 32, 8), (64, 2, 8), (6, 1, 1)])
def test_narrow_groups_share_a_convolution(groups, depth, parts):
    images, kernel = tf.zeros([1, 4, 4, groups * depth]), tf.zeros([1, 1, depth, groups * depth])
    function = tf.function(grouped.super_grouped_conv2d, autograph=False)
    graph = function.get_concrete_function(images, kernel, groups=groups, **PLAIN).graph
    assert sum(operation.type == "Conv2D" for operation in graph.get_operations()) == parts


def test_it_saves_and_loads(tmp_path):
    image = keras.Input((6, 6, 8))
    model = keras.Model(image, GroupedConv2D(12, 3, groups=4, name="grouped")(image))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert isinstance(loaded.get_layer("grouped"), GroupedConv2D)
    images = numbers(0, 3, 6, 6, 8).astype(np.float32)
    np.testing.assert_array_equal(loaded(images), model(images))


WITHOUT_ONEDNN = """
import numpy as np, tensorflow as tf
from divco_tf.models.layers import GroupedConv2D, grouped
assert not grouped._cpu_has_gradient("float32")
layer = GroupedConv2D(8, 3, groups=4)
with tf.GradientTape() as tape:
    outputs = layer(np.ones((1, 5, 5, 8), np.float32))
assert all(np.any(gradient) for gradient in tape.gradient(outputs, [layer.kernel.value, layer.bias.value]))
"""


@pytest.mark.slow
def test_it_trains_without_onednn():
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", WITHOUT_ONEDNN], env=environment, check=True)
