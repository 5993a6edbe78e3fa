"""Dividing one large network into S small ones (arXiv 2011.14660, section III-A).

Each field of a spec says how it shrinks, so `divide` knows no family:

    @dataclasses.dataclass(frozen=True)
    class WideResNetSpec:
        depth: int
        widen_factor: int = divided(widen)
        dropout: float = divided(by_split, regulariser=True, default=0.0)
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from divco_tf.errors import InputError

Spec = TypeVar("Spec")
Rule = Callable[[Any, int], Any]
"""(value of the large network, split factor) -> value of each small one."""

_RULE = "divco_tf.rule"
_REGULARISER = "divco_tf.regulariser"


def divided(rule: Rule, *, regulariser: bool = False, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that shrinks by `rule`.

    Args:
      rule: (value, split factor) -> value of each small network. It need not handle a split factor of 1.
      regulariser: the field is a strength of regularisation (dropout, drop-path), which
        `divide(..., regularisers=False)` leaves as it is.
      default: the field's default.
    """
    return dataclasses.field(default=default, metadata={_RULE: rule, _REGULARISER: regulariser})


def by_split(value: float, split_factor: int) -> float:
    """value / S: the dropout of ResNets."""
    return value / split_factor


def by_sqrt_split(value: float, split_factor: int) -> float:
    """value / sqrt(S): the regularisation of every other family."""
    return value / math.sqrt(split_factor)


def by_whole_split(value: int, split_factor: int) -> int:
    """value / S where that is whole: the groups of convolutions."""
    if value % split_factor:
        divisors = [divisor for divisor in range(1, value + 1) if value % divisor == 0]
        raise InputError(f"{value} divides by {', '.join(map(str, divisors))}")
    return value // split_factor


def by_table(table: Mapping[Any, Mapping[int, Any]]) -> Rule:
    """A rule from a table {value of the large network: {split factor: value of each small one}}."""

    def rule(value: Any, split_factor: int) -> Any:
        if value not in table:
            known = ", ".join(map(str, table))
            raise InputError(f"only {known} has a published division, not {value}")
        if split_factor not in table[value]:
            raise InputError(f"{value} divides by {', '.join(map(str, table[value]))}")
        return table[value][split_factor]

    return rule


def divide(spec: Spec, split_factor: int, *, regularisers: bool = True) -> Spec:
    """The spec of each of the `split_factor` small networks that `spec` divides into.

    Args:
      spec: a frozen dataclass whose fields were declared with `divided` where they shrink.
      split_factor: S; 1 returns `spec` itself.
      regularisers: whether strengths of regularisation are divided too (section III-A of the paper:
        a smaller network needs less of it).

    Raises:
      InputError: not a spec, not a positive whole number, or a split factor that a field cannot take.
    """
    if not dataclasses.is_dataclass(spec) or isinstance(spec, type):
        raise InputError(f"Only a spec can be divided. Received: {spec!r}; pass an instance of a frozen dataclass.")
    check_split_factor(split_factor)
    if split_factor == 1:
        return spec
    changes = {}
    for field in dataclasses.fields(spec):
        rule = field.metadata.get(_RULE)
        if rule is None or (field.metadata[_REGULARISER] and not regularisers):
            continue
        value = getattr(spec, field.name)
        try:
            changes[field.name] = rule(value, split_factor)
        except InputError as error:
            raise InputError(
                f"{type(spec).__name__}.{field.name} cannot be divided by the split factor. "
                f"Received: {split_factor}; {error}. Stacking undivided copies (copies=) takes any number."
            ) from error
    return dataclasses.replace(spec, **changes)


def regularisation(spec: Any) -> dict[str, float]:
    """The strengths of regularisation that `spec` defines, by field name."""
    return {
        field.name: getattr(spec, field.name)
        for field in dataclasses.fields(spec)
        if field.metadata.get(_REGULARISER, False)
    }


def divide_weight_decay(weight_decay: float, split_factor: int) -> float:
    """weight_decay * exp(1/S - 1), the paper's rule; off unless asked, as it does not always help.

    Raises:
      InputError: a negative weight decay, or a split factor that is no positive whole number.
    """
    if not weight_decay >= 0:
        raise InputError(f"Weight decay is negative. Received: {weight_decay}; pass 0 or more.")
    check_split_factor(split_factor)
    return weight_decay * math.exp(1 / split_factor - 1)


def check_split_factor(split_factor: int) -> None:
    """Refuses what is no positive whole number.

    Raises:
      InputError: as said.
    """
    if isinstance(split_factor, bool) or not isinstance(split_factor, int) or split_factor < 1:
        raise InputError(f"The split factor is no positive whole number. Received: {split_factor!r}; pass 1, 2, 4, ...")
