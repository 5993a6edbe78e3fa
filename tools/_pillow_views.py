"""The same views in Pillow and numpy, from the same tables: what kernels are tested against and timed beside."""

import math
import random

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from divco_tf.data.augmentations import Augmentation, Range, Space, Step, get_augmentation
from divco_tf.data.policies import Erasing, ResizedCrop, ViewPolicy

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_ENHANCE = {
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "brightness": ImageEnhance.Brightness,
    "sharpness": ImageEnhance.Sharpness,
}
_ROUNDING = {"none": float, "down": math.floor, "up": math.ceil, "nearest": round}


def apply(
    operation: str,
    image: Image.Image,
    argument: float,
    *,
    resampling: str = "nearest",
    fill: tuple[int, int, int] = (0, 0, 0),
) -> Image.Image:
    """One built-in operation of `operations.BUILT_IN`."""
    if operation == "identity":
        return image
    if operation in _ENHANCE:
        return _ENHANCE[operation](image).enhance(argument)
    if operation == "rotate":
        return image.rotate(argument, RESAMPLING[resampling], fillcolor=fill)
    if operation in ("posterize", "solarize"):
        return getattr(ImageOps, operation)(image, int(argument) if operation == "posterize" else argument)
    if operation == "solarize_add":
        return image.point([min(255, level + int(argument)) if level < 128 else level for level in range(256)] * 3)
    if operation == "auto_contrast":
        return ImageOps.autocontrast(image)
    if operation in ("equalize", "invert"):
        return getattr(ImageOps, operation)(image)
    matrix = {
        "shear_x": (1, argument, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, argument, 1, 0),
        "translate_x": (1, 0, argument * image.width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, argument * image.height),
        "translate_x_pixels": (1, 0, argument, 0, 1, 0),
        "translate_y_pixels": (1, 0, 0, 0, 1, argument),
    }[operation]
    return image.transform(image.size, Image.Transform.AFFINE, matrix, RESAMPLING[resampling], fillcolor=fill)


def argument_of(span: Range, level: float, top: int, *, negative: bool) -> float:
    """What an operation gets at a level."""
    argument = _ROUNDING[span.rounding](span.low + (span.high - span.low) * level / top)
    return span.offset + (-argument if span.signed and negative else argument)


class PillowViews:
    """Makes a view of a Pillow image, as `views.ViewMaker` does of an array; it draws from Python's generator."""

    def __init__(
        self,
        policy: ViewPolicy,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        image_size: int | None = None,
        seed: int = 0,
    ) -> None:
        self.policy, self._size = policy, image_size
        self._scale = (1 / (255 * np.asarray(std))).astype(np.float32)
        self._shift = (-np.asarray(mean) / np.asarray(std)).astype(np.float32)
        self._augmentations = [get_augmentation(name) for name in policy.augment]
        self._random = random.Random(seed)

    def __call__(self, image: Image.Image) -> np.ndarray:
        """The view of an RGB image: float32 [H, W, 3]."""
        image = self._cropped(image)
        if self.policy.flip and self._random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        for augmentation in self._augmentations:
            image = self._augmented(image, augmentation)
        view = np.asarray(image, np.float32) * self._scale + self._shift
        if self.policy.erasing is not None:
            self._erase(view, self.policy.erasing)
        return view

    def _cropped(self, image: Image.Image) -> Image.Image:
        if self.policy.resized_crop is not None:
            left, top, width, height = self._box(image, self.policy.resized_crop)
            crop = image.crop((left, top, left + width, top + height))
            return crop.resize((self._size, self._size), RESAMPLING["bicubic"])
        pad = self.policy.pad
        left, top = self._random.randint(0, 2 * pad), self._random.randint(0, 2 * pad)
        return ImageOps.expand(image, pad).crop((left, top, left + image.width, top + image.height))

    def _box(self, image: Image.Image, crop: ResizedCrop) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = image.width * image.height * self._random.uniform(*crop.area)
            aspect = math.exp(self._random.uniform(*map(math.log, crop.aspect)))
            width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < width <= image.width and 0 < height <= image.height:
                left = self._random.randint(0, image.width - width)
                return left, self._random.randint(0, image.height - height), width, height
        return 0, 0, image.width, image.height

    def _augmented(self, image: Image.Image, augmentation: Augmentation) -> Image.Image:
        for _ in range(augmentation.draws):
            for step in self._random.choice(augmentation.sub_policies):
                if self._random.random() < step.probability:
                    image = self._applied(image, step, augmentation.space)
        return image

    def _applied(self, image: Image.Image, step: Step, space: Space) -> Image.Image:
        level, span = step.level, space.ranges[step.operation]
        if level is None:
            level = self._random.randint(0, space.top)
        elif step.std:
            level = min(max(self._random.gauss(level, step.std), 0), space.top)
        argument = argument_of(span, level, space.top, negative=self._random.random() < 0.5)
        resampling = self._random.choice(span.resampling)
        return apply(step.operation, image, argument, resampling=resampling, fill=space.fill)

    def _erase(self, view: np.ndarray, erasing: Erasing) -> None:
        if self._random.random() >= erasing.probability:
            return
        height, width, _ = view.shape
        for _ in range(10):
            area = height * width * self._random.uniform(*erasing.area)
            aspect = self._random.uniform(*erasing.aspect)
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                top, left = self._random.randint(0, height - h), self._random.randint(0, width - w)
                view[top : top + h, left : left + w] = 0
                return
