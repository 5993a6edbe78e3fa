"""The views of a batch: policies turned into calls of kernels, one pass a view from uint8 to normalised float32."""

import numpy as np

from divco_tf.data.image_ops.view import fill_views
from divco_tf.data.policies import ViewPolicy


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
      keys: uint64 [B, S], see `random_numbers.view_keys`.
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
    fill_views(
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
