"""Noise: of a sensor, of few photons, of wrong bits. Functions of images uint8 [N, H, W, 3] and keys uint64 [N]."""

import functools

import numpy as np

from divco_tf.data.corruptions.random_fields import normals, uniforms
from divco_tf.data.views.kernels.random_numbers import kernel


def gaussian(images: np.ndarray, keys: np.ndarray, *, std: float) -> np.ndarray:
    """Adds normal noise of a standard deviation (of levels in 0..1): float32 [N, H, W, 3]."""
    return images + np.float32(255 * std) * normals(keys, images.shape[1:])


def shot(images: np.ndarray, keys: np.ndarray, *, photons: float) -> np.ndarray:
    """Counts photons, of which a white pixel has so many on average (Poisson): float32 [N, H, W, 3]."""
    counts = np.empty(images.shape, np.float32)
    _count(images.reshape(-1), uniforms(keys, images.shape[1:]).reshape(-1), _cumulative(photons), counts.reshape(-1))
    return counts * np.float32(255 / photons)


def impulse(images: np.ndarray, keys: np.ndarray, *, share: float) -> np.ndarray:
    """Turns a share of the levels to 0 or 255, each channel by itself: uint8 [N, H, W, 3]."""
    drawn = uniforms(keys, images.shape[1:])
    return np.where(drawn < share / 2, np.uint8(0), np.where(drawn >= 1 - share / 2, np.uint8(255), images))


@kernel
def _count(levels, drawn, cumulative, counts):
    for i in range(levels.size):
        counts[i] = np.searchsorted(cumulative[levels[i]], drawn[i], side="right")


@functools.lru_cache(maxsize=16)
def _cumulative(photons: float) -> np.ndarray:
    """The Poisson distribution functions of all grey levels, float64 [256, n], up to what float64 tells from 1."""
    import scipy.special

    means = np.arange(256)[:, None] * (photons / 255)
    return scipy.special.pdtr(np.arange(int(photons + 12 * photons**0.5 + 40)), means)
