"""Linear filters of batches of images [N, H, W, C]: weighted sums of shifted images, motion blur, zooming."""

import math

import numpy as np

from divco_tf.data.views.kernels.random_numbers import kernel

_TINY = 1e-3


def grey_levels(values: np.ndarray) -> np.ndarray:
    """Levels as they are stored, uint8: clipped to 0..255 and cut off, as CIFAR-10-C's are.

    In float32 a whole number may come out 1e-4 too small.
    """
    return np.clip(values + _TINY, 0, 255).astype(np.uint8)


@kernel
def _add_shifted(padded, offsets, weights, channels, sums):
    """Adds up `padded`, float32 [N, rows, C * columns], shifted by `offsets`, int64 [N, n, 2], into `sums`."""
    length = sums.shape[2]
    for image in range(sums.shape[0]):
        for y in range(sums.shape[1]):
            row = sums[image, y]
            row[:] = 0
            for tap in range(weights.shape[0]):
                first = channels * offsets[image, tap, 1]
                source = padded[image, y + offsets[image, tap, 0], first : first + length]
                weight = weights[tap]
                for i in range(length):
                    row[i] += weight * source[i]


def shifted_sum(images: np.ndarray, offsets: np.ndarray, weights: np.ndarray, *, border: str) -> np.ndarray:
    """At each pixel the sum of `weights` times what lies at `offsets` from it.

    Args:
      images: numbers [N, H, W, C].
      offsets: int [N, n, 2], or [1, n, 2] for all: rows and columns.
      weights: [n].
      border: how images go on beyond their edges: "edge" repeats the last pixel, "reflect" mirrors at its centre.

    Returns:
      float32 [N, H, W, C].
    """
    count, height, width, channels = images.shape
    reach = int(np.abs(offsets).max())
    padded = np.pad(images.astype(np.float32), ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode=border)
    offsets = np.ascontiguousarray(np.broadcast_to(offsets + reach, (count, *offsets.shape[1:])), np.int64)
    sums = np.empty((count, height, channels * width), np.float32)
    _add_shifted(padded.reshape(count, padded.shape[1], -1), offsets, weights.astype(np.float32), channels, sums)
    return sums.reshape(images.shape)


def motion_blurred(
    images: np.ndarray, degrees: np.ndarray, *, radius: float, sigma: float, border: str = "edge"
) -> np.ndarray:
    """Each image smeared in a direction of its own, float32 [N, H, W, C], as ImageMagick's -motion-blur does.

    One half of a Gaussian lies on a line from the pixel on; its places are rounded to pixels, halves down.

    Args:
      images: numbers [N, H, W, C].
      degrees: [N], clockwise from the right.
      radius: the line has twice as many steps, rounded up.
      sigma: of the Gaussian, in pixels.
      border: as in `shifted_sum`.
    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    radians = np.deg2rad(degrees)[:, None]
    places = np.stack([steps * np.sin(radians), steps * np.cos(radians)], axis=-1)
    return shifted_sum(images, np.ceil(places - 0.5).astype(np.int64), weights / weights.sum(), border=border)


@kernel
def _fill_zoomed(images, rows, columns, line, zoomed):
    """Samples float32 images [N, H, W, C] at float64 `rows` and `columns`, bilinearly; `line` [W, C] is scratch."""
    last_row, last_column = images.shape[1] - 1, images.shape[2] - 1
    for image in range(images.shape[0]):
        for y in range(rows.size):
            top = np.int64(rows[y])
            share = np.float32(rows[y] - top)
            above, below = images[image, top], images[image, min(top + 1, last_row)]
            for x in range(line.shape[0]):
                for channel in range(line.shape[1]):
                    line[x, channel] = above[x, channel] + share * (below[x, channel] - above[x, channel])
            for x in range(columns.size):
                left = np.int64(columns[x])
                right, share = min(left + 1, last_column), np.float32(columns[x] - left)
                for channel in range(line.shape[1]):
                    level = line[left, channel]
                    zoomed[image, y, x, channel] = level + share * (line[right, channel] - level)


def zoomed(images: np.ndarray, factor: float) -> np.ndarray:
    """The middle of float32 images [N, H, W, C], enlarged to their size by a factor from 1 on, bilinearly."""
    height, width, channels = images.shape[1:]
    larger = np.empty_like(images)
    line = np.empty((width, channels), np.float32)
    _fill_zoomed(images, _places(height, factor), _places(width, factor), line, larger)
    return larger


def _places(length: int, factor: float) -> np.ndarray:
    """Where each pixel of a line lies in it before the middle was enlarged.

    scipy.ndimage.zoom maps first pixel to first and last to last, and rounds the number of pixels; of those that are
    too many both ends are cut off. So factors near 1 leave small images as they are: in CIFAR-10-C too.
    """
    kept = math.ceil(length / factor)
    enlarged = round(kept * factor)
    places = (length - kept) // 2 + (np.arange(length) + (enlarged - length) // 2) * ((kept - 1) / (enlarged - 1))
    return np.minimum(places, length - 1)
