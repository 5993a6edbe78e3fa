"""One view from beginning to end, for all views of a batch: the kernel that is called once a batch."""

import numpy as np

from divco_tf.data.image_ops.basic import crop_flip, erase, normalise
from divco_tf.data.image_ops.random_numbers import kernel


@kernel
def fill_views(images, keys, pad, flip, erasing, scale, shift, views):
    """Fills `views`, float32 [B, S, H, W, 3], from `images`, uint8 [B, H, W, 3], and `keys`, uint64 [B, S]."""
    cropped = np.empty(images.shape[1:], np.uint8)
    for position in range(keys.shape[0]):
        for branch in range(keys.shape[1]):
            key, view = keys[position, branch], views[position, branch]
            crop_flip(images[position], cropped, key, pad, flip)
            normalise(cropped, view, scale, shift)
            erase(view, key, erasing)
