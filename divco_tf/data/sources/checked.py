"""Reads a source that may be the user's, and refuses what is no image or label as it should be."""

import numpy as np

from divco_tf.data.checks import check_images, check_labels
from divco_tf.data.sources.base import Source


def read_image(source: Source, index: int) -> np.ndarray:
    """The image at `index` as evaluation sees it, uint8 [image_size, image_size, 3]."""
    return check_images(source.read(index), (*[source.image_size] * 2, 3), of=named(source))


def read_batch(source: Source, indices: np.ndarray) -> np.ndarray:
    """The images at `indices` (int [n]), uint8 [n, image_size, image_size, 3]."""
    return check_images(source.read_batch(indices), (len(indices), *[source.image_size] * 2, 3), of=named(source))


def read_stored(source: Source, index: int) -> np.ndarray:
    """The image at `index` in the size it is stored in, uint8 [H, W, 3]."""
    return check_images(source.read_stored(index), (None, None, 3), of=named(source))


def read_labels(source: Source, indices: np.ndarray) -> np.ndarray:
    """The labels of the images at `indices` (int [n]), integers [n]."""
    return check_labels(source.labels_of(indices), len(indices), num_classes=source.num_classes, of=named(source))


def named(source: Source) -> str:
    """A source as messages name it."""
    return f"the source {type(source).__name__}"
