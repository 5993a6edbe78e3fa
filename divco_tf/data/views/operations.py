"""Names of the operations that augmentation tables are made of, and the user's own."""

from collections.abc import Callable

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


def register_operation(name: str) -> Callable[[Operation], Operation]:
    """Registers a function of one image and a random key as an operation of views.

    The function takes the image, uint8 [H, W, 3] RGB, and the view's key, an int of 63 bits to seed its random numbers
    with, and returns an image of the same shape and dtype; it may write into the one that it gets, and be a numba
    function. It is called from several threads at once, and what it returns may depend on nothing but its arguments.

    A view policy names it: `get_policy("cifar10+name")`, or `ViewPolicy(augment=("name",))`; a table too.

    Raises:
      InputError: that is no function, or the name is taken, by an operation, an augmentation or a policy, or holds what
        separates names.
    """
    check_name(name, "an operation", separators="+-, ")

    def register(function: Operation) -> Operation:
        if not callable(function):
            raise InputError(f"An operation is a function. Received: {function!r} as {name}; a function would work.")
        OWN.add(name, function)
        return function

    return register


def check_name(name: str, noun: str, *, separators: str) -> None:
    """Refuses a name for `noun` ("an operation") that stands for something else where policies are named.

    Raises:
      InputError: the name is empty, holds a separator, or is that of a built-in operation or of another kind of thing.
    """
    from divco_tf.data.views.augmentations import AUGMENTATIONS  # both import this module
    from divco_tf.data.views.policies import POLICIES

    if not isinstance(name, str) or not name or name in BUILT_IN or set(name) & set(separators):
        raise InputError(
            f"No name for {noun}. Received: {name!r}; a name of its own, without any of {separators!r}, would work."
        )
    kinds = {"an operation": OWN.has, "an augmentation": AUGMENTATIONS.has, "a view policy": POLICIES.__contains__}
    for kind, taken in kinds.items():
        if kind != noun and taken(name):
            raise InputError(
                f"{kind.capitalize()} has that name. Received: {name}; another name for {noun} would work."
            )
