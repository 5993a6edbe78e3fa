"""The published augmentations: AutoAugment, RandAugment and TrivialAugment."""

import dataclasses

from divco_tf.data.views.schema import Augmentation, Range, Space, Step

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

PUBLISHED = {
    **{
        f"auto_augment_{name}": Augmentation(AUTO_AUGMENT, tuple(tuple(Step(*step) for step in row) for row in rows))
        for name, rows in (("cifar10", _CIFAR10), ("svhn", _SVHN), ("imagenet", _IMAGENET))
    },
    "trivial_augment": Augmentation(TRIVIAL_AUGMENT, tuple((Step(name),) for name in TRIVIAL_AUGMENT.ranges)),
}
