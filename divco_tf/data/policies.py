"""What is done to a training image to make a view of it: tables."""

import dataclasses

from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean


@dataclasses.dataclass(frozen=True)
class Erasing:
    """Random erasing (arXiv 1708.04896): with `probability`, a rectangle becomes 0 after normalisation.

    The draw is torchvision 0.7's: the area and the aspect are uniform, and the first of ten attempts that fits counts.
    """

    probability: float = 0.5
    area: tuple[float, float] = (0.0625, 0.1)  # share of the image, from ... to
    aspect: tuple[float, float] = (0.99, 1.0)  # height / width, from ... to

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InputError(f"A probability of erasing. Received: {self.probability}; it lies from 0 to 1.")
        for name, (low, high), most in (("area", self.area, 1.0), ("aspect", self.aspect, float("inf"))):
            if not 0 < low <= high <= most:
                raise InputError(
                    f"The {name} of erasing is a range. Received: {(low, high)}; 0 < from <= to <= {most:g} would work."
                )


@dataclasses.dataclass(frozen=True)
class ViewPolicy:
    """One view: a crop after zero padding, a mirror image half the time, normalisation, erasing."""

    pad: int = 4  # pixels a side, black
    flip: bool = True  # left-right, with probability 1/2
    erasing: Erasing | None = None

    def __post_init__(self) -> None:
        if self.pad < 0:
            raise InputError(f"A padding in pixels. Received: {self.pad}; 0 (no cropping) or more would work.")

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


# The ranges of erasing are those the paper's authors use for each dataset, here without their AutoAugment.
# Digits read differently in a mirror; SVHN is mirrored all the same, as in the paper's experiments.
POLICIES = {
    "none": ViewPolicy(pad=0, flip=False),
    "crop_flip": ViewPolicy(),
    "digits": ViewPolicy(pad=1, flip=False),
    "cifar10_no_autoaugment": ViewPolicy(erasing=Erasing(area=(0.125, 0.2), aspect=(0.99, 1.0))),
    "cifar100_no_autoaugment": ViewPolicy(erasing=Erasing(area=(0.0625, 0.1), aspect=(0.99, 1.0))),
    "svhn_no_autoaugment": ViewPolicy(erasing=Erasing(area=(0.125, 0.25), aspect=(0.9, 1.1))),
    "image_folder": ViewPolicy(pad=28),  # an eighth of 224, as 4 is of 32
}

# Policies of the paper's rows whose operations are not there yet: what they need, and the closest policy that is there.
MISSING = {
    "cifar10": ("AutoAugment", "cifar10_no_autoaugment"),
    "cifar100": ("AutoAugment", "cifar100_no_autoaugment"),
    "svhn": ("AutoAugment", "svhn_no_autoaugment"),
    "imagenet_autoaugment": ("random resized crops and AutoAugment", "image_folder"),
    "imagenet_rand_m6": ("random resized crops and RandAugment", "image_folder"),
    "imagenet_rand_m9": ("random resized crops and RandAugment", "image_folder"),
}


def get_policy(name: str) -> ViewPolicy:
    """The view policy called `name`.

    Raises:
      InputError: nothing is called so, or a policy of the paper whose operations are not there yet.
    """
    if name in MISSING:
        needs, closest = MISSING[name]
        raise InputError(
            f"The view policy {name} needs {needs}, which is not there yet. "
            f'Received: {name}; views="{closest}" works now, and trains otherwise than the paper did.'
        )
    if name not in POLICIES:
        raise InputError(f"Unknown view policy. Received: {name}.{did_you_mean(name, POLICIES)}")
    return POLICIES[name]
