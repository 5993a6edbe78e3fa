"""What a stack is shown: views of its shape, refused in one line wherever they are found to be others."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models import draws

_LOOKED_AT = 4  # images of a batch
_LARGEST = 50.0  # far beyond what a normalised pixel is; an image that is darker is not told of
_REFUSED = "Views do not fit the stack. Received: shape"


def checked_views(views: Any, *, split_factor: int, view_shape: tuple[int, ...]) -> tf.Tensor:
    """Views [B, S, H, W, C], or images [B, H, W, C], as a tensor whose shape is known but for B.

    A shape that is known while tracing is refused then, another one when the graph runs (`refusals.told_in_one_line`).

    Raises:
      InputError: neither.
    """
    views = tf.convert_to_tensor(views)
    if views.shape.rank is None:  # Keras relaxes the shapes of a function that has been called with both ranks
        views = _asserted(views, split_factor, view_shape)
        size, count = tf.shape(views)[0], tf.where(tf.rank(views) == 5, split_factor, 1)
        views = tf.reshape(views, [size, count, *view_shape])
        return tf.broadcast_to(views, [size, split_factor, *view_shape])
    check_shape(views.shape, split_factor=split_factor, view_shape=view_shape)
    if not views.shape[1:].is_fully_defined():
        views = _asserted(views, split_factor, view_shape)
        views.set_shape([None, *_expected(views.shape.rank, split_factor, view_shape)])
    return views


def check_shape(shape: Any, *, split_factor: int, view_shape: tuple[int, ...]) -> None:
    """Refuses a shape, of which dimensions may be unknown, that is neither that of views nor that of images.

    Raises:
      InputError: as said.
    """
    shape = tf.TensorShape(shape)
    if shape.rank is None:
        return
    if shape.rank not in (4, 5) or not shape[1:].is_compatible_with(_expected(shape.rank, split_factor, view_shape)):
        raise InputError(f"{_REFUSED} {tuple(shape)}; {_would_work(split_factor, view_shape)}")


def warn_of_levels(views: Any, pixel_range: tuple[float, float] | None = None) -> None:
    """Warns of pixels that have not been normalised: networks answer to them all the same, and wrongly.

    Only arrays and eager tensors are looked at, at their first images, outside of what is compiled. Python shows a
    warning once for each place in a program. Levels in 0..255 are told of always, pixels in 0..1 where it is known that
    normalisation makes others of them.

    Args:
      views: as given.
      pixel_range: what black and white are after normalisation, at most; None: not known.
    """
    if not (isinstance(views, np.ndarray) or (isinstance(views, tf.Tensor) and tf.executing_eagerly())):
        return
    few = np.asarray(views[:_LOOKED_AT]) if len(views.shape) in (4, 5) else np.empty(0)
    if few.size == 0 or few.dtype.kind not in "iuf":
        return
    least, most = float(few.min()), float(few.max())
    in_levels = least >= 0 and most > _LARGEST
    in_shares = least >= 0 and 0 < most <= 1 and pixel_range is not None and pixel_range[0] < -0.5
    if in_levels or in_shares:
        warnings.warn(
            f"Views look like pixels in {'0..255' if in_levels else '0..1'}, and a stack takes normalised ones. "
            f"Received: {least:g} to {most:g}; Preprocessing makes them of levels in 0..255, and divco_tf.Classifier "
            "does it inside.",
            stacklevel=3,
        )


def per_branch(views: tf.Tensor, branch_draws: Sequence[tf.Tensor] | None, number: int) -> tuple[list, list]:
    """Each of `number` branches' view and draw keys, of one example at least."""
    per_view = tf.unstack(views, num=number, axis=1) if views.shape.rank == 5 else [views] * number
    if branch_draws is None:
        branch_draws = [tf.zeros([tf.shape(views)[0], *draws.DRAW_SHAPE], tf.uint64)] * number
    if not views.shape[0]:  # None or 0: a replica's share of a small batch may be empty
        per_view, branch_draws = [*map(_never_empty, per_view)], [*map(_never_empty, branch_draws)]
    return per_view, list(branch_draws)


def unless_empty(views: tf.Tensor, after: list[tf.Tensor], before: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The statistics `after` a batch, or those `before` an empty one."""
    if views.shape[0]:
        return after
    any_example = tf.shape(views)[0] > 0
    return [tf.where(any_example, new, old) for new, old in zip(after, before, strict=True)]


def _asserted(views: tf.Tensor, split_factor: int, view_shape: tuple[int, ...]) -> tf.Tensor:
    """The views, when they have been found to fit."""
    shape = tf.shape(views)
    last = tf.concat([tf.zeros([4], tf.int32), shape], axis=0)[-4:]  # of however few dimensions
    images = tf.reduce_all(tf.concat([[tf.size(shape)], last[1:]], axis=0) == [4, *view_shape])
    whole = tf.reduce_all(tf.concat([[tf.size(shape)], last], axis=0) == [5, split_factor, *view_shape])
    told = tf.strings.reduce_join(tf.strings.as_string(shape), separator=", ")
    data = [tf.strings.join([_REFUSED, " (", told, "); ", _would_work(split_factor, view_shape)])]
    with tf.control_dependencies([tf.debugging.Assert(images | whole, data, summarize=1)]):
        return tf.identity(views)


def _expected(rank: int | None, split_factor: int, view_shape: tuple[int, ...]) -> tuple[int, ...]:
    return view_shape if rank == 4 else (split_factor, *view_shape)


def _would_work(split_factor: int, view_shape: tuple[int, ...]) -> str:
    views, images = ([*map(str, _expected(rank, split_factor, view_shape))] for rank in (5, 4))
    return f"pass [B, {', '.join(views)}] or [B, {', '.join(images)}]."


def _never_empty(batch: tf.Tensor) -> tf.Tensor:
    """`batch`, or one example of zeros for an empty one, on which oneDNN's convolutions fail (TensorFlow 2.21)."""
    shape = batch.shape
    if shape[0] == 0:
        return tf.zeros([1, *shape[1:]], batch.dtype)
    one = tf.concat([[1], tf.shape(batch)[1:]], axis=0)
    batch = tf.cond(tf.shape(batch)[0] > 0, lambda: batch, lambda: tf.zeros(one, batch.dtype))
    return tf.ensure_shape(batch, [None, *shape[1:]])
