"""The budget rule: any split factor, by the width whose S networks come closest to the large one's cost.

The paper's rules give each of S networks about 1/S of the cost (arXiv 2011.14660, section III-A), for the split factors
and the architectures it lists. This rule needs to know which field of a spec is the width (`divided(..., width=step)`).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import TypeVar

from divco_tf.errors import InputError
from divco_tf.models.divide import check_split_factor, divide, width_of

Spec = TypeVar("Spec")


def divide_by_budget(spec: Spec, split_factor: int, *, count: Callable[[Spec], int], regularisers: bool = True) -> Spec:
    """The spec of each of S networks that together cost at most what `spec` does, and of no wider ones.

    The width is searched; strengths of regularisation are divided by their own rules; the other fields stay.

    Args:
      spec: of the large network.
      split_factor: S; 1 returns `spec` itself.
      count: the cost of one network: its parameters, or its multiply-adds. It must not fall when the width rises.
        It is called for `spec` and for about five widths.
      regularisers: False leaves the strengths of regularisation as they are.

    Raises:
      InputError: the spec names no width, or S of the narrowest networks cost more than the large one.
    """
    check_split_factor(split_factor)
    name, step = width_of(spec)
    if split_factor == 1:
        return spec
    base = divide(spec, split_factor, regularisers=regularisers, widths=False)
    width, limit = getattr(spec, name), count(spec)
    refusal = "none is narrower"

    def narrower(steps: int) -> Spec:
        value = round(steps * step, 9)
        return dataclasses.replace(base, **{name: int(value) if isinstance(width, int) and value % 1 == 0 else value})

    def cost(steps: int) -> int:
        nonlocal refusal
        try:
            total = split_factor * count(narrower(steps))
        except InputError as error:
            refusal = str(error)  # of the spec or the builder: a width that is too small for it
            return 0
        refusal = f"{split_factor} with {name}={getattr(narrower(steps), name)} have {total:,}"
        return total

    steps, total = _largest_within(cost, limit, too_many=math.ceil(width / step), costs=split_factor * limit)
    if not total:
        raise InputError(
            f"The budget of {limit:,} is too small for so many networks ({refusal}). "
            f"Received: split_factor={split_factor}; a smaller one would work."
        )
    return narrower(steps)


def _largest_within(cost: Callable[[int], int], limit: int, *, too_many: int, costs: int) -> tuple[int, int]:
    """The largest number below `too_many` whose cost is at most `limit`, or 0, and its cost.

    `cost` rises about with the square of its argument, so its root is interpolated. While guesses fall on one side of
    the answer, each is pushed further to the other: that closes the bracket.
    """
    low, low_cost, high, high_cost, push = 0, 0, too_many, costs, 0
    while high - low > 1:
        share = (math.sqrt(limit) - math.sqrt(low_cost)) / (math.sqrt(high_cost) - math.sqrt(low_cost))
        guess = math.floor(low + share * (high - low)) + push
        guess = min(max(guess, low + 1), high - 1)
        guess_cost = cost(guess)
        if guess_cost <= limit:
            low, low_cost, push = guess, guess_cost, max(1, 2 * push)
        else:
            high, high_cost, push = guess, guess_cost, min(-1, 2 * push)
    return low, low_cost
