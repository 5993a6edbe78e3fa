"""Blur: out of focus, through frosted glass, by motion, by zooming. Functions of images and keys, as in `noise`."""

import numpy as np

from divco_tf.data.corruptions.filters import grey_levels, motion_blurred, shifted_sum, zoomed
from divco_tf.data.corruptions.random_fields import uniforms
from divco_tf.data.views.kernels.random_numbers import below, fold, kernel

_1 = np.uint64(1)


def defocus(images: np.ndarray, keys: np.ndarray, *, radius: float, sigma: float) -> np.ndarray:
    """Smears each pixel over a disc whose edge is smoothed by a Gaussian: float32 [N, H, W, 3].

    The Gaussian is sampled at 3x3 pixels, at 5x5 for discs of a radius beyond 8: in CIFAR-10-C, whose first radii are
    below 1, it does most of the blurring.
    """
    import scipy.ndimage

    reach = 1 if radius <= 8 else 2
    side = max(8, int(radius))  # beyond it the disc is mirrored, as it was for the published images
    rows, columns = np.mgrid[-side : side + 1, -side : side + 1]
    disc = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    disc /= disc.sum()
    gaussian = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        disc = scipy.ndimage.correlate1d(disc, gaussian / gaussian.sum(), axis=axis, mode="mirror")
    used = disc > 0
    offsets = np.stack([rows[used], columns[used]], axis=-1)
    return shifted_sum(images, offsets[None], disc[used], border="reflect")


def glass(images: np.ndarray, keys: np.ndarray, *, sigma: float, reach: float, rounds: int) -> np.ndarray:
    """Blurs, lets pixels take the place of others near by, and blurs again: float32 [N, H, W, 3].

    A pixel takes the colour of one up to `reach` before it or `reach` - 1 behind it (whole pixels, at least 1), from
    the last pixel to the first, `rounds` times. The paper swaps the two; the program that made the published images
    overwrites the first of them before it is read, so there, and here, it is a copy.
    """
    shuffled = grey_levels(_gaussian_blurred(images, sigma))
    _shuffle_pixels(shuffled, keys, max(1, round(reach)), rounds)
    return _gaussian_blurred(shuffled, sigma)


@kernel
def _shuffle_pixels(images, keys, reach, rounds):
    height, width = images.shape[1], images.shape[2]
    for image in range(images.shape[0]):
        for turn in range(rounds):
            key = fold(keys[image], np.uint64(turn))
            for y in range(height - reach, reach, -1):
                for x in range(width - reach, reach, -1):
                    counter = np.uint64(2 * (y * width + x))
                    from_y = y + below(key, counter, 2 * reach) - reach
                    from_x = x + below(key, counter + _1, 2 * reach) - reach
                    for channel in range(3):
                        images[image, y, x, channel] = images[image, from_y, from_x, channel]


def motion(images: np.ndarray, keys: np.ndarray, *, radius: float, sigma: float) -> np.ndarray:
    """Smears each image in a direction within 45 degrees of the horizontal: float32 [N, H, W, 3]."""
    return motion_blurred(images, 90 * uniforms(keys, ()) - 45, radius=radius, sigma=sigma)


def zoom(images: np.ndarray, keys: np.ndarray, *, stop: float, step: float) -> np.ndarray:
    """The mean of the image and of what factors from 1 to below `stop` enlarge its middle to: float32 [N, H, W, 3]."""
    images = images.astype(np.float32)
    factors = np.arange(1, stop, step)
    total = images.copy()
    for factor in factors:
        total += zoomed(images, float(factor))
    return total / np.float32(len(factors) + 1)


def _gaussian_blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    import scipy.ndimage

    return scipy.ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0), mode="nearest")
