"""Sources of encoded images, decoded whenever they are read."""

import abc

import numpy as np

from divco_tf.data.decoding import decode
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources.base import BadImage, Choose, Source, region
from divco_tf.data.views.kernels.resize import BICUBIC, resize_and_cut
from divco_tf.errors import InputError


class EncodedSource(Source):
    """Encoded images (JPEG, PNG, ...) with random access.

    Args:
      preprocessing: brings an image to the size that `read` returns; evaluation uses the same.
      stored_size: pixels a side, where all images are square and of one size. Such images count as stored in
        `image_size`, as they are where they are kept in memory.
    """

    remedy = "replace or remove the file"  # of an image that cannot be read

    def __init__(self, preprocessing: Preprocessing, *, stored_size: int | None = None) -> None:
        self.preprocessing, self.stored_size = preprocessing, stored_size
        self.image_size, self.same_size = preprocessing.image_size, stored_size is not None

    @abc.abstractmethod
    def encoded(self, index: int) -> bytes:
        """The encoded image at `index`; raises `BadImage`."""

    @abc.abstractmethod
    def stamp(self) -> str:
        """A digest of what is stored: names, sizes and times of files. It differs once they have changed."""

    def read(self, index: int) -> np.ndarray:
        """The image at `index`, brought to the size that evaluation sees, uint8 [image_size, image_size, 3]."""
        image = self._decoded(index, None)
        if self.same_size and image.shape[:2] != (self.stored_size, self.stored_size):
            size = self.stored_size
            raise self.bad(index, f"it has {image.shape[0]}x{image.shape[1]} pixels, not {size}x{size}")
        return self.resized(image)

    def read_region(self, index: int, choose: Choose | None = None) -> np.ndarray:
        """A part of the image at `index` in the size it is stored in; of a JPEG file no more than that is decoded."""
        return region(self.read(index), choose) if self.same_size else self._decoded(index, choose)

    def resized(self, image: np.ndarray) -> np.ndarray:
        """What `read` makes of a stored image, uint8 [H, W, 3] to [image_size, image_size, 3]."""
        if self.preprocessing.resize == "stretch" and image.shape[:2] == (self.image_size, self.image_size):
            return image
        return resized(image, self.preprocessing)

    def decoded(self, index: int, data: bytes, choose: Choose | None = None) -> np.ndarray:
        """What `read_region` makes of `data`, the encoded image at `index`, where stored images differ in size."""
        try:
            return decode(data, choose)
        except InputError:  # what `choose` named
            raise
        except ValueError as error:
            raise self.bad(index, str(error)) from error

    def bad(self, index: int, cause: str) -> BadImage:
        """The error that says that, and why, the image at `index` cannot be read."""
        return BadImage(index, self.name_of(index), cause, self.remedy)

    def _decoded(self, index: int, choose: Choose | None) -> np.ndarray:
        return self.decoded(index, self.encoded(index), choose)


def resized(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """What `Preprocessing.resized` makes of an image, by Pillow's arithmetic, in a kernel: within 2 grey levels of it.

    Args:
      image: uint8 [H, W, 3], RGB.
      preprocessing: of evaluation.

    Returns:
      uint8 [image_size, image_size, 3].
    """
    size, (height, width, _) = preprocessing.image_size, image.shape
    top = left = 0
    sides = (size, size)
    if preprocessing.resize == "shorter_side_crop":
        short = int(preprocessing.resize_ratio * size)
        sides = height * short // min(height, width), width * short // min(height, width)
        top, left = (round((side - size) / 2) for side in sides)
    view = np.empty((size, size, 3), np.uint8)
    box = (0, 0, height, width)
    resize_and_cut(np.require(image, np.uint8, "CW"), box, False, BICUBIC, sides, (top, left), view)
    return view
