"""Views in Pillow and numpy, from the same tables: what the kernels are timed beside, and tested against."""

import functools
import math
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from divco_tf.data.views.augmentations import get_augmentation
from divco_tf.data.views.policies import ResizedCrop, ViewPolicy
from divco_tf.data.views.schema import Range, Space, Step

_ENHANCERS = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}
_ROUNDINGS = {"none": float, "down": math.floor, "up": math.ceil, "nearest": round}


def apply(
    image: Image.Image, operation: str, argument: float, *, resampling: str = "nearest", fill: Sequence[int] = (0, 0, 0)
) -> Image.Image:
    """One of the built-in operations, on an RGB image."""
    match operation:
        case "identity":
            return image
        case "color" | "contrast" | "brightness" | "sharpness":
            return _ENHANCERS[operation](image).enhance(argument)
        case "posterize":  # ImageOps refuses 0 bits
            return image.point([level & -(1 << (8 - int(argument))) for level in range(256)] * 3)
        case "solarize":
            return ImageOps.solarize(image, argument)
        case "solarize_add":
            return image.point([min(level + int(argument), 255) if level < 128 else level for level in range(256)] * 3)
        case "auto_contrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "invert":
            return ImageOps.invert(image)
    resample = Image.Resampling[resampling.upper()]
    if operation == "rotate":
        return image.rotate(argument, resample, fillcolor=tuple(fill))
    matrix = {
        "shear_x": (1, argument, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, argument, 1, 0),
        "translate_x": (1, 0, argument * image.width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, argument * image.height),
        "translate_x_pixels": (1, 0, argument, 0, 1, 0),
        "translate_y_pixels": (1, 0, 0, 0, 1, argument),
    }[operation]
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=tuple(fill))


class PillowViews:
    """Makes views as a policy of built-in operations says.

    Args:
      policy: what is drawn.
      mean: of RGB in 0..1.
      std: likewise.
      image_size: pixels a side, of resized crops.
    """

    def __init__(
        self,
        policy: ViewPolicy,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        image_size: int | None = None,
    ) -> None:
        self._policy, self._size = policy, image_size
        self._augmentations = [get_augmentation(name) for name in policy.augment]
        self._mean, self._std = np.array(mean), np.array(std)
        self._rows = functools.cache(self._make_rows)

    def __call__(self, image: Image.Image, generator: random.Random) -> np.ndarray:
        """A view of an RGB image, float32 [H, W, 3], by draws from `generator`."""
        image = self._cropped(image, generator)
        for augmentation in self._augmentations:
            for _ in range(augmentation.draws):
                for step in generator.choice(augmentation.sub_policies):
                    if generator.random() < step.probability:
                        image = _drawn(image, step, augmentation.space, generator)
        scale, shift = self._rows(image.width)
        view = np.asarray(image).reshape(image.height, -1) * scale
        view += shift
        view = view.reshape(image.height, image.width, 3)
        self._erase(view, generator)
        return view

    def _make_rows(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows as long as the image's: numpy is 3 times as fast at them as at pixels of three."""
        rows = (np.tile(row, width) for row in (1 / (255 * self._std), -self._mean / self._std))
        scale, shift = (row.astype(np.float32) for row in rows)
        return scale, shift

    def _cropped(self, image: Image.Image, generator: random.Random) -> Image.Image:
        pad = self._policy.pad
        if self._policy.resized_crop is not None:
            box = _box(image, self._policy.resized_crop, generator)
            image = image.crop(box).resize((self._size, self._size), Image.Resampling.BICUBIC)
        if pad:
            left, top = (generator.randint(-pad, pad) for _ in range(2))
            image = image.crop((left, top, left + image.width, top + image.height))  # black outside
        if self._policy.flip and generator.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image

    def _erase(self, view: np.ndarray, generator: random.Random) -> None:
        erasing = self._policy.erasing
        if erasing is None or generator.random() >= erasing.probability:
            return
        height, width, _ = view.shape
        for _ in range(10):
            area = height * width * generator.uniform(*erasing.area)
            aspect = generator.uniform(*erasing.aspect)
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                top, left = generator.randint(0, height - h), generator.randint(0, width - w)
                view[top : top + h, left : left + w] = 0
                return


def _box(image: Image.Image, crop: ResizedCrop, generator: random.Random) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random part, as torchvision draws it; the whole where ten attempts fail."""
    for _ in range(10):
        area = image.width * image.height * generator.uniform(*crop.area)
        aspect = math.exp(generator.uniform(*map(math.log, crop.aspect)))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= image.width and 0 < height <= image.height:
            left, top = generator.randint(0, image.width - width), generator.randint(0, image.height - height)
            return left, top, left + width, top + height
    return 0, 0, image.width, image.height


def _drawn(image: Image.Image, step: Step, space: Space, generator: random.Random) -> Image.Image:
    span = space.ranges[step.operation]
    argument = _argument(step, span, space.top, generator)
    return apply(image, step.operation, argument, resampling=generator.choice(span.resampling), fill=space.fill)


def _argument(step: Step, span: Range, top: int, generator: random.Random) -> float:
    level = generator.randint(0, top) if step.level is None else step.level
    if step.std:
        level = min(max(generator.gauss(level, step.std), 0), top)
    argument = _ROUNDINGS[span.rounding](span.low + (span.high - span.low) * level / top)
    if span.signed and generator.random() < 0.5:
        argument = -argument
    return span.offset + argument
