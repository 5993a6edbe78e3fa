"""What a stack is shown: views of its shape, refused in one line wherever they are found to be others."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from divco_tf import compat, keras_settings
from divco_tf.errors import InputError
from divco_tf.models import draws

_REFUSED = "Views do not fit the stack. Received: shape"
_RAISED_IN_GRAPH = re.compile(r"assertion failed: (\[[^\n]*?Received: [^\n]*\])")


def checked_views(views: Any, *, split_factor: int, view_shape: tuple[int, ...]) -> tf.Tensor:
    """Views [B, S, H, W, C], or images [B, H, W, C], as a tensor whose shape is known but for B.

    A shape that is known while tracing is refused then, another one when the graph runs (`told_in_one_line`).

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


@contextlib.contextmanager
def told_in_one_line() -> Iterator[None]:
    """What is refused while a graph is traced, or when it runs, is raised as an InputError of its own line only.

    Keras and AutoGraph put lines of theirs around it, and the graph says where it was made.

    Raises:
      InputError: as said.
    """
    try:
        yield
    except InputError as error:
        lines = [line for line in compat.plain_text(str(error)).splitlines() if "Received: " in line]
        if not lines or lines[0] == str(error):
            raise
        raise InputError(re.sub(r"^\s*(\w+\.)*(InputError: )?", "", lines[0]).strip()) from None
    except tf.errors.InvalidArgumentError as error:
        if (found := _RAISED_IN_GRAPH.search(str(error))) is None:
            raise
        raise InputError(" ".join(part.strip("[]") for part in found[1].split("] ["))) from None


class OneLine:
    """Beside keras.Model: its methods that call the model, under our settings, and refusals in one line."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras's."""
        with keras_settings.ours(), told_in_one_line():
            return super().__call__(*args, **kwargs)

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras's."""
        with keras_settings.ours(), told_in_one_line():
            return super().fit(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras's."""
        with keras_settings.ours(), told_in_one_line():
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras's."""
        with keras_settings.ours(), told_in_one_line():
            return super().predict(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras's."""
        with keras_settings.ours(), told_in_one_line():
            return super().train_on_batch(*args, **kwargs)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras's."""
        with keras_settings.ours(), told_in_one_line():
            return super().test_on_batch(*args, **kwargs)

    def predict_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras's."""
        with keras_settings.ours(), told_in_one_line():
            return super().predict_on_batch(*args, **kwargs)


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
