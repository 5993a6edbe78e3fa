"""Parameters and multiply-adds, counted from shapes: no weights are built."""

import dataclasses
import functools
import math
from typing import Any

import keras

from divco_tf import compat, keras_settings
from divco_tf.models.template import build_template, check_sizes


@dataclasses.dataclass(frozen=True)
class Size:
    """Of one network. Multiply-adds are of convolutions and linear layers, for one image."""

    parameters: int
    multiply_adds: int


class Sizes:
    """The sizes of specs for one kind of data; each is counted once.

    Args:
      num_classes: K.
      input_shape: (H, W, C).
    """

    def __init__(self, *, num_classes: int, input_shape: tuple[int, int, int]) -> None:
        check_sizes(num_classes=num_classes, input_shape=input_shape, precision="float32")
        self._data = {"num_classes": num_classes, "input_shape": input_shape}
        self._counted: dict[str, Size] = {}

    def __call__(self, spec: Any) -> Size:
        """The size of the network of `spec`."""
        key = repr(spec)  # a spec may hold what has no hash
        if key not in self._counted:
            template = build_template(spec, **self._data)
            self._counted[key] = Size(count_parameters(template), count_multiply_adds(template))
        return self._counted[key]


def count_parameters(model: keras.Model) -> int:
    """Trainable parameters."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def count_multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of the convolutions and linear layers of a functional model, for one image.

    A layer counts as often as it is called, also inside nested models and layers made of layers.
    """
    total = 0
    for node in compat.nodes_of(model):
        layer = node.operation
        if isinstance(layer, _COUNTED):
            total += layer_multiply_adds(layer, node.outputs[0].shape)
        elif isinstance(layer, keras.Layer) and (inner := _counted_inside(layer)):
            total += _multiply_adds_inside(layer, inner, node.arguments)
    return total


_COUNTED = (
    keras.layers.Dense,
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)


def _counted_inside(layer: keras.Layer) -> list[keras.Layer]:
    return [inner for inner in compat.flat_layers(layer, include_self=False) if isinstance(inner, _COUNTED)]


def layer_multiply_adds(layer: keras.Layer, output_shape: tuple) -> int:
    """Of one call of a convolution or linear layer: each weight of a kernel counts once a position of [B, ..., C]."""
    kernels = [weight.shape for weight in layer.trainable_weights if weight.name.endswith("kernel")]
    return math.prod(output_shape[1:-1]) * sum(map(math.prod, kernels))


def _multiply_adds_inside(outer: keras.Layer, counted: list[keras.Layer], arguments: Any) -> int:
    """Calls `outer` on shapes; layers inside it have no output of their own to look at."""
    totals = []

    def watched(inner: keras.Layer) -> Any:
        call = inner.call

        @functools.wraps(call)
        def watch(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            totals.append(layer_multiply_adds(inner, output.shape))
            return output

        return watch

    try:
        for inner in counted:
            inner.call = watched(inner)
        with keras_settings.ours():
            compat.output_spec(outer.__call__, *arguments.args, **arguments.kwargs)
    finally:
        for inner in counted:
            del inner.call
    return sum(totals)
