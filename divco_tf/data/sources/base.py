"""What a source is: labelled images with random access; and images in memory."""

import abc
import pathlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from divco_tf.data.decoding import Box, check_box
from divco_tf.errors import InputError, shown

Choose = Callable[[int, int], Box]
"""Names the part of an image (top, left, height, width) that is wanted, given its height and width."""


class BadImage(InputError):
    """An image that cannot be read, in one line.

    Attributes:
      index: of the image in its source.
      name: of the image, as `Source.name_of` has it.
      cause: why it cannot be read, without its name.
    """

    def __init__(self, index: int, name: str, cause: str, remedy: str = "replace or remove the file") -> None:
        super().__init__(f"An image cannot be read ({cause}). Received: {shown(name)}; {remedy}.")
        self.index, self.name, self.cause = index, name, cause


class Source(abc.ABC):
    """Labelled images with random access. All methods may be called from several threads."""

    labels: np.ndarray  # int64 [N]
    class_names: tuple[str, ...]
    image_size: int  # pixels a side, of what `read` returns
    same_size: bool = False  # whether that is also the size of all stored images
    notes: tuple[str, ...] = ()  # what there is to say of it, a line each

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return len(self.class_names)

    @abc.abstractmethod
    def read(self, index: int) -> np.ndarray:
        """The image at `index` as evaluation sees it, uint8 [image_size, image_size, 3] RGB; not to be written into.

        Raises:
          BadImage: it cannot be read, here as in all other methods that read images.
        """

    def read_batch(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices` (int [n]), uint8 [n, image_size, image_size, 3]."""
        return np.stack([self.read(int(index)) for index in indices])

    def read_region(self, index: int, choose: Choose | None = None) -> np.ndarray:
        """A part of the image at `index` in the size it is stored in; no more of it is decoded than need be.

        Args:
          index: of the image.
          choose: names the part, given the image's height and width; all of it by default.

        Returns:
          uint8 [h, w, 3] RGB, an array of its own, C-contiguous.

        Raises:
          BadImage: the image cannot be read.
          InputError: `choose` named a part that is empty or outside of the image.
        """
        return region(self.read(index), choose)

    def encoded(self, index: int) -> bytes | None:
        """The encoded image at `index`, or None where images are kept decoded."""
        return None

    def read_stored(self, index: int) -> np.ndarray:
        """The image at `index` in the size it is stored in, uint8 [H, W, 3] RGB."""
        return self.read_region(index)

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """The labels of the images at `indices` (int [n]), int64 [n].

        Cheaper than `labels` where labels lie beside the images: no others are read.
        """
        return self.labels[indices]

    def name_of(self, index: int) -> str:
        """Which image that is, for messages: a path, or a place in the data."""
        return f"image {index}"

    def ordered_as(self, class_names: Sequence[str], *, some: bool = False) -> "Source":
        """The same images, labelled by their classes' places in `class_names`, where those are the same classes.

        With `some` they may be more classes than the images have.
        """
        return self

    def only(self, indices: np.ndarray) -> "Source":
        """The images at `indices` (int [n]) alone, as a source of their own; those that `open_source` opens have it."""
        raise NotImplementedError

    def holds(self, path: pathlib.Path) -> bool:
        """Whether what is written at `path` would become a part of the data."""
        return False

    def fingerprint(self) -> Mapping[str, Any]:
        """What tells this split's data from others (`fingerprints`): the same on every machine that has them."""
        return {"images": len(self), "labels_crc32": zlib.crc32(self.labels.tobytes())}


class ArraySource(Source):
    """Images in memory.

    Args:
      images: uint8 [N, H, H, 3] RGB.
      labels: integers [N], 0 <= label < number of classes.
      class_names: a name a class.
      name: of the images together, for messages: "cifar10 train".

    Raises:
      InputError: shapes, types or labels do not fit together.
    """

    same_size = True
    _places: np.ndarray | None = None  # of the images among those that they were chosen from

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, class_names: Iterable[str], *, name: str = "images"
    ) -> None:
        labels = np.asarray(labels)
        if labels.dtype.kind not in "iuf" or not (np.isfinite(labels) & (labels == np.rint(labels))).all():
            shown = labels.ravel()[:4].tolist()
            raise InputError(f"Labels are class numbers. Received: {labels.dtype} {shown}; integers would work.")
        self.images, self.labels = images, labels.astype(np.int64)
        self.class_names, self.name = tuple(class_names), name
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
            raise InputError(
                f"Images are square and RGB. Received: {images.dtype} {list(images.shape)}; "
                "uint8 [N, size, size, 3] would work."
            )
        if self.labels.shape != (len(images),):
            raise InputError(f"A label an image. Received: labels {list(self.labels.shape)} for {len(images)} images.")
        if len(images) and not 0 <= self.labels.min() <= self.labels.max() < self.num_classes:
            raise InputError(
                f"Labels do not fit the number of classes. Received: {self.labels.min()} to {self.labels.max()}; "
                f"0 to {self.num_classes - 1} would work."
            )
        self.image_size = images.shape[1]

    def read(self, index: int) -> np.ndarray:
        """The image at `index`, uint8 [H, H, 3]."""
        return self.images[index]

    def read_batch(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, uint8 [n, H, H, 3]."""
        return self.images[indices]

    def name_of(self, index: int) -> str:
        """The image's place: "cifar10 train[123]"."""
        return f"{self.name}[{index if self._places is None else self._places[index]}]"

    def only(self, indices: np.ndarray) -> "ArraySource":
        """The images at `indices`, which keep their names."""
        source = ArraySource(self.images[indices], self.labels[indices], self.class_names, name=self.name)
        source._places = np.asarray(indices) if self._places is None else self._places[indices]
        return source


def region(image: np.ndarray, choose: Choose | None) -> np.ndarray:
    """A copy of the part of a decoded image (uint8 [H, W, 3]) that `choose` names, or of all of it."""
    if choose is None:
        return image.copy()
    box = choose(*image.shape[:2])
    check_box(box, *image.shape[:2])
    top, left, height, width = box
    return image[top : top + height, left : left + width].copy()
