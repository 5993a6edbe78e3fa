"""Augmentations by name: the published ones, RandAugment's configurations, and the user's."""

import math
import re

from divco_tf import fields
from divco_tf.data.views.operations import OWN
from divco_tf.data.views.schema import Augmentation, Space, Step
from divco_tf.data.views.tables import PUBLISHED, RAND_AUGMENT, RAND_AUGMENT_INCREASING
from divco_tf.errors import InputError
from divco_tf.registry import Registry


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
for _name, _augmentation in PUBLISHED.items():
    AUGMENTATIONS.add(_name, _augmentation)
AUGMENTATIONS.add_parser(_RAND_SHAPE, _parse_rand)


def get_augmentation(name: str) -> Augmentation:
    """The augmentation that a view policy names; an operation of the user's by itself is always applied.

    Raises:
      InputError: neither an augmentation nor an operation is called so.
    """
    if not AUGMENTATIONS.has(name) and OWN.has(name):
        return Augmentation(Space(top=1, fill=(0, 0, 0), ranges={}), ((Step(name),),))
    return AUGMENTATIONS.get(name)
