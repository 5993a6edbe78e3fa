"""View policies: what is done to a training image to make a view of it."""

import dataclasses
import math

from divco_tf import fields
from divco_tf.data.views.augmentations import AUGMENTATIONS, get_augmentation
from divco_tf.data.views.operations import OWN, check_name
from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean


def _check_ranges(area: tuple[float, float], aspect: tuple[float, float], *, of: str) -> None:
    for name, (low, high), most in (("area", area, 1.0), ("aspect", aspect, math.inf)):
        if not 0 < low <= high <= most:
            raise InputError(
                f"The {name} of {of} is a range. Received: {(low, high)}; 0 < from <= to <= {most:g} would work."
            )


@dataclasses.dataclass(frozen=True)
class Erasing:
    """Random erasing (arXiv 1708.04896): with `probability`, a rectangle becomes 0 after normalisation.

    The draw is torchvision 0.7's: the area and the aspect are uniform, and the first of ten attempts that fits counts.
    """

    probability: float = 0.5
    area: tuple[float, float] = (0.0625, 0.1)  # share of the image, from ... to
    aspect: tuple[float, float] = (0.99, 1.0)  # height / width, from ... to

    def __post_init__(self) -> None:
        fields.check(self)
        if not 0 <= self.probability <= 1:
            raise InputError(f"A probability of erasing. Received: {self.probability}; it lies from 0 to 1.")
        _check_ranges(self.area, self.aspect, of="erasing")


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
    """A random part of the stored image, resized (bicubic, antialiased) to the views' size.

    The draw is torchvision's RandomResizedCrop: the area is uniform, the aspect log-uniform, and the first of ten
    attempts that fits counts; otherwise the centre.
    """

    area: tuple[float, float] = (0.1, 1.0)  # share of the image, from ... to
    aspect: tuple[float, float] = (3 / 4, 4 / 3)  # width / height, from ... to

    def __post_init__(self) -> None:
        fields.check(self)
        _check_ranges(self.area, self.aspect, of="crops")


@dataclasses.dataclass(frozen=True)
class ViewPolicy:
    """One view: a crop, a mirror image half the time, augmentations, normalisation, erasing; in this order.

    The crop is `resized_crop` of the stored image, or else one after zero padding by `pad`. An augmentation is named:
    a table of `augmentations.AUGMENTATIONS` ("auto_augment_cifar10"), RandAugment's configuration ("rand-m9-mstd0.5"),
    or an operation of the user's.
    """

    pad: int = 4  # pixels a side, black
    flip: bool = True  # left-right, with probability 1/2
    augment: tuple[str, ...] = ()
    erasing: Erasing | None = None
    resized_crop: ResizedCrop | None = None

    def __post_init__(self) -> None:
        if isinstance(self.augment, str):
            object.__setattr__(self, "augment", (self.augment,))
        fields.check(self)
        if self.pad < 0:
            raise InputError(f"A padding in pixels. Received: {self.pad}; 0 (no cropping) or more would work.")
        if self.pad and self.resized_crop:
            raise InputError(
                f"A view is cropped in one way. Received: pad={self.pad} and resized_crop; pad=0 would work."
            )
        for name in self.augment:
            get_augmentation(name)

    def check_size(self, height: int, width: int) -> None:
        """Refuses images (of these pixels) that the padding is too wide for.

        Raises:
          InputError: a crop could miss the image.
        """
        if self.pad > min(height, width):
            raise InputError(
                f"A crop could miss the image altogether. Received: pad={self.pad} for images of {height}x{width}; "
                f"a pad of {min(height, width)} or less would work."
            )


# What the paper's authors do to each dataset's images, and the same without AutoAugment. Digits read differently in a
# mirror; SVHN is mirrored all the same, as in the paper's experiments.
_CIFAR10 = ViewPolicy(erasing=Erasing(area=(0.125, 0.2), aspect=(0.99, 1.0)))
_CIFAR100 = ViewPolicy(erasing=Erasing(area=(0.0625, 0.1), aspect=(0.99, 1.0)))
_SVHN = ViewPolicy(erasing=Erasing(area=(0.125, 0.25), aspect=(0.9, 1.1)))
_IMAGENET = ViewPolicy(pad=0, resized_crop=ResizedCrop(), erasing=Erasing(area=(0.05, 0.12), aspect=(0.5, 1.5)))

POLICIES = {
    "none": ViewPolicy(pad=0, flip=False),
    "crop_flip": ViewPolicy(),
    "digits": ViewPolicy(pad=1, flip=False),
    "cifar10": dataclasses.replace(_CIFAR10, augment="auto_augment_cifar10"),
    "cifar100": dataclasses.replace(_CIFAR100, augment="auto_augment_cifar10"),
    "svhn": dataclasses.replace(_SVHN, augment="auto_augment_svhn"),
    "cifar10_no_autoaugment": _CIFAR10,
    "cifar100_no_autoaugment": _CIFAR100,
    "svhn_no_autoaugment": _SVHN,
    "imagenet": _IMAGENET,
    "imagenet_autoaugment": dataclasses.replace(_IMAGENET, augment="auto_augment_imagenet"),
    "imagenet_rand_m6": dataclasses.replace(_IMAGENET, augment="rand-m6-mstd0.5"),
    "imagenet_rand_m9": dataclasses.replace(_IMAGENET, augment="rand-m9-mstd0.5"),
    "resized_crop": ViewPolicy(pad=0, resized_crop=ResizedCrop()),
    "image_folder": ViewPolicy(pad=28),  # an eighth of 224, as 4 is of 32
}


_OURS = frozenset(POLICIES)


def get_policy(name: str) -> ViewPolicy:
    """The view policy called `name`; "cifar10+trivial_augment" adds augmentations to a policy, by name.

    Raises:
      InputError: nothing is called so.
    """
    base, *added = fields.checked(name, str, "name of a view policy").split("+")
    if base not in POLICIES:
        raise InputError(f"Unknown view policy. Received: {name}.{did_you_mean(base, POLICIES)}")
    if base not in _OURS:  # added to the table by the user
        others = {"an operation": OWN.has, "an augmentation": AUGMENTATIONS.has}
        check_name(base, "a view policy", separators="+, ", others=others)
    policy = POLICIES[base]
    return dataclasses.replace(policy, augment=(*policy.augment, *added)) if added else policy
