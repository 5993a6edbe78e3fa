"""Corrupts images: a function of (seed, index of the image, family, severity), whatever the batch and the process."""

import zlib
from collections.abc import Sequence

import numpy as np

from divco_tf import fields
from divco_tf.data.checks import check_images
from divco_tf.data.corruptions.filters import grey_levels
from divco_tf.data.corruptions.table import CORRUPTIONS, SEVERITIES
from divco_tf.data.draws import CORRUPTION, fold
from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean

SMALLEST = 8  # pixels a side

_AT_ONCE = 2**20  # levels: what is computed of them fits into a processor's cache


def corrupt(
    images: np.ndarray, *, family: str, severity: int, seed: int = 0, indices: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Images as they would be in CIFAR-10-C, made from the same recipes (`table`); frost is synthesised (`weather`).

    The random numbers of an image are hashes of (seed, family, index): its severities share them, so what differs
    between two of them is the severity alone. No batch, thread or process changes a level.

    Args:
      images: uint8 [N, H, W, 3] RGB, of 8 pixels a side or more. Constants are CIFAR-10-C's up to 84 pixels a side,
        beyond that ImageNet-C's; lengths among them are scaled to the shorter side (`Corruption.constants`).
      family: a name of `CORRUPTIONS`.
      severity: 1 to 5.
      seed: another one makes other noise, other flakes and so on.
      indices: of the images, int [N]; 0 to N - 1 by default.

    Returns:
      uint8 [N, H, W, 3]; fractions of levels are cut off.

    Raises:
      InputError: an argument is not as said.
    """
    check_corruption(family, severity, seed)
    check_images(images, (None, None, None, 3), of="the caller")
    if min(images.shape[1:3]) < SMALLEST:
        raise InputError(
            f"Images are too small to be corrupted. Received: {list(images.shape)}; {SMALLEST} pixels a side, or more, "
            "would work."
        )
    keys = _keys(family, seed, _checked_indices(indices, len(images)))
    corruption = CORRUPTIONS[family]
    constants = corruption.constants(severity, min(images.shape[1:3]))
    corrupted = np.empty(images.shape, np.uint8)
    step = max(1, _AT_ONCE // max(1, images[:1].size))
    for start in range(0, len(images), step):
        part = np.require(images[start : start + step], np.uint8, "CW")
        corrupted[start : start + step] = grey_levels(corruption.make(part, keys[start : start + step], **constants))
    return corrupted


def check_corruption(family: str, severity: int, seed: int) -> None:
    """Refuses what is no corruption.

    Raises:
      InputError: no family has that name; the severity is none of 1 to 5, or the seed no whole number.
    """
    if family not in CORRUPTIONS:
        raise InputError(f"Unknown family of corruptions. Received: {family}.{did_you_mean(family, CORRUPTIONS)}")
    if fields.checked(severity, int, "severity") not in SEVERITIES:
        raise InputError(f"Severities count from 1 to 5. Received: {severity}; 3 would work.")
    fields.checked(seed, int, "seed")


def _checked_indices(indices: Sequence[int] | np.ndarray | None, count: int) -> np.ndarray:
    array = np.arange(count) if indices is None else np.asarray(indices)
    if array.shape != (count,) or (count and array.dtype.kind not in "iu") or (array < 0).any():
        raise InputError(
            f"Each image has an index. Received: indices {array.dtype} {list(array.shape)} for {count} images; whole "
            f"numbers from 0 on, [{count}], would work."
        )
    return array


def _keys(family: str, seed: int, indices: np.ndarray) -> np.ndarray:
    base = fold(CORRUPTION, seed, zlib.crc32(family.encode()))
    return np.array([fold(base, int(index)) for index in indices], np.uint64)
