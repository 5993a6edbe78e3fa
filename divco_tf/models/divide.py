"""Dividing one large network into S small ones (arXiv 2011.14660, section III-A).

Each field of a spec says how it shrinks, so `divide` knows no family:

    @dataclasses.dataclass(frozen=True)
    class WideResNetSpec:
        depth: int
        widen_factor: float = divided(widen, width=1 / 64)
        dropout: float = divided(by_split, regulariser=True, default=0.0)

These are the paper's rules. `models.budget` divides by any split factor: it searches the one field that is the width.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from divco_tf.errors import InputError
from divco_tf.spelling import also_spelt

Spec = TypeVar("Spec")
Rule = Callable[[Any, int], Any]
"""(value of the large network, split factor) -> value of each small one."""

_RULE = "divco_tf.rule"
_REGULARISER = "divco_tf.regulariser"
_WIDTH = "divco_tf.width"

RULES = ("paper", "budget")
BUDGETS = ("parameters", "multiply_adds")


@also_spelt(regularizer="regulariser")
def divided(
    rule: Rule | None = None,
    *,
    regulariser: bool = False,
    width: float | None = None,
    default: Any = dataclasses.MISSING,
) -> Any:
    """A dataclass field that shrinks by `rule`.

    Args:
      rule: (value, split factor) -> value of each small network. It need not handle a split factor of 1. None, for a
        width: nobody has published one, and only the budget rule divides the spec.
      regulariser: the field is a strength of regularisation (dropout, drop-path), which
        `divide(..., regularisers=False)` leaves as it is.
      width: the field is the width, which the budget rule searches among the multiples of this step: 1 for channels,
        0.01 for a multiplier. All channels must follow from it; where they are rounded, finer steps come closer.
      default: the field's default.
    """
    if rule is None and width is None:
        raise InputError("A divided field has a rule or is the width. Received: neither; pass by_sqrt_split, say.")
    if width is not None and not width > 0:
        raise InputError(f"The width's step is not positive. Received: {width}; 1 works for channels.")
    return dataclasses.field(default=default, metadata={_RULE: rule, _REGULARISER: regulariser, _WIDTH: width})


def kept(value: Any, split_factor: int) -> Any:
    """The value itself: a width that the paper leaves as it is."""
    return value


def by_split(value: float, split_factor: int) -> float:
    """value / S: the dropout of ResNets."""
    return value / split_factor


def by_sqrt_split(value: float, split_factor: int) -> float:
    """value / sqrt(S): S networks of such a width cost what one did; and the regularisation of most families."""
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


@also_spelt(regularizers="regularisers")
def divide(spec: Spec, split_factor: int, *, regularisers: bool = True, widths: bool = True) -> Spec:
    """The spec of each of the `split_factor` small networks that `spec` divides into, by each field's own rule.

    Args:
      spec: a frozen dataclass whose fields were declared with `divided` where they shrink.
      split_factor: S; 1 returns `spec` itself.
      regularisers: whether strengths of regularisation are divided too (section III-A of the paper:
        a smaller network needs less of it).
      widths: whether the other fields are divided.

    Raises:
      InputError: not a spec, not a positive whole number, or a split factor that a field cannot take.
    """
    _check_spec(spec)
    check_split_factor(split_factor)
    if split_factor == 1:
        return spec
    rules = [field for field in dataclasses.fields(spec) if _RULE in field.metadata]
    if widths and all(field.metadata[_REGULARISER] for field in rules):
        warnings.warn(
            f"{type(spec).__name__} does not say how a width divides: {split_factor} networks of full size. "
            f"Received: split_factor={split_factor}; copies={split_factor} says so, or a field declared with "
            "divided(by_sqrt_split), say.",
            stacklevel=3,
        )
    changes = {}
    for field in dataclasses.fields(spec):
        if _RULE not in field.metadata or not (regularisers if field.metadata[_REGULARISER] else widths):
            continue
        rule = field.metadata[_RULE] or _unpublished
        try:
            changes[field.name] = rule(getattr(spec, field.name), split_factor)
        except InputError as error:
            any_number = 'rule="budget" divides by any number, ' if _width_fields(spec) else ""
            raise InputError(
                f"{type(spec).__name__}.{field.name} cannot be divided by the split factor. "
                f"Received: {split_factor}; {error}. {any_number}copies= stacks any number of undivided networks."
            ) from error
    return dataclasses.replace(spec, **changes)


def width_of(spec: Any) -> tuple[str, float]:
    """The name of the field that is the width of `spec`, and its step.

    Raises:
      InputError: not a spec, or it names no width, or several.
    """
    _check_spec(spec)
    fields = _width_fields(spec)
    if len(fields) != 1:
        named = ", ".join(field.name for field in fields) or "none"
        raise InputError(
            f"The budget rule needs one field declared as the width, divided(..., width=step). "
            f"Received: {type(spec).__name__} with {named}."
        )
    return fields[0].name, fields[0].metadata[_WIDTH]


def regularisation(spec: Any) -> dict[str, float]:
    """The strengths of regularisation that `spec` defines, by field name."""
    return {
        field.name: getattr(spec, field.name)
        for field in dataclasses.fields(spec)
        if field.metadata.get(_REGULARISER, False)
    }


def widths(spec: Any) -> dict[str, float]:
    """The width of `spec` by its field's name, where it names one."""
    return {field.name: getattr(spec, field.name) for field in _width_fields(spec)}


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


def check_rule(rule: str, budget: str) -> None:
    """Refuses other words than those in RULES and BUDGETS.

    Raises:
      InputError: as said.
    """
    if rule not in RULES:
        raise InputError(f"Unknown dividing rule. Received: {rule!r}; pass one of {', '.join(RULES)}.")
    if budget not in BUDGETS:
        raise InputError(f"Unknown budget. Received: {budget!r}; pass one of {', '.join(BUDGETS)}.")


def _check_spec(spec: Any) -> None:
    if not dataclasses.is_dataclass(spec) or isinstance(spec, type):
        raise InputError(f"Only a spec can be divided. Received: {spec!r}; pass an instance of a frozen dataclass.")


def _unpublished(value: Any, split_factor: int) -> Any:
    raise InputError("its division is not published")


def _width_fields(spec: Any) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(spec) if field.metadata.get(_WIDTH) is not None]
