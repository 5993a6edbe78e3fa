"""What an image goes through outside training: one TensorFlow function, for evaluation and export alike.

It is made of TensorFlow operations only, so that it also lives inside a SavedModel. Decoding equals Pillow's, and a
resized pixel lies within 2 grey levels of Pillow's. EXIF rotation is not applied, here as in training.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from divco_tf.data.datasets import Dataset
from divco_tf.errors import InputError

RESIZES = ("shorter_side_crop", "stretch")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Resizing and normalisation.

    "shorter_side_crop" resizes the shorter side to int(resize_ratio * image_size), keeping the aspect, and cuts
    image_size x image_size out of the centre (the paper's way with ImageNet); "stretch" resizes both sides to
    image_size, and leaves images of that size as they are. Both are bicubic and antialiased, then clipped and rounded.
    """

    image_size: int  # pixels a side
    mean: tuple[float, float, float]  # of RGB in 0..1
    std: tuple[float, float, float]
    resize: str = "stretch"
    resize_ratio: float = 1.15

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise InputError(f"Unknown way to resize. Received: {self.resize}; {' or '.join(RESIZES)} would work.")
        if self.image_size < 1 or self.resize_ratio < 1:
            raise InputError(
                f"An image size in pixels and a ratio of at least 1. Received: image_size={self.image_size}, "
                f"resize_ratio={self.resize_ratio}; 224 and 1.15 would work."
            )

    @classmethod
    def for_dataset(cls, dataset: Dataset, image_size: int | None = None) -> "Preprocessing":
        """The preprocessing of `dataset`, at its own image size unless another is given."""
        return cls(
            image_size=dataset.image_size if image_size is None else image_size,
            mean=dataset.mean,
            std=dataset.std,
            resize=dataset.resize,
        )

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Images of any one size, uint8 or float32 [N, H, W, 3] RGB in 0..255, to normalised float32 [N, s, s, 3]."""
        return self.normalise(self.resized(images))

    def resized(self, images: tf.Tensor) -> tf.Tensor:
        """The same before normalisation: whole grey levels 0..255, float32 [N, s, s, 3]."""
        images = _grey_levels(tf.cast(images, tf.float32))
        images = self._stretch(images) if self.resize == "stretch" else self._shorter_side_crop(images)
        return tf.ensure_shape(images, [None, self.image_size, self.image_size, 3])

    def normalise(self, images: tf.Tensor) -> tf.Tensor:
        """RGB in 0..255 to (x / 255 - mean) / std, float32, any shape that ends in 3."""
        return (tf.cast(images, tf.float32) / 255.0 - tf.constant(self.mean)) / tf.constant(self.std)

    def grey_levels(self, normalised: np.ndarray) -> np.ndarray:
        """The other way round: normalised float32 [..., 3] to uint8 RGB."""
        levels = (normalised * np.asarray(self.std) + np.asarray(self.mean)) * 255
        return np.clip(np.rint(levels), 0, 255).astype(np.uint8)

    @staticmethod
    def decode(data: tf.Tensor) -> tf.Tensor:
        """An encoded JPEG or PNG image (string scalar) to uint8 [H, W, 3] RGB; transparency is dropped.

        TensorFlow's default JPEG decoding differs from Pillow's by up to 4 grey levels, the accurate one by none.
        """
        return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")

    def _stretch(self, images: tf.Tensor) -> tf.Tensor:
        size = self.image_size
        if images.shape[1] == images.shape[2] == size:
            return images
        fits = tf.reduce_all(tf.equal(tf.shape(images)[1:3], size))
        return tf.cond(fits, lambda: images, lambda: _bicubic(images, [size, size]))

    def _shorter_side_crop(self, images: tf.Tensor) -> tf.Tensor:
        size = self.image_size
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        shorter, short_side = tf.minimum(height, width), int(self.resize_ratio * size)
        # In 64 bits: a panorama's product leaves the 32-bit range at 2^31.
        sides = tf.cast(tf.stack([height, width]), tf.int64) * short_side // tf.cast(shorter, tf.int64)
        sides = tf.cast(sides, tf.int32)
        images = _bicubic(images, sides)
        # Halves round to even, as Python's round does in torchvision's CenterCrop.
        top, left = tf.unstack(tf.cast(tf.round(tf.cast(sides - size, tf.float32) / 2.0), tf.int32))
        return images[:, top : top + size, left : left + size]


def _bicubic(images: tf.Tensor, sides: tf.Tensor | list[int]) -> tf.Tensor:
    """Bicubic and antialiased, to whole grey levels.

    Up to version 12 Pillow resizes the width, clips and rounds, then the height (13 turns that round for some shapes).
    In one pass, an overshoot at a sharp edge would leave the range and come back: up to 11 grey levels on digits.
    """
    for size in ([tf.shape(images)[1], sides[1]], sides):
        images = tf.image.resize(images, size, method="bicubic", antialias=True)
        images = _grey_levels(images)
    return images


def _grey_levels(images: tf.Tensor) -> tf.Tensor:
    return tf.round(tf.clip_by_value(images, 0.0, 255.0))
