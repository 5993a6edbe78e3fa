"""Random numbers of images: every number is a hash of the image's key, a stream of it and a place in the field.

Streams set the draws of a corruption apart from each other: snow's flakes from the direction in which they fall.
"""

import math

import numpy as np

from divco_tf.data.views.kernels.random_numbers import fold, kernel, uniform

_1 = np.uint64(1)


@kernel
def _fill_uniforms(keys, stream, numbers):
    for image in range(numbers.shape[0]):
        key = fold(keys[image], stream)
        for i in range(numbers.shape[1]):
            numbers[image, i] = uniform(key, np.uint64(i))


@kernel
def _fill_normals(keys, stream, numbers):
    """Two at a time (Box and Muller)."""
    length = numbers.shape[1]
    for image in range(numbers.shape[0]):
        key = fold(keys[image], stream)
        for i in range(0, length, 2):
            radius = math.sqrt(-2 * math.log(1 - uniform(key, np.uint64(i))))
            turn = 2 * math.pi * uniform(key, np.uint64(i) + _1)
            numbers[image, i] = radius * math.cos(turn)
            if i + 1 < length:
                numbers[image, i + 1] = radius * math.sin(turn)


@kernel
def _fill_plasma(keys, stream, decay, heights):
    """Diamond-square on a torus; `heights` is float64 [N, side, side], the side a power of two."""
    side = heights.shape[1]
    for image in range(heights.shape[0]):
        key, height = fold(keys[image], stream), heights[image]
        height[0, 0] = 0.0
        step, roughness = side, 1.0
        while step >= 2:
            half = step // 2
            for y in range(half, side, step):  # the middle of each square, from its corners
                for x in range(half, side, step):
                    up, down, left, right = y - half, (y + half) % side, x - half, (x + half) % side
                    total = height[up, left] + height[up, right] + height[down, left] + height[down, right]
                    height[y, x] = total / 4 + roughness * (2 * uniform(key, np.uint64(y * side + x)) - 1)
            for y in range(0, side, half):  # the middle of each side, from the ends and the two middles beside it
                for x in range(half - y % step, side, step):
                    up, down, left, right = (y - half) % side, (y + half) % side, (x - half) % side, (x + half) % side
                    total = height[up, x] + height[down, x] + height[y, left] + height[y, right]
                    height[y, x] = total / 4 + roughness * (2 * uniform(key, np.uint64(y * side + x)) - 1)
            step, roughness = half, roughness / (decay * decay)
        low, high = height.min(), height.max()
        for y in range(side):
            for x in range(side):
                height[y, x] = (height[y, x] - low) / (high - low)


def uniforms(keys: np.ndarray, shape: tuple[int, ...], *, stream: int = 0) -> np.ndarray:
    """Numbers in [0, 1): float64 [N, *shape] of keys uint64 [N]."""
    return _filled(_fill_uniforms, keys, shape, stream, np.float64)


def normals(keys: np.ndarray, shape: tuple[int, ...], *, stream: int = 0) -> np.ndarray:
    """Numbers of mean 0 and variance 1: float32 [N, *shape] of keys uint64 [N]."""
    return _filled(_fill_normals, keys, shape, stream, np.float32)


def plasma(keys: np.ndarray, height: int, width: int, *, decay: float, stream: int = 0) -> np.ndarray:
    """Clouds: float64 [N, height, width], 0 to 1 in the square of 2^n pixels that they are a part of.

    The plasma fractal of Fournier, Fussell and Carpenter ("Computer rendering of stochastic models", CACM 25(6), 1982).

    Args:
      keys: uint64 [N].
      height, width: in pixels.
      decay: each halving of the distance divides the standard deviation by its square.
      stream: of the keys.
    """
    side = 1 << (max(height, width, 2) - 1).bit_length()
    heights = np.empty((len(keys), side, side))
    _fill_plasma(keys, np.uint64(stream), float(decay), heights)
    return heights[:, :height, :width]


def _filled(fill, keys, shape, stream, dtype):
    numbers = np.empty((len(keys), math.prod(shape)), dtype)
    fill(keys, np.uint64(stream), numbers)
    return numbers.reshape(len(keys), *shape)
