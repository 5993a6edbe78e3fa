"""Names of the operations that augmentation tables are made of, and the user's own."""

from collections.abc import Callable

import numpy as np

from divco_tf.errors import InputError
from divco_tf.registry import Registry

# Their order gives the kernels their codes (image_ops/augment.py).
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

Operation = Callable[[np.ndarray, int], np.ndarray]

OWN: Registry[Operation] = Registry("operation", entry_points="divco_tf.operations")


def register_operation(name: str) -> Callable[[Operation], Operation]:
    """Registers a function of one image and a random key as an operation of views.

    The function takes the image, uint8 [H, W, 3] RGB, and the view's key, an int of 63 bits to seed its random numbers
    with, and returns an image of the same shape and dtype; it may write into the one that it gets, and be a numba
    function. It is called from several threads at once, and what it returns may depend on nothing but its arguments.

    A view policy names it: `get_policy("cifar10+name")`, or `ViewPolicy(augment=("name",))`; a table too.

    Raises:
      InputError: the name is taken, or holds what separates names.
    """
    if not name or name in BUILT_IN or set(name) & set("+-, "):
        raise InputError(
            f"No name for an operation. Received: {name!r}; a name of its own, without plus, minus, comma and space, "
            "would work."
        )

    def register(function: Operation) -> Operation:
        OWN.add(name, function)
        return function

    return register
