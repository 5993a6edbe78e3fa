"""From a backbone's name to the spec of each branch. No TensorFlow: a misspelt name is answered at once."""

import dataclasses
from collections.abc import Callable
from typing import Any

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import BACKBONES, backbone_of
from divco_tf.models.budget import divide_by_budget
from divco_tf.models.divide import check_rule, check_split_factor, divide, width_of
from divco_tf.spelling import also_spelt


@also_spelt(divide_regularizers="divide_regularisers")
def branch_spec(
    name: str | None = None,
    *,
    split_factor: int = 1,
    spec: Any = None,
    copies: int | None = None,
    divide_regularisers: bool = True,
    rule: str = "paper",
    budget: str = "parameters",
    sizes: Callable[[Any], Any] | None = None,
    **overrides: Any,
) -> Any:
    """The spec of each branch; the arguments and errors are those of `build`.

    `sizes` gives the `parameters` and `multiply_adds` of a spec (`sizes.Sizes`), which the budget rule compares.
    """
    check_rule(rule, budget)
    if (name is None) == (spec is None):
        raise InputError(f"Give a backbone's name or a spec, not both. Received: name={name!r}, spec={spec!r}.")
    spec = BACKBONES.get(name).spec if spec is None else backbone_of(spec).spec
    fields = [field.name for field in dataclasses.fields(spec)]
    if unknown := sorted(set(overrides) - set(fields)):
        raise InputError(
            f"{type(spec).__name__} has no such field. Received: {', '.join(unknown)}; it has {', '.join(fields)}."
        )
    spec = dataclasses.replace(spec, **overrides)
    if copies is None and rule == "budget":
        return divide_by_budget(
            spec, split_factor, count=lambda spec: getattr(sizes(spec), budget), regularisers=divide_regularisers
        )
    if copies is None:
        return divide(spec, split_factor, regularisers=divide_regularisers)
    check_split_factor(copies)
    if split_factor != 1:
        raise InputError(
            f"copies= stacks undivided networks. Received: copies={copies}, split_factor={split_factor}; give one."
        )
    return spec


def check_division(
    name: str, *, split_factor: int = 1, rule: str = "paper", budget: str = "parameters", **options: Any
) -> None:
    """Refuses what `branch_spec` would, without counting, so without TensorFlow."""
    check_rule(rule, budget)
    if rule == "budget":
        width_of(branch_spec(name, **options))
        check_split_factor(split_factor)
    else:
        branch_spec(name, split_factor=split_factor, **options)
