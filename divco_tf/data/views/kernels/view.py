"""One view from beginning to end, and all views of a batch in one call."""

import numpy as np

from divco_tf.data.views.kernels.augment import RECORD, apply_step, draw_steps
from divco_tf.data.views.kernels.basic import crop_flip, erase, normalise
from divco_tf.data.views.kernels.random_numbers import kernel

_FIRST = np.int64(0)  # not a literal, which would be another type to numba


@kernel
def fill_plain_views(images, keys, pad, flip, erasing, scale, shift, views):
    """`fill_views` without an augmentation: compiled in a third of the time."""
    cropped = np.empty(images.shape[1:], np.uint8)
    for position in range(keys.shape[0]):
        for branch in range(keys.shape[1]):
            key, view = keys[position, branch], views[position, branch]
            crop_flip(images[position], cropped, key, pad, flip)
            normalise(cropped, view, scale, shift)
            erase(view, key, erasing)


@kernel
def fill_views(images, keys, pad, flip, table, draws, erasing, scale, shift, views):
    """Fills `views`, float32 [B, S, H, W, 3], from `images`, uint8 [B, H, W, 3], and `keys`, uint64 [B, S].

    `table` and `draws` are an augmentation (see `augment`); the others as in `basic`.
    """
    cropped, augmented = np.empty(images.shape[1:], np.uint8), np.empty(images.shape[1:], np.uint8)
    records = np.empty((draws * table.shape[1], RECORD))
    counts, levels = np.empty((3, 256), np.int64), np.empty((3, 256), np.uint8)
    for position in range(keys.shape[0]):
        for branch in range(keys.shape[1]):
            key, view = keys[position, branch], views[position, branch]
            crop_flip(images[position], cropped, key, pad, flip)
            for number in range(draw_steps(key, _FIRST, table, draws, records)):
                apply_step(records[number], cropped, augmented, counts, levels)
                cropped, augmented = augmented, cropped
            normalise(cropped, view, scale, shift)
            erase(view, key, erasing)
