"""Brightness, contrast, elastic deformation, pixelation and JPEG. Functions of images and keys, as in `noise`."""

import io

import numpy as np

from divco_tf.data.corruptions.random_fields import uniforms


def brightness(images: np.ndarray, keys: np.ndarray, *, added: float) -> np.ndarray:
    """Adds to the value of HSV, of which the largest channel is the value (0..1): float32 [N, H, W, 3]."""
    value = images.max(axis=-1, keepdims=True).astype(np.float32)
    brighter = np.minimum(value + np.float32(255 * added), np.float32(255))
    return np.where(value > 0, images * (brighter / np.maximum(value, 1)), brighter)


def contrast(images: np.ndarray, keys: np.ndarray, *, factor: float) -> np.ndarray:
    """Moves each channel towards its mean over the image: float32 [N, H, W, 3]."""
    means = images.mean(axis=(1, 2), keepdims=True)
    return ((images - means) * factor + means).astype(np.float32)


def elastic(images: np.ndarray, keys: np.ndarray, *, strength: float, sigma: float, jitter: float) -> np.ndarray:
    """An affine transformation, then a smooth displacement of each pixel: float32 [N, H, W, 3].

    Three points, which a third of the shorter side parts from the centre, move by up to `jitter` along each axis. Then
    each pixel is taken from `strength` times a field that is uniform in [-1, 1] and blurred by `sigma`, all in pixels.
    Simard, Steinkraus and Platt, "Best practices for convolutional neural networks", ICDAR 2003.
    """
    import scipy.ndimage

    height, width = images.shape[1:3]
    grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1).astype(np.float64)
    affine = _from_moved(keys, height, width, jitter)[:, None]
    places = np.concatenate([grid, np.ones((height, width, 1))], axis=-1) @ affine
    images = _sampled(images.astype(np.float32), places, mode="mirror")
    moves = 2 * uniforms(keys, (2, height, width), stream=1) - 1
    moves = strength * scipy.ndimage.gaussian_filter(moves, (0, 0, sigma, sigma), mode="reflect", truncate=3)
    return _sampled(images, grid + np.moveaxis(moves, 1, -1), mode="reflect")


def pixelate(images: np.ndarray, keys: np.ndarray, *, scale: float) -> np.ndarray:
    """Resizes to `scale` of the sides, rounded down, and back, by box filters: uint8 [N, H, W, 3]."""
    from PIL import Image

    size = images.shape[2], images.shape[1]
    smaller = tuple(max(1, int(length * scale)) for length in size)
    box = Image.Resampling.BOX

    def pixelated(image: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(image).resize(smaller, box).resize(size, box))

    return np.stack([pixelated(image) for image in images])


def jpeg(images: np.ndarray, keys: np.ndarray, *, quality: int) -> np.ndarray:
    """Compresses and decompresses by libjpeg, colours at half the resolution: uint8 [N, H, W, 3]."""
    from PIL import Image

    def compressed(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return np.stack([compressed(image) for image in images])


def _from_moved(keys: np.ndarray, height: int, width: int, jitter: float) -> np.ndarray:
    """The affine transformations that take moved points back to where they were: [N, 3, 2], of rows (y, x, 1)."""
    middle, reach = np.array([height // 2, width // 2]), min(height, width) // 3
    points = middle + reach * np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]])
    moved = points + jitter * (2 * uniforms(keys, (3, 2)) - 1)
    return np.linalg.solve(np.concatenate([moved, np.ones((len(keys), 3, 1))], axis=-1), points)


def _sampled(images: np.ndarray, places: np.ndarray, *, mode: str) -> np.ndarray:
    """Images float32 [N, H, W, 3] at places [N, H, W, 2], (y, x), bilinearly."""
    import scipy.ndimage

    sampled = np.empty_like(images)
    for image, place, out in zip(images, np.moveaxis(places, -1, 1), sampled, strict=True):
        for channel in range(3):
            out[..., channel] = scipy.ndimage.map_coordinates(image[..., channel], place, order=1, mode=mode)
    return sampled
