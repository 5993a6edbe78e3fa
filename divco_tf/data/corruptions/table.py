"""The fifteen corruptions of CIFAR-10-C and ImageNet-C, and what their five severities mean.

Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR 2019
(arXiv 1903.12261). Constants are those of the programs that made the two data sets, hendrycks/robustness
(make_cifar_c.py and make_imagenet_c.py).
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from divco_tf.data.corruptions import blur, digital, noise, weather

SEVERITIES = (1, 2, 3, 4, 5)

Row = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Corruption:
    """A family of corruptions.

    Attributes:
      make: images uint8 [N, H, W, 3], keys uint64 [N] and constants -> grey levels [N, H, W, 3], any real type.
      names: of the constants.
      cifar: a row of constants a severity, for images of 32 pixels a side.
      imagenet: likewise, of 224.
      lengths: which constants are lengths in pixels, and so grow with the image.
    """

    make: Callable[..., np.ndarray]
    names: tuple[str, ...]
    cifar: tuple[Row, ...]
    imagenet: tuple[Row, ...]
    lengths: tuple[str, ...] = ()

    def constants(self, severity: int, side: int) -> dict[str, float]:
        """The constants of a severity, 1 to 5, for images whose shorter side has so many pixels.

        They are of the data set whose images are closer in size, by ratio; lengths are scaled from its size to theirs.
        """
        rows, published = (self.cifar, 32) if side * side < 32 * 224 else (self.imagenet, 224)
        constants = dict(zip(self.names, rows[severity - 1], strict=True))
        return constants | {name: constants[name] * side / published for name in self.lengths}


def _column(*values: float) -> tuple[Row, ...]:
    return tuple((value,) for value in values)


def _times(side: int, *rows: Row) -> tuple[Row, ...]:
    return tuple(tuple(side * share for share in row) for row in rows)


CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {
        "gaussian_noise": Corruption(
            noise.gaussian,
            ("std",),
            cifar=_column(0.04, 0.06, 0.08, 0.09, 0.10),
            imagenet=_column(0.08, 0.12, 0.18, 0.26, 0.38),
        ),
        "shot_noise": Corruption(
            noise.shot,
            ("photons",),
            cifar=_column(500, 250, 100, 75, 50),
            imagenet=_column(60, 25, 12, 5, 3),
        ),
        "impulse_noise": Corruption(
            noise.impulse,
            ("share",),
            cifar=_column(0.01, 0.02, 0.03, 0.05, 0.07),
            imagenet=_column(0.03, 0.06, 0.09, 0.17, 0.27),
        ),
        "defocus_blur": Corruption(
            blur.defocus,
            ("radius", "sigma"),
            cifar=((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
            imagenet=((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
            lengths=("radius", "sigma"),
        ),
        "glass_blur": Corruption(
            blur.glass,
            ("sigma", "reach", "rounds"),
            cifar=((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
            imagenet=((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
            lengths=("sigma", "reach"),
        ),
        "motion_blur": Corruption(
            blur.motion,
            ("radius", "sigma"),
            cifar=((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
            imagenet=((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
            lengths=("radius", "sigma"),
        ),
        "zoom_blur": Corruption(
            blur.zoom,
            ("stop", "step"),
            cifar=((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
            imagenet=((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        ),
        "snow": Corruption(
            weather.snow,
            ("mean", "std", "size", "threshold", "radius", "sigma", "share"),
            cifar=(
                (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
                (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
                (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
                (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
            ),
            imagenet=(
                (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
                (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
                (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
                (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
                (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
            ),
            lengths=("size", "radius", "sigma"),
        ),
        "frost": Corruption(  # the lengths are ours: the photographs were shown to CIFAR-10-C at a fifth of their size
            weather.frost,
            ("image", "ice", "length"),
            cifar=((1, 0.2, 1.5), (1, 0.3, 1.5), (0.9, 0.4, 1.5), (0.85, 0.4, 1.5), (0.75, 0.45, 1.5)),
            imagenet=((1, 0.4, 7.5), (0.8, 0.6, 7.5), (0.7, 0.7, 7.5), (0.65, 0.7, 7.5), (0.6, 0.75, 7.5)),
            lengths=("length",),
        ),
        "fog": Corruption(
            weather.fog,
            ("thickness", "decay"),
            cifar=((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
            imagenet=((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        ),
        "brightness": Corruption(
            digital.brightness,
            ("added",),
            cifar=_column(0.05, 0.1, 0.15, 0.2, 0.3),
            imagenet=_column(0.1, 0.2, 0.3, 0.4, 0.5),
        ),
        "contrast": Corruption(
            digital.contrast,
            ("factor",),
            cifar=_column(0.75, 0.5, 0.4, 0.3, 0.15),
            imagenet=_column(0.4, 0.3, 0.2, 0.1, 0.05),
        ),
        "elastic_transform": Corruption(
            digital.elastic,
            ("strength", "sigma", "jitter"),
            cifar=_times(32, (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
            imagenet=_times(  # 244 for images of 224 is the program's
                244, (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)
            ),
            lengths=("strength", "sigma", "jitter"),
        ),
        "pixelate": Corruption(
            digital.pixelate,
            ("scale",),
            cifar=_column(0.95, 0.9, 0.85, 0.75, 0.65),
            imagenet=_column(0.6, 0.5, 0.4, 0.3, 0.25),
        ),
        "jpeg_compression": Corruption(
            digital.jpeg,
            ("quality",),
            cifar=_column(80, 65, 58, 50, 40),
            imagenet=_column(25, 18, 15, 10, 7),
        ),
    }
)
"""By name, in the paper's order: noise, blur, weather, digital."""
