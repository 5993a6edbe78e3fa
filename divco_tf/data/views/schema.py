"""What an augmentation is: sub-policies of steps, and a space that turns a step's level into an argument.

An augmentation draws one of its sub-policies, uniformly, as often as it says. A sub-policy is a row of steps, each with
a probability and a level.
"""

import dataclasses
import math
from collections.abc import Mapping

from divco_tf import fields
from divco_tf.data.views.operations import BUILT_IN, LIMITS, OWN
from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean

RESAMPLINGS = ("nearest", "bilinear", "bicubic")
ROUNDINGS = ("none", "down", "up", "nearest")


@dataclasses.dataclass(frozen=True)
class Range:
    """What an operation's argument is by level: in proportion, from `low` at level 0 to `high` at the space's top.

    Raises:
      InputError: no such rounding or resampling, or no number.
    """

    low: float = 0.0
    high: float = 0.0
    signed: bool = False  # negated half of the time
    offset: float = 0.0  # added after the sign
    rounding: str = "none"  # before the sign: "down", "up", or to the "nearest", halves to even
    resampling: tuple[str, ...] = ("nearest",)  # one of these is drawn each time

    def __post_init__(self) -> None:
        fields.check(self)
        if self.rounding not in ROUNDINGS:
            raise InputError(f"Unknown rounding. Received: {self.rounding}.{did_you_mean(self.rounding, ROUNDINGS)}")
        unknown = [name for name in self.resampling if name not in RESAMPLINGS]
        if unknown or not self.resampling:
            raise InputError(
                f"A range has resamplings. Received: {self.resampling}; one or more of {', '.join(RESAMPLINGS)} would "
                "work."
            )

    def arguments(self) -> tuple[float, float]:
        """The smallest and the largest argument."""
        round_off = {"none": float, "down": math.floor, "up": math.ceil, "nearest": round}[self.rounding]
        ends = [round_off(self.low), round_off(self.high)]
        ends += [-end for end in ends if self.signed]
        return self.offset + min(ends), self.offset + max(ends)


@dataclasses.dataclass(frozen=True)
class Space:
    """The operations of an augmentation.

    Raises:
      InputError: there are no levels, the colour is none, or a range is not of a built-in operation or not within what
        that takes.
    """

    top: int  # the highest level
    fill: tuple[int, int, int]  # RGB of what comes in from outside the image
    ranges: Mapping[str, Range]

    def __post_init__(self) -> None:
        fields.check(self)
        if self.top < 1 or not all(0 <= level <= 255 for level in self.fill):
            raise InputError(
                f"A space has levels from 0 to a top, and a colour. Received: top={self.top}, fill={self.fill}; 1 or "
                "more, and three numbers from 0 to 255, would work."
            )
        for name, span in self.ranges.items():
            fields.checked(span, Range, f"Space.ranges[{name!r}]")
            if name not in BUILT_IN:
                raise InputError(
                    f"A range is of a built-in operation: one of your own takes no argument. Received: {name!r}."
                    f"{did_you_mean(name, BUILT_IN)}"
                )
            (low, high), (least, most) = span.arguments(), LIMITS.get(name, (-math.inf, math.inf))
            if not least <= low <= high <= most:
                raise InputError(
                    f"The range of {name} goes too far. Received: {low:g} to {high:g}; within {least:g} to {most:g} "
                    "would work."
                )


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation of a sub-policy."""

    operation: str
    probability: float = 1.0
    level: float | None = None  # None: each whole level from 0 to the top is as likely
    std: float = 0.0  # of a Gaussian around the level, cut off at 0 and at the top; inf: uniform from 0 to the level

    def __post_init__(self) -> None:
        fields.check(self if self.std != math.inf else dataclasses.replace(self, std=0.0))


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """A policy of operations.

    Raises:
      InputError: a step's operation is not of the space (nor registered), or a number is out of its range.
    """

    space: Space
    sub_policies: tuple[tuple[Step, ...], ...]
    draws: int = 1  # how often a sub-policy is drawn, with replacement

    def __post_init__(self) -> None:
        fields.check(self)
        if self.draws < 1 or not self.sub_policies:
            raise InputError(
                f"An augmentation draws sub-policies. Received: draws={self.draws}, {len(self.sub_policies)} "
                "sub-policies; 1 or more of both would work."
            )
        for step in (step for sub_policy in self.sub_policies for step in sub_policy):
            self._check_step(step)

    def _check_step(self, step: Step) -> None:
        if step.operation in BUILT_IN:
            if step.operation not in self.space.ranges:
                raise InputError(
                    f"An operation has no range. Received: {step.operation}; the space has "
                    f"{', '.join(self.space.ranges)}."
                )
        else:
            OWN.get(step.operation)
        level = 0.0 if step.level is None else step.level
        if not (0 <= step.probability <= 1 and 0 <= level <= self.space.top and step.std >= 0):
            raise InputError(
                f"A step is out of range. Received: {step}; a probability from 0 to 1, a level from 0 to "
                f"{self.space.top} and std >= 0 would work."
            )
