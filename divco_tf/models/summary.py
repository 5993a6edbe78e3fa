"""What a division comes to, and the layers of a branch, for a human."""

import dataclasses
import math
from typing import Any

import keras

from divco_tf.models.divide import regularisation, widths
from divco_tf.models.division import branch_spec
from divco_tf.models.sizes import Sizes, count_parameters


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
      rule: see `build`.
      budget: see `build`.
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
