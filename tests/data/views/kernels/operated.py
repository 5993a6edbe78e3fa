"""Operations by kernel and by Pillow, and images to try them on."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from divco_tf.data.views.kernels import augment
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.operations import BUILT_IN
from divco_tf.data.views.policies import ViewPolicy
from divco_tf.data.views.schema import RESAMPLINGS, Augmentation, Range
from divco_tf.tools.laboratory.pillow_views import apply

OPERATION = {  # by the name in augmentation.json, in lower case
    **{name: name for name in ("color", "contrast", "brightness", "sharpness", "posterize", "solarize")},
    **{name: name for name in ("invert", "equalize", "rotate")},
    "autocontrast": "auto_contrast",
    "solarizeadd": "solarize_add",
    **{f"shear{axis}": f"shear_{axis}" for axis in "xy"},
    **{f"translate{axis}{kind}": f"translate_{axis}" for axis in "xy" for kind in ("", "rel")},
}


def by_kernel(
    image: np.ndarray, operation: str, argument: float, *, resampling: str = "nearest", fill: Sequence[int] = (0, 0, 0)
) -> np.ndarray:
    """What the kernel makes of an image, uint8 [H, W, 3]."""
    record = np.array([BUILT_IN.index(operation), argument, RESAMPLINGS.index(resampling), *fill], np.float64)
    view = np.full(image.shape, 77, np.uint8)  # a pixel that is not written shows
    augment.apply_step(record, image.copy(), view, np.ones((3, 256), np.int64), np.ones((3, 256), np.uint8))
    return view


def by_pillow(image: np.ndarray, operation: str, argument: float, **options) -> np.ndarray:
    """What Pillow makes of it."""
    return np.asarray(apply(Image.fromarray(image), operation, argument, **options))


def differences(image: np.ndarray, operation: str, argument: float, **options) -> np.ndarray:
    """Grey levels between the two, int [H, W, 3]."""
    kernel, pillow = (by(image, operation, argument, **options) for by in (by_kernel, by_pillow))
    return np.abs(kernel.astype(int) - pillow)


def plain_argument(span: Range, top: int, level: float, *, negative: bool = False) -> float:
    """What `Range` says."""
    round_off = {"none": float, "down": np.floor, "up": np.ceil, "nearest": np.rint}[span.rounding]
    argument = round_off(span.low + (span.high - span.low) * level / top)
    return span.offset + (-argument if span.signed and negative else argument)


def table_of(augmentation: Augmentation) -> np.ndarray:
    """An augmentation's table, as the kernels have it."""
    table, _ = ViewMaker(ViewPolicy(), mean=(0.5,) * 3, std=(0.2,) * 3)._encoded(augmentation)
    return table


@st.composite
def images(draw, *, largest: int = 40) -> np.ndarray:
    """Of every size from one pixel on, square or not: noise, one level, black and white, two levels, smooth."""
    height = draw(st.integers(1, largest))
    width = draw(st.sampled_from([1, 2, 3, height]) | st.integers(1, largest))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "constant", "black and white", "two levels", "dark", "smooth"]))
    shape = (height, width, 3)
    if kind == "constant":
        return np.full(shape, draw(st.integers(0, 255)), np.uint8)
    if kind == "black and white":
        return np.repeat(generator.integers(0, 2, (height, width, 1), np.uint8) * 255, 3, axis=2)
    if kind == "two levels":
        return generator.choice(generator.integers(0, 256, 2, np.uint8), shape)
    if kind == "dark":
        return generator.integers(0, 30, shape, np.uint8)
    if kind == "smooth":
        rows, columns = np.mgrid[:height, :width]
        return np.stack([255 * rows // height, 255 * columns // width, 5 * (rows + columns)], axis=-1).astype(np.uint8)
    return generator.integers(0, 256, shape, np.uint8)
