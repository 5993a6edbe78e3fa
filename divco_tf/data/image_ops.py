"""Compiled kernels that make training views: one pass a view, from uint8 to normalised float32.

Random numbers are counter-based: a number is a hash of the view's key and a counter, the key a hash of (seed, step,
position in the global batch, branch). So a view depends on nothing but these, and a kernel may run in any thread.
The hash is the finaliser of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014).

Every kernel is called with one set of types only. Several processes may then fill numba's cache at once: whichever
file is written last, it holds the same code.
"""

from collections.abc import Callable

import numba
import numpy as np

from divco_tf.data.policies import ViewPolicy

# Counters of a view's draws. They are fixed, so that an operation added later leaves the others' draws as they are.
_CROP_TOP, _CROP_LEFT, _FLIP, _ERASE = (np.uint64(counter) for counter in range(4))
_ERASE_ATTEMPTS = np.uint64(16)  # four counters an attempt
_ATTEMPTS = 10  # torchvision 0.7, RandomErasing

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1, _FACTOR_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_11, _27, _30, _31, _1, _4 = (np.uint64(number) for number in (11, 27, 30, 31, 1, 4))
_VIEWS = np.uint64(0x7669657773)  # "views": sets these draws apart from the model's


def kernel(function: Callable) -> Callable:
    """`numba.njit` without the GIL, compiled at the first call and cached on disk where a folder can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found neither __pycache__ nor the user's cache folder writable
        return numba.njit(nogil=True)(function)


@kernel
def fold(key, counter):
    """A new key from a key and a counter, all uint64."""
    bits = key + (counter + _1) * _GOLDEN
    bits = (bits ^ (bits >> _30)) * _FACTOR_1
    bits = (bits ^ (bits >> _27)) * _FACTOR_2
    return bits ^ (bits >> _31)


@kernel
def uniform(key, counter):
    """A float64 in [0, 1), of 53 bits, from a key and a counter (uint64)."""
    return np.float64(fold(key, counter) >> _11) * 2.0**-53


@kernel
def below(key, counter, limit):
    """An int64 in [0, limit), from a key and a counter (uint64)."""
    return np.int64(uniform(key, counter) * limit)


@kernel
def _fill_keys(seed, step, keys):
    batch = fold(fold(fold(np.uint64(0), _VIEWS), seed), step)
    for position in range(keys.shape[0]):
        example = fold(batch, np.uint64(position))
        for branch in range(keys.shape[1]):
            keys[position, branch] = fold(example, np.uint64(branch))


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
    if flip and uniform(key, _FLIP) < 0.5:
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


@kernel
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
def _fill_views(images, keys, pad, flip, erasing, scale, shift, views):
    cropped = np.empty(images.shape[1:], np.uint8)
    for position in range(keys.shape[0]):
        for branch in range(keys.shape[1]):
            key, view = keys[position, branch], views[position, branch]
            crop_flip(images[position], cropped, key, pad, flip)
            normalise(cropped, view, scale, shift)
            erase(view, key, erasing)


@kernel
def _fill_mixture(views, partners, share, mixture):
    for position in range(views.shape[0]):
        own, other, mixed = views[position], views[partners[position]], mixture[position]
        for element in range(own.shape[0]):
            mixed[element] = share * own[element] + (np.float32(1) - share) * other[element]


def view_keys(*, seed: int, step: int, batch_size: int, split_factor: int) -> np.ndarray:
    """The keys of a batch's views, uint64 [B, S]: a hash of (seed, step, position in the global batch, branch)."""
    keys = np.empty((batch_size, split_factor), np.uint64)
    _fill_keys(np.uint64(seed % 2**64), np.uint64(step), keys)
    return keys


def make_views(
    images: np.ndarray,
    keys: np.ndarray,
    *,
    policy: ViewPolicy,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> np.ndarray:
    """The views of a batch.

    Args:
      images: uint8 [B, H, W, 3], RGB.
      keys: uint64 [B, S], see `view_keys`.
      policy: what is drawn.
      mean: of RGB in 0..1; padding is black before normalisation, erasing fills 0 after it.
      std: likewise.

    Returns:
      float32 [B, S, H, W, 3].

    Raises:
      InputError: the padding is too wide for the images.
    """
    policy.check_size(*images.shape[1:3])
    erasing = policy.erasing
    ranges = (0.0,) * 5 if erasing is None else (erasing.probability, *erasing.area, *erasing.aspect)
    std, width = np.asarray(std, np.float64), images.shape[2]
    images = np.require(images, np.uint8, "CW")  # a read-only or strided array would be another type to numba
    views = np.empty((*keys.shape, *images.shape[1:]), np.float32)
    _fill_views(
        images,
        np.require(keys, np.uint64, "CW"),
        policy.pad,
        policy.flip,
        np.array(ranges, np.float64),
        np.tile(1 / (255 * std), width).astype(np.float32),
        np.tile(-np.asarray(mean, np.float64) / std, width).astype(np.float32),
        views,
    )
    return views


def mix(views: np.ndarray, partners: np.ndarray, share: float) -> np.ndarray:
    """share * views + (1 - share) * views[partners]: float32 [B, ...], int64 [B] -> float32 [B, ...]."""
    flat = np.require(views, np.float32, "CW").reshape(len(views), -1)
    mixture = np.empty_like(flat)
    _fill_mixture(flat, np.require(partners, np.int64, "CW"), np.float32(share), mixture)
    return mixture.reshape(views.shape)
