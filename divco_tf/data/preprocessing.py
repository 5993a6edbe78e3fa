"""What an image goes through outside training: one TensorFlow function, for evaluation and export alike.

It is made of TensorFlow operations only, so that it also lives inside a SavedModel. Decoding equals Pillow's, and a
resized pixel lies within 2 grey levels of Pillow's. EXIF rotation is not applied, here as in training.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from divco_tf.data import decoding_ops
from divco_tf.data.datasets import Dataset
from divco_tf.errors import InputError

RESIZES = ("shorter_side_crop", "stretch")

_THIN = 16  # so many times as long as wide, or more: not what cameras make, panoramas included


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
        images = tf.convert_to_tensor(images)  # the graph of a tall strip's rows cannot slice numpy's
        images = self._stretch(images) if self.resize == "stretch" else self._shorter_side_crop(images)
        return tf.ensure_shape(images, [None, self.image_size, self.image_size, 3])

    def normalise(self, images: tf.Tensor) -> tf.Tensor:
        """RGB in 0..255 to (x / 255 - mean) / std, float32, any shape that ends in 3."""
        return (tf.cast(images, tf.float32) / 255.0 - tf.constant(self.mean)) / tf.constant(self.std)

    def grey_levels(self, normalised: np.ndarray) -> np.ndarray:
        """The other way round: normalised float32 [..., 3] to uint8 RGB."""
        levels = (normalised * np.asarray(self.std) + np.asarray(self.mean)) * 255
        return np.clip(np.rint(levels), 0, 255).astype(np.uint8)

    @property
    def pixel_range(self) -> tuple[float, float]:
        """The smallest and the largest value that a normalised pixel may have."""
        black, white = ((level - np.asarray(self.mean)) / np.asarray(self.std) for level in (0, 1))
        return float(black.min()), float(white.max())

    @staticmethod
    def decode(data: tf.Tensor) -> tf.Tensor:
        """An encoded image (string scalar) to uint8 [H, W, 3] RGB, see `decoding_ops.decode`."""
        return decoding_ops.decode(data)

    def _stretch(self, images: tf.Tensor) -> tf.Tensor:
        size = self.image_size
        if images.shape[1] == images.shape[2] == size:
            return _grey_levels(images)
        lengths, sides = _lengths(images), tf.fill([2], tf.constant(size, tf.int64))

        def row(top: tf.Tensor) -> tf.Tensor:
            return _bicubic(images, sides, tf.stack([top, 0]), (1, size))

        @tf.function(autograph=False, experimental_attributes={"_noinline": True})  # costs nothing where not taken
        def rows() -> tf.Tensor:  # of a tall strip: its width, if it came first, would make a large image of it
            single = tf.map_fn(row, tf.range(sides[0]), fn_output_signature=tf.TensorSpec([None, 1, size, 3]))
            return tf.transpose(single[:, :, 0], [1, 0, 2, 3])

        return tf.case(
            [
                (tf.reduce_all(tf.equal(lengths, sides)), lambda: _grey_levels(images)),
                (lengths[0] > _THIN * lengths[1], rows),
            ],
            default=lambda: _bicubic(images, sides, tf.zeros_like(sides), (size, size)),
        )

    def _shorter_side_crop(self, images: tf.Tensor) -> tf.Tensor:
        size, lengths = self.image_size, _lengths(images)
        sides = lengths * int(self.resize_ratio * size) // tf.reduce_min(lengths)
        # Halves round to even, as Python's round does in torchvision's CenterCrop.
        corner = tf.cast(tf.round(tf.cast(sides - size, tf.float64) / 2), tf.int64)
        return _bicubic(images, sides, corner, (size, size))


def _bicubic(images: tf.Tensor, sides: tf.Tensor, corner: tf.Tensor, kept: tuple[int, int]) -> tf.Tensor:
    """The part from `corner` on, `kept` high and wide, of images resized to `sides`: bicubic, antialiased, grey levels.

    Up to version 12 Pillow resizes the width, clips and rounds, then the height (13 turns that round for some shapes).
    In one pass, an overshoot at a sharp edge would leave the range and come back: up to 11 grey levels on digits.

    Of a thin image only the band is looked at that the part is made of, so that memory follows the image and the part.
    Positions in a band round otherwise. So other images are resized from their first pixel on: to the bit as by
    `tf.image.resize`, which this was in 0.1.0.
    """
    lengths = _lengths(images)
    thin = tf.reduce_max(lengths) > _THIN * tf.reduce_min(lengths)
    start, stop = tf.where(thin, corner, 0), corner + kept
    reach = 2 * -(-lengths // sides) + 1  # of the filter, in pixels of the image, and one for rounding
    first = tf.where(thin, tf.maximum(start * lengths // sides - reach, 0), 0)
    last = tf.where(thin, tf.minimum(stop * lengths // sides + 1 + reach, lengths), lengths)
    images = _grey_levels(images[:, first[0] : last[0], first[1] : last[1]])
    scale = tf.cast(sides, tf.float32) / tf.cast(lengths, tf.float32)
    shift = tf.cast((first * sides - start * lengths) / lengths, tf.float32)
    for axis in ([False, True], [True, False]):
        images = tf.raw_ops.ScaleAndTranslate(
            images=images,
            size=tf.cast(tf.where(axis, stop - start, _lengths(images)), tf.int32),
            scale=tf.where(axis, scale, 1.0),
            translation=tf.where(axis, shift, 0.0),
            kernel_type="keyscubic",
            antialias=True,
        )
        top, left = tf.unstack(tf.where(axis, corner - start, 0))
        images = _grey_levels(images[:, top:, left:])
    return images


def _lengths(images: tf.Tensor) -> tf.Tensor:
    """Height and width in 64 bits: a panorama's products leave the 32-bit range at 2^31."""
    return tf.shape(images, out_type=tf.int64)[1:3]


def _grey_levels(images: tf.Tensor) -> tf.Tensor:
    return tf.round(tf.clip_by_value(tf.cast(images, tf.float32), 0.0, 255.0))
