"""What sources and operations of the user's give, checked at the border."""

from typing import Any

import numpy as np

from divco_tf.errors import InputError


def check_images(images: Any, shape: tuple[int | None, ...], *, of: str) -> np.ndarray:
    """Refuses what `of` (a source or an operation, as a message names it) gives instead of images.

    Args:
      images: what it gave.
      shape: that they must have; None is any length.
      of: "the source Mine", "the operation blur".

    Returns:
      The images.

    Raises:
      InputError: they are no uint8 array of that shape.
    """
    fits = isinstance(images, np.ndarray) and images.dtype == np.uint8 and len(images.shape) == len(shape)
    if not fits or any(wanted not in (None, got) for wanted, got in zip(shape, images.shape, strict=True)):
        got = f"{images.dtype} {list(images.shape)}" if isinstance(images, np.ndarray) else type(images).__name__
        wanted = "[" + ", ".join("any" if length is None else str(length) for length in shape) + "]"
        raise InputError(f"Images are RGB levels from 0 to 255. Received: {got} from {of}; uint8 {wanted} would work.")
    return images


def check_labels(labels: Any, count: int, *, num_classes: int, of: str) -> np.ndarray:
    """Refuses labels (of `count` images, from `of`) that are no class numbers.

    Raises:
      InputError: they are no integers [count] from 0 to num_classes - 1.
    """
    array = np.asarray(labels)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"A label an image. Received: {array.dtype} {list(array.shape)} from {of}; integers [{count}] would work."
        )
    if count and not 0 <= array.min() <= array.max() < num_classes:
        raise InputError(
            f"Labels do not fit the number of classes. Received: {array.min()} to {array.max()} from {of}; 0 to "
            f"{num_classes - 1} would work."
        )
    return array
