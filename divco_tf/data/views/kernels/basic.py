"""Compiled kernels that every view goes through: crop, mirror, normalise, erase; and mixing of two views."""

import numpy as np

from divco_tf.data.views.kernels.random_numbers import below, inlined, kernel, uniform

# Counters of a view's draws. They are fixed, so that an operation added later leaves the others' draws as they are.
_CROP_TOP, _CROP_LEFT, _FLIP, _ERASE = (np.uint64(counter) for counter in range(4))
_ERASE_ATTEMPTS = np.uint64(16)  # four counters an attempt
_ATTEMPTS = 10  # torchvision 0.7, RandomErasing
_1, _4 = np.uint64(1), np.uint64(4)


@inlined
def mirrored(key):
    """Whether a view is a mirror image, half the time."""
    return uniform(key, _FLIP) < 0.5


@kernel
def crop_flip(image, view, key, pad, flip):
    """Crops `image` at a random place after zero padding by `pad` a side, and mirrors it half the time if `flip`.

    `image` and `view` (written) are uint8 [H, W, 3].
    """
    height, width, _ = image.shape
    top = below(key, _CROP_TOP, 2 * pad + 1) - pad
    left = below(key, _CROP_LEFT, 2 * pad + 1) - pad
    from_y, to_y = max(0, -top), min(height, height - top)
    from_x, to_x = max(0, -left), min(width, width - left)
    view[:] = 0
    if flip and mirrored(key):
        source = image[from_y + top : to_y + top, from_x + left : to_x + left]
        target = view[from_y:to_y, width - to_x : width - from_x]
        last = source.shape[1] - 1
        for y in range(source.shape[0]):
            for x in range(source.shape[1]):
                for channel in range(3):
                    target[y, last - x, channel] = source[y, x, channel]
    else:  # rows of bytes: twice as fast as pixels of three
        source = image.reshape(height, 3 * width)[from_y + top : to_y + top, 3 * (from_x + left) : 3 * (to_x + left)]
        target = view.reshape(height, 3 * width)[from_y:to_y, 3 * from_x : 3 * to_x]
        for y in range(source.shape[0]):
            for x in range(source.shape[1]):
                target[y, x] = source[y, x]


@inlined
def normalise(image, view, scale, shift):
    """`image` * `scale` + `shift`: uint8 [H, W, 3] to float32 [H, W, 3] (written).

    `scale` and `shift` are float32 [W * 3], a row's: so the inner loop is one of vector instructions, 5 times as fast.
    """
    source = image.reshape(image.shape[0], scale.shape[0])
    target = view.reshape(image.shape[0], scale.shape[0])
    for y in range(source.shape[0]):
        for x in range(scale.shape[0]):
            target[y, x] = np.float32(source[y, x]) * scale[x] + shift[x]


@kernel
def erase(view, key, erasing):
    """Random erasing of `view`, float32 [H, W, 3], in place.

    `erasing` is float64 [5]: probability, area from and to, aspect from and to. Semantics of torchvision 0.7.
    """
    if uniform(key, _ERASE) >= erasing[0]:
        return
    height, width, _ = view.shape
    for attempt in range(_ATTEMPTS):
        counter = _ERASE_ATTEMPTS + _4 * np.uint64(attempt)
        area = height * width * (erasing[1] + (erasing[2] - erasing[1]) * uniform(key, counter))
        aspect = erasing[3] + (erasing[4] - erasing[3]) * uniform(key, counter + _1)
        hole_height = np.int64(np.rint(np.sqrt(area * aspect)))
        hole_width = np.int64(np.rint(np.sqrt(area / aspect)))
        if hole_height < height and hole_width < width:
            top = below(key, counter + _1 + _1, height - hole_height + 1)
            left = below(key, counter + _1 + _1 + _1, width - hole_width + 1)
            view[top : top + hole_height, left : left + hole_width] = 0
            return


@kernel
def _fill_mixture(views, partners, share, mixture):
    for position in range(views.shape[0]):
        own, other, mixed = views[position], views[partners[position]], mixture[position]
        for element in range(own.shape[0]):
            mixed[element] = share * own[element] + (np.float32(1) - share) * other[element]


def mix(views: np.ndarray, partners: np.ndarray, share: float) -> np.ndarray:
    """share * views + (1 - share) * views[partners]: float32 [B, ...], int64 [B] -> float32 [B, ...]."""
    flat = np.require(views, np.float32, "CW").reshape(len(views), -1)
    mixture = np.empty_like(flat)
    _fill_mixture(flat, np.require(partners, np.int64, "CW"), np.float32(share), mixture)
    return mixture.reshape(views.shape)
