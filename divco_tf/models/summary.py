"""Parameters and multiply-adds, counted from shapes: no weights are built."""

import dataclasses
import functools
import math
from typing import Any

import keras

from divco_tf import compat, keras_settings
from divco_tf.models.divide import regularisation, widths
from divco_tf.models.spec import branch_spec
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


@dataclasses.dataclass(frozen=True)
class Summary:
    """Sizes of a division. Multiply-adds are of convolutions and linear layers, for one image.

    `width` and `regularisation` are fields of each branch's spec, by name. `of_budget` is the share of the large
    network's parameters, or multiply-adds, that the budget rule comes to, at most 1; None without that rule.
    """

    backbone: str
    split_factor: int
    parameters: int
    parameters_per_branch: int
    multiply_adds: int
    multiply_adds_per_branch: int
    width: dict[str, float]
    regularisation: dict[str, float]
    of_budget: float | None = None


def summarize(
    name: str,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    split_factor: int = 1,
    copies: int | None = None,
    rule: str = "paper",
    budget: str = "parameters",
    sizes: Sizes | None = None,
    **options: Any,
) -> Summary:
    """The sizes of a backbone divided by `split_factor`.

    Args:
      name: of a registered backbone.
      num_classes: K.
      input_shape: (H, W, C).
      split_factor: S.
      copies: of the undivided network, instead.
      rule, budget: see `build`.
      sizes: of an earlier summary for the same data, which need not be counted again.
      **options: further arguments of `branch_spec`.

    Raises:
      InputError: as `build`.
    """
    sizes = sizes or Sizes(num_classes=num_classes, input_shape=input_shape)
    division = {"split_factor": split_factor, "copies": copies, "rule": rule, "budget": budget}
    spec = branch_spec(name, **division, sizes=sizes, **options)
    branches = split_factor if copies is None else copies
    size, of_budget = sizes(spec), None
    if rule == "budget" and copies is None:
        large = sizes(branch_spec(name, **options))
        of_budget = branches * getattr(size, budget) / getattr(large, budget)
    return Summary(
        backbone=name,
        split_factor=branches,
        parameters=branches * size.parameters,
        parameters_per_branch=size.parameters,
        multiply_adds=branches * size.multiply_adds,
        multiply_adds_per_branch=size.multiply_adds,
        width=widths(spec),
        regularisation=regularisation(spec),
        of_budget=of_budget,
    )


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


def layer_table(
    template: keras.Model, *, copies: int, title: str, line_length: int = 100, expand_nested: bool = False
) -> str:
    """The layers of a functional model as text, with the parameters of `copies` of it; those of models in it, too."""
    widths = (int(line_length * 0.5), int(line_length * 0.3))

    def row(*cells: str) -> str:
        return f"{cells[0]:<{widths[0]}}{cells[1]:<{widths[1]}}{cells[2]:>{line_length - sum(widths)}}"

    rule = "-" * line_length
    rows = [title, rule, row("layer", "output of a branch", f"parameters x {copies}"), rule]

    def add(model: keras.Model, indent: str) -> None:
        for layer in model.layers:
            shape = str(tuple(layer.output.shape)) if hasattr(layer, "output") else ""
            name = f"{indent}{layer.name} ({type(layer).__name__})"
            rows.append(row(name, shape, f"{copies * layer.count_params():,}"))
            if expand_nested and isinstance(layer, keras.Model):
                add(layer, f"{indent}  ")

    add(template, "")
    statistics = sum(math.prod(variable.shape) for variable in template.non_trainable_variables)
    rows += [rule, f"trainable: {copies * count_parameters(template):,}  statistics: {copies * statistics:,}"]
    return "\n".join(rows)
