"""Snow, frost and fog. Functions of images and keys, as in `noise`."""

import numpy as np

from divco_tf.data.corruptions.filters import motion_blurred, zoomed
from divco_tf.data.corruptions.random_fields import normals, plasma, uniforms

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601-2


def snow(
    images: np.ndarray,
    keys: np.ndarray,
    *,
    mean: float,
    std: float,
    size: float,
    threshold: float,
    radius: float,
    sigma: float,
    share: float,
) -> np.ndarray:
    """Flakes that fall, twice, the second time upside down, over a paler image: float32 [N, H, W, 3].

    Flakes are what exceeds `threshold` of normal noise, enlarged to `size` pixels and smeared by motion. Of the image
    `share` stays, and the rest becomes 1.5 times its grey level and a half, where that is brighter.
    """
    height, width = images.shape[1:3]
    flakes = zoomed(mean + std * normals(keys, (height, width, 1)), max(size, 1.0))
    flakes = np.where(flakes < threshold, 0, np.clip(flakes, 0, 1))
    flakes = motion_blurred(255 * flakes, 90 * uniforms(keys, (), stream=1) - 135, radius=radius, sigma=sigma)
    images = images.astype(np.float32)
    pale = np.maximum(images, 1.5 * (images @ _GREY)[..., None] + 127.5)
    return share * images + (1 - share) * pale + flakes + flakes[:, ::-1, ::-1]


# What the five photographs of frost that CIFAR-10-C and ImageNet-C were made with have in common, measured on 1,000
# parts of 32x32 pixels at a fifth of their size: mean levels, evenly spread; the tint, by channel; and the standard
# deviation within such a part.
_FROST_LEVELS, _FROST_TINT, _FROST_STD = (100.0, 220.0), np.array([-18.0, 3.0, 15.0], np.float32), 22.0
_NEEDLES = range(5)  # directions of growth


def frost(images: np.ndarray, keys: np.ndarray, *, image: float, ice: float, length: float) -> np.ndarray:
    """`image` times the image and `ice` times a texture of frost: float32 [N, H, W, 3].

    Not the published corruption, which takes parts of photographs: the texture is made, with a tint, a mean and a
    contrast like theirs. Needles, normal noise that is smeared over about `length` pixels, grow in several directions,
    and the brightest lies on top; clouds, a plasma fractal, vary them.
    """
    height, width = images.shape[1:3]
    needles = [_needles(keys, height, width, length, stream) for stream in _NEEDLES]
    clouds = plasma(keys, height, width, decay=1.3, stream=2 * len(_NEEDLES))
    texture = _FROST_STD * _standardised(_standardised(np.max(needles, axis=0)) + _standardised(clouds) / 2)
    low, high = _FROST_LEVELS
    texture += low + (high - low) * uniforms(keys, (1, 1), stream=2 * len(_NEEDLES) + 1)
    texture = np.clip(texture[..., None] + _FROST_TINT, 0, 255).astype(np.float32)
    return image * images + ice * texture


def _needles(keys: np.ndarray, height: int, width: int, length: float, stream: int) -> np.ndarray:
    """Of one direction, a quarter as wide as long: [N, height, width]."""
    grains = zoomed(normals(keys, (height, width, 1), stream=stream), max(length / 4, 1.0))
    degrees = 360 * uniforms(keys, (), stream=len(_NEEDLES) + stream)
    return _standardised(motion_blurred(grains, degrees, radius=2 * length, sigma=length, border="reflect")[..., 0])


def _standardised(fields: np.ndarray) -> np.ndarray:
    """Each field [N, H, W] of mean 0 and standard deviation 1."""
    return (fields - fields.mean(axis=(1, 2), keepdims=True)) / fields.std(axis=(1, 2), keepdims=True)


def fog(images: np.ndarray, keys: np.ndarray, *, thickness: float, decay: float) -> np.ndarray:
    """Adds clouds up to `thickness` (of levels in 0..1), and darkens all to the image's largest: float32 [N, H, W, 3].

    The clouds are a plasma fractal of this `decay`.
    """
    clouds = plasma(keys, *images.shape[1:3], decay=decay)[..., None]
    largest = images.max(axis=(1, 2, 3), keepdims=True) / 255
    foggy = (images + 255 * thickness * clouds) * (largest / (largest + thickness))
    return foggy.astype(np.float32)
