"""The operations that augmentations are made of: names and limits of the built-in ones, and the user's own."""

from collections.abc import Callable, Mapping

import numpy as np

from divco_tf.errors import InputError
from divco_tf.registry import Registry

# Their order gives the kernels their codes (kernels/augment.py).
BUILT_IN = (
    "identity",
    "shear_x",  # slope
    "shear_y",
    "translate_x",  # share of the image's side
    "translate_y",
    "translate_x_pixels",
    "translate_y_pixels",
    "rotate",  # degrees, counter-clockwise
    "color",  # factor of Pillow's ImageEnhance; 1 changes nothing
    "contrast",
    "brightness",
    "sharpness",
    "posterize",  # bits that are kept
    "solarize",  # the level from which on pixels are inverted
    "solarize_add",  # what is added to levels below 128
    "auto_contrast",
    "equalize",
    "invert",
)

# What an argument lies within: beyond, views would be black, of wrapped around levels, or not of the image at all.
LIMITS = {
    **dict.fromkeys(("shear_x", "shear_y", "translate_x", "translate_y"), (-10, 10)),
    **dict.fromkeys(("translate_x_pixels", "translate_y_pixels"), (-(2**20), 2**20)),
    "rotate": (-3600, 3600),
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), (0, 100)),
    "posterize": (0, 8),
    "solarize": (0, 256),
    "solarize_add": (0, 255),
}

Operation = Callable[[np.ndarray, int], np.ndarray]

OWN: Registry[Operation] = Registry("operation", entry_points="divco_tf.operations")


def check_name(name: str, noun: str, *, separators: str, others: Mapping[str, Callable[[str], bool]]) -> None:
    """Refuses a name that stands for something else where policies are named.

    Args:
      name: what is asked for.
      noun: for what, "an operation".
      separators: that it may not hold.
      others: whether something is called so, by what that would be: "an augmentation".

    Raises:
      InputError: the name is empty, holds a separator, or is that of a built-in operation or of another kind of thing.
    """
    if not isinstance(name, str) or not name or name in BUILT_IN or set(name) & set(separators):
        raise InputError(
            f"No name for {noun}. Received: {name!r}; a name of its own, without any of {separators!r}, would work."
        )
    for other, taken in others.items():
        if taken(name):
            raise InputError(
                f"{other.capitalize()} has that name. Received: {name}; another name for {noun} would work."
            )
