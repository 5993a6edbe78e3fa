"""AutoAugment, RandAugment and TrivialAugment as data: which operations, how often, at which levels.

An augmentation draws one of its sub-policies, uniformly, as often as it says. A sub-policy is a row of steps, each with
a probability and a level, which a space turns into the operation's argument.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

from divco_tf import fields
from divco_tf.data.views.operations import BUILT_IN, LIMITS, OWN, check_name
from divco_tf.errors import InputError
from divco_tf.registry import Registry, did_you_mean

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


_ENHANCE = ("color", "contrast", "brightness", "sharpness")
_PLAIN = {name: Range() for name in ("auto_contrast", "equalize", "invert")}

# AutoAugment (arXiv 1805.09501, table 6) as the paper's authors run it: moves reach 150/331 of the side, as in the
# original's ImageNet; rotations are never negative; only shears are bicubic.
_MOVE = 150 / 331
AUTO_AUGMENT = Space(
    top=9,
    fill=(128, 128, 128),
    ranges={
        "shear_x": Range(0, 0.3, signed=True, resampling=("bicubic",)),
        "shear_y": Range(0, 0.3, signed=True, resampling=("bicubic",)),
        "translate_x": Range(0, _MOVE, signed=True),
        "translate_y": Range(0, _MOVE, signed=True),
        "rotate": Range(0, 30),
        **{name: Range(0, 0.9, signed=True, offset=1) for name in _ENHANCE},
        "posterize": Range(8, 4, rounding="nearest"),
        "solarize": Range(256, 0),
        **_PLAIN,
    },
)

# The sub-policies as the paper prints them: (operation, probability, magnitude) twice.
_CIFAR10 = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("auto_contrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("auto_contrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("auto_contrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("auto_contrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("auto_contrast", 0.9, 1)),
)

_SVHN = (
    (("shear_x", 0.9, 4), ("invert", 0.2, 3)),
    (("shear_y", 0.9, 8), ("invert", 0.7, 5)),
    (("equalize", 0.6, 5), ("solarize", 0.6, 6)),
    (("invert", 0.9, 3), ("equalize", 0.6, 3)),
    (("equalize", 0.6, 1), ("rotate", 0.9, 3)),
    (("shear_x", 0.9, 4), ("auto_contrast", 0.8, 3)),
    (("shear_y", 0.9, 8), ("invert", 0.4, 5)),
    (("shear_y", 0.9, 5), ("solarize", 0.2, 6)),
    (("invert", 0.9, 6), ("auto_contrast", 0.8, 1)),
    (("equalize", 0.6, 3), ("rotate", 0.9, 3)),
    (("shear_x", 0.9, 4), ("solarize", 0.3, 3)),
    (("shear_y", 0.8, 8), ("invert", 0.7, 4)),
    (("equalize", 0.9, 5), ("translate_y", 0.6, 6)),
    (("invert", 0.9, 4), ("equalize", 0.6, 7)),
    (("contrast", 0.3, 3), ("rotate", 0.8, 4)),
    (("invert", 0.8, 5), ("translate_y", 0.0, 2)),
    (("shear_y", 0.7, 6), ("solarize", 0.4, 8)),
    (("invert", 0.6, 4), ("rotate", 0.8, 4)),
    (("shear_y", 0.3, 7), ("translate_x", 0.9, 3)),
    (("shear_x", 0.1, 6), ("invert", 0.6, 5)),
    (("solarize", 0.7, 2), ("translate_y", 0.6, 7)),
    (("shear_y", 0.8, 4), ("invert", 0.8, 8)),
    (("shear_x", 0.7, 9), ("translate_y", 0.8, 3)),
    (("shear_y", 0.8, 5), ("auto_contrast", 0.7, 3)),
    (("shear_x", 0.7, 2), ("invert", 0.1, 5)),
)

_IMAGENET = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)


def _table(rows: tuple[tuple[tuple[str, float, int], ...], ...]) -> Augmentation:
    return Augmentation(AUTO_AUGMENT, tuple(tuple(Step(*step) for step in row) for row in rows))


# RandAugment (arXiv 1909.13719) as timm has it: levels from 0 to 10. Where a higher level is no stronger operation
# (enhancements below 5, posterize, solarize), the "increasing" variants mend it.
_EITHER = ("bilinear", "bicubic")
RAND_AUGMENT = Space(
    top=10,
    fill=(124, 116, 104),  # ImageNet's mean colour
    ranges={
        **_PLAIN,
        "rotate": Range(0, 30, signed=True, resampling=_EITHER),
        "posterize": Range(0, 4, rounding="down"),
        "solarize": Range(0, 256, rounding="down"),
        "solarize_add": Range(0, 110, rounding="down"),
        **{name: Range(0.1, 1.9) for name in _ENHANCE},
        "shear_x": Range(0, 0.3, signed=True, resampling=_EITHER),
        "shear_y": Range(0, 0.3, signed=True, resampling=_EITHER),
        "translate_x": Range(0, 0.45, signed=True, resampling=_EITHER),
        "translate_y": Range(0, 0.45, signed=True, resampling=_EITHER),
    },
)
RAND_AUGMENT_INCREASING = dataclasses.replace(
    RAND_AUGMENT,
    ranges={
        **RAND_AUGMENT.ranges,
        "posterize": Range(4, 0, rounding="up"),
        "solarize": Range(256, 0, rounding="up"),
        **{name: Range(0, 0.9, signed=True, offset=1) for name in _ENHANCE},
    },
)

# TrivialAugment (arXiv 2103.10158), the wide space with 31 levels and torchvision's ranges.
TRIVIAL_AUGMENT = Space(
    top=30,
    fill=(0, 0, 0),
    ranges={
        "identity": Range(),
        "shear_x": Range(0, 0.99, signed=True),
        "shear_y": Range(0, 0.99, signed=True),
        "translate_x_pixels": Range(0, 32, rounding="down", signed=True),
        "translate_y_pixels": Range(0, 32, rounding="down", signed=True),
        "rotate": Range(0, 135, signed=True),
        **{name: Range(0, 0.99, signed=True, offset=1) for name in _ENHANCE},
        "posterize": Range(8, 2, rounding="nearest"),
        "solarize": Range(255, 0),
        "auto_contrast": Range(),
        "equalize": Range(),
    },
)


def rand_augment(magnitude: float, *, std: float = 0.0, draws: int = 2, increasing: bool = False) -> Augmentation:
    """RandAugment: each of `draws` operations is applied with probability 1/2, at a level around `magnitude`.

    Args:
      magnitude: 0 to 10.
      std: of the Gaussian around it, drawn anew for each operation; inf draws uniformly from 0 to `magnitude`.
      draws: the number of operations.
      increasing: a higher level is a stronger operation throughout.

    Raises:
      InputError: a number is out of its range.
    """
    space = RAND_AUGMENT_INCREASING if increasing else RAND_AUGMENT
    if not 0 <= fields.checked(magnitude, float, "magnitude") <= space.top:
        raise InputError(f"RandAugment's magnitude lies from 0 to {space.top}. Received: {magnitude:g}; 9 would work.")
    return Augmentation(space, tuple((Step(name, 0.5, magnitude, std),) for name in space.ranges), draws=draws)


_RAND_SHAPE = "rand-m<magnitude>[-mstd<std>][-n<draws>][-inc1]"
_RAND_KEY = re.compile(r"(mstd|inc|m|n)(\d+(?:\.\d+)?)")


def _parse_rand(name: str) -> Augmentation | None:
    """timm's configuration string; a std above 100 stands for an infinite one there."""
    head, *parts = name.split("-")
    found = [_RAND_KEY.fullmatch(part) for part in parts]
    if head != "rand" or not all(found):
        return None
    keys = {match[1]: float(match[2]) for match in found if match}
    if "m" not in keys or len(keys) < len(parts) or not keys.get("n", 2.0).is_integer():
        return None
    std = keys.get("mstd", 0.0)
    return rand_augment(
        keys["m"],
        std=math.inf if std > 100 else std,
        draws=int(keys.get("n", 2)),
        increasing=bool(keys.get("inc", 0)),
    )


AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation", entry_points="divco_tf.augmentations")
for _name, _rows in (("cifar10", _CIFAR10), ("svhn", _SVHN), ("imagenet", _IMAGENET)):
    AUGMENTATIONS.add(f"auto_augment_{_name}", _table(_rows))
AUGMENTATIONS.add("trivial_augment", Augmentation(TRIVIAL_AUGMENT, tuple((Step(n),) for n in TRIVIAL_AUGMENT.ranges)))
AUGMENTATIONS.add_parser(_RAND_SHAPE, _parse_rand)


def register_augmentation(name: str, augmentation: Augmentation) -> Augmentation:
    """Registers an augmentation, which view policies may then name, and returns it.

    Raises:
      InputError: that is no augmentation, or the name is taken: by an augmentation, an operation or a policy.
    """
    check_name(name, "an augmentation", separators="+, ")
    fields.checked(augmentation, Augmentation, name)
    if name.startswith("rand-"):
        raise InputError(f"RandAugment's configurations begin so. Received: {name}; another name would work.")
    AUGMENTATIONS.add(name, augmentation)
    return augmentation


def get_augmentation(name: str) -> Augmentation:
    """The augmentation that a view policy names; an operation of the user's by itself is always applied.

    Raises:
      InputError: neither an augmentation nor an operation is called so.
    """
    if not AUGMENTATIONS.has(name) and OWN.has(name):
        return Augmentation(Space(top=1, fill=(0, 0, 0), ranges={}), ((Step(name),),))
    return AUGMENTATIONS.get(name)
