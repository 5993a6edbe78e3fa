"""Registers the user's operations and augmentations, under names that nothing else has."""

from collections.abc import Callable

from divco_tf import fields
from divco_tf.data.views.augmentations import AUGMENTATIONS
from divco_tf.data.views.operations import OWN, Operation, check_name
from divco_tf.data.views.policies import POLICIES
from divco_tf.data.views.schema import Augmentation
from divco_tf.errors import InputError


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
    others = {"an augmentation": AUGMENTATIONS.has, "a view policy": POLICIES.__contains__}
    check_name(name, "an operation", separators="+-, ", others=others)

    def register(function: Operation) -> Operation:
        if not callable(function):
            raise InputError(f"An operation is a function. Received: {function!r} as {name}; a function would work.")
        OWN.add(name, function)
        return function

    return register


def register_augmentation(name: str, augmentation: Augmentation) -> Augmentation:
    """Registers an augmentation, which view policies may then name, and returns it.

    Raises:
      InputError: that is no augmentation, or the name is taken: by an augmentation, an operation or a policy.
    """
    others = {"an operation": OWN.has, "a view policy": POLICIES.__contains__}
    check_name(name, "an augmentation", separators="+, ", others=others)
    fields.checked(augmentation, Augmentation, name)
    if name.startswith("rand-"):
        raise InputError(f"RandAugment's configurations begin so. Received: {name}; another name would work.")
    AUGMENTATIONS.add(name, augmentation)
    return augmentation
