"""`divco-benchmark grouped`: a training step of grouped convolutions beside the other ways to compute them."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from divco_tf.models import layers
from divco_tf.models.division import branch_spec
from divco_tf.models.layers import GroupedConv2D, grouped
from divco_tf.models.template import build_network
from divco_tf.tools.benchmarks.step import MOMENTUM, RATE, Step, torch_version

OURS, SUPER, SPLIT, DENSE = "ours", "super-groups", "split + concat", "block-diagonal, dense"
XLA, NATIVE_XLA, TORCH = "ours, XLA", "native op, XLA", "PyTorch, eager"
SHAPES = {  # images [B, H, W, C], groups; the first three are a ResNeXt-101's, the last a ResNeXt-29's
    "8x56x56x128, 32 groups": ((8, 56, 56, 128), 32),
    "8x14x14x512, 32 groups": ((8, 14, 14, 512), 32),
    "8x28x28x256, 8 groups": ((8, 28, 28, 256), 8),
    "32x32x32x128, 2 groups": ((32, 32, 32, 128), 2),
}
NETWORKS = {"ResNeXt-29 8x64d, 32 pixels": 4, "ResNeXt-101 64x4d, stage 3, 28 pixels": 4}  # images a step
TURN = 0.3  # seconds, at least one step
ONCE = (NATIVE_XLA,)  # 100 times slower than the others: no warm-up, one round


def run(*, report: Callable[[str], None], rounds: int = 5, shapes: Mapping[str, Any] = SHAPES) -> dict[str, Any]:
    """Times a step, forward and backward, of the convolution alone and of networks; see the module `benchmark`.

    Args:
      rounds: in which every system takes its turn.
      report: is told how it goes on.
      shapes: of single convolutions, images [B, H, W, C] and groups by name.

    Returns:
      head and rows of the table, and what JSON holds: settings, systems by case and name.
    """
    cases = {}
    for name, (shape, groups) in shapes.items():
        cases[name] = _timed(_convolutions(shape, groups), rounds, report, name)
    for name, batch_size in NETWORKS.items():
        cases[name] = _timed(_networks(name, batch_size), rounds, report, name)
    return {
        "head": ("", "", "trace + first step s", "a step ms", "of ours", "of PyTorch", "fastest ms"),
        "rows": [row for name, systems in cases.items() for row in _rows(name, systems)],
        "settings": {"rounds": rounds, "images": NETWORKS},
        "systems": cases,
    }


def _timed(
    systems: Iterator[tuple[str, Callable[[], Step]]], rounds: int, report: Callable[[str], None], case: str
) -> dict[str, dict]:
    """First steps as they are made, then rounds of turns."""
    timed, steps = {}, {}
    for name, make in systems:
        start = time.perf_counter()
        steps[name] = make()
        steps[name]()
        timed[name] = {"first": time.perf_counter() - start, "rounds": []}
        if name not in ONCE:
            steps[name]()  # caches and thread pools are warm then
    for index in range(rounds):
        for name, step in steps.items():
            if index and name in ONCE:
                continue
            start, count = time.perf_counter(), 0
            while count == 0 or time.perf_counter() - start < TURN:
                step()
                count += 1
            timed[name]["rounds"].append((time.perf_counter() - start) / count)
    report(f"{case}: " + ", ".join(f"{name} {min(system['rounds']):.4f} s" for name, system in timed.items()))
    return timed


def _rows(case: str, systems: dict[str, dict]) -> Iterator[tuple[str, ...]]:
    for name, system in systems.items():
        system["median"] = statistics.median(system["rounds"])
        for key, other in (("of_ours", OURS), ("of_torch", TORCH)):
            if other in systems:
                pairs = zip(system["rounds"], systems[other]["rounds"], strict=False)
                system[key] = statistics.median(a / b for a, b in pairs)
        yield (
            case,
            name,
            f"{system['first']:.2f}",
            f"{1e3 * system['median']:.1f}",
            f"{system['of_ours']:.2f}",
            f"{system['of_torch']:.2f}" if "of_torch" in system else "",
            f"{1e3 * min(system['rounds']):.1f}",
        )


def _convolutions(shape: tuple[int, ...], groups: int) -> Iterator[tuple[str, Callable[[], Step]]]:
    rng, channels = np.random.default_rng(0), shape[-1]
    images = rng.standard_normal(shape).astype(np.float32)
    kernel = (0.1 * rng.standard_normal((3, 3, channels // groups, channels))).astype(np.float32)
    layer = GroupedConv2D(channels, 3, groups=groups, padding="same", use_bias=False)
    plain = {"strides": 1, "padding": "SAME"}

    def by(convolve: Callable, *, jit: bool = False) -> Callable[[], Step]:
        return lambda: _convolution_step(convolve, images, kernel, jit=jit)

    def merged(count: int | None) -> Callable[[], Step]:
        return by(lambda x, k: grouped.super_grouped_conv2d(x, k, groups=groups, merged=count, **plain))

    yield OURS, by(layer.convolution_op)
    yield SUPER, merged(None)
    yield SPLIT, merged(1)
    yield DENSE, merged(groups)
    yield XLA, by(layer.convolution_op, jit=True)
    yield NATIVE_XLA, by(lambda x, k: tf.nn.conv2d(x, k, **plain), jit=True)
    if torch_version():
        yield TORCH, lambda: _torch_convolution_step(images, kernel, groups)


def _convolution_step(convolve: Callable, images: np.ndarray, kernel: np.ndarray, *, jit: bool) -> Step:
    @tf.function(jit_compile=jit, autograph=False)
    def step(images: tf.Tensor, kernel: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            loss = tf.nn.l2_loss(convolve(images, kernel))
        return tape.gradient(loss, [images, kernel])

    arguments = tf.constant(images), tf.constant(kernel)
    return lambda: [gradient.numpy() for gradient in step(*arguments)]


def _torch_convolution_step(images: np.ndarray, kernel: np.ndarray, groups: int) -> Step:
    import torch

    x = torch.tensor(images.transpose(0, 3, 1, 2)).to(memory_format=torch.channels_last).requires_grad_()
    k = torch.tensor(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))).requires_grad_()

    def step() -> None:
        x.grad = k.grad = None
        (torch.nn.functional.conv2d(x, k, padding=1, groups=groups).square().sum() / 2).backward()

    return step


def _networks(name: str, batch_size: int) -> Iterator[tuple[str, Callable[[], Step]]]:
    network = resnext29() if name.startswith("ResNeXt-29") else resnext101_stage()
    rng = np.random.default_rng(0)
    images = rng.standard_normal((batch_size, *network.input.shape[1:])).astype(np.float32)
    labels = rng.integers(network.output.shape[-1], size=batch_size)

    def split(layer: GroupedConv2D, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        options = {"strides": layer.strides, "padding": layer.padding.upper()}
        return grouped.super_grouped_conv2d(inputs, kernel, groups=layer.groups, merged=1, **options)

    def split_step() -> Step:
        step = _network_step(network, images, labels)
        with mock.patch.object(GroupedConv2D, "convolution_op", split):
            step()  # traces
        return step

    yield OURS, lambda: _network_step(network, images, labels)
    yield SPLIT, split_step
    if torch_version():
        yield TORCH, lambda: _torch_network_step(network, images, labels)


def resnext29() -> keras.Model:
    """ResNeXt-29 8x64d for CIFAR."""
    return build_network(branch_spec("resnext29_8x64d"), num_classes=10, input_shape=(32, 32, 3))


def resnext101_stage() -> keras.Model:
    """Stage 3 of ResNeXt-101 64x4d, 23 blocks, and a classifier: features [B, 28, 28, 512] -> logits [B, 1000]."""
    spec = branch_spec("resnext101_64x4d")
    x = features = keras.Input((28, 28, 512))
    for name, width, stride in layers.stages(spec.blocks, spec.width):
        if name.startswith("layer3."):
            y = layers.bottleneck(x, spec.widths(width), stride=stride, groups=spec.groups, gamma=0.0, name=name)
            x = layers.residual(x, y, stride=stride, name=name)
    return keras.Model(features, layers.classifier(x, 1000))


def _network_step(network: keras.Model, images: np.ndarray, labels: np.ndarray) -> Step:
    optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM, nesterov=True)
    optimizer.build(network.trainable_variables)

    @tf.function(autograph=False)
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = network(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        gradients = tape.gradient(loss, [variable.value for variable in network.trainable_variables])
        optimizer.apply(gradients, network.trainable_variables)
        return loss

    arguments = tf.constant(images), tf.constant(labels)
    return lambda: step(*arguments).numpy()


def _torch_network_step(network: keras.Model, images: np.ndarray, labels: np.ndarray) -> Step:
    import torch

    from divco_tf.tools.laboratory.torch_twin import TorchTwin

    twin = TorchTwin(network).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(twin.parameters(), lr=RATE, momentum=MOMENTUM, nesterov=True)
    x = torch.tensor(images.transpose(0, 3, 1, 2)).to(memory_format=torch.channels_last)
    target = torch.tensor(labels)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(twin(x), target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
