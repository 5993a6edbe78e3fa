"""Batches as tf.data's: made ahead in threads; evaluation's; and errors that come through TensorFlow."""

import contextlib
import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from divco_tf import fields
from divco_tf.data.sources import Source
from divco_tf.data.sources.checked import read_batch, read_labels, read_stored
from divco_tf.errors import InputError

_BEING_MADE = 2**30  # bytes of the batches that are made at once


def evaluation_dataset(
    source: Source,
    *,
    batch_size: int,
    preprocess: Callable[[tf.Tensor], tf.Tensor],
    threads: int | None = None,
) -> tf.data.Dataset:
    """Every image of a source once, in order; the last batch may be smaller.

    Args:
      source: the images.
      batch_size: of all batches but the last.
      preprocess: uint8 [N, H, W, 3] to float32 [N, size, size, 3], TensorFlow operations: a `Preprocessing`.
      threads: as in `ViewPipeline.dataset`.

    Returns:
      A dataset of (images float32 [n, size, size, 3], labels int64 [n]).

    Raises:
      InputError: the batch size is not positive.
    """
    if fields.checked(batch_size, int, "batch_size") < 1:
        raise InputError(f"A batch has images. Received: batch_size={batch_size}; 1 or more would work.")

    # Stored images that differ in size are prepared one by one.
    chunk, side = (batch_size, source.image_size) if source.same_size else (1, None)

    def read(start: int) -> tuple[np.ndarray, np.ndarray]:
        indices = np.arange(start, min(start + chunk, len(source)))
        images = read_batch(source, indices) if source.same_size else read_stored(source, start)[None]
        return images, read_labels(source, indices).astype(np.int64)

    shapes, dtypes = ((None, side, side, 3), (None,)), (np.uint8, np.int64)
    chunks = mapped(read, range(0, len(source), chunk), shapes, dtypes, threads=threads)
    chunks = chunks.map(
        lambda images, labels: (preprocess(images), labels),
        num_parallel_calls=checked_threads(threads),
        deterministic=True,
    )
    return (chunks if source.same_size else chunks.unbatch().batch(batch_size)).prefetch(2)


def reraise_input_error(error: BaseException) -> None:
    """Raises the `InputError` that `error` stands for, if there is one; otherwise returns.

    An exception raised inside tf.data arrives as a `tf.errors.OpError` that holds its text and a traceback.
    """
    if isinstance(error, InputError):
        raise error
    found = re.search(r"\b(?:InputError|BadImage): (.+)", getattr(error, "message", None) or str(error))
    if isinstance(error, tf.errors.OpError) and found:
        raise InputError(found.group(1)) from error


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Stands around a loop over a dataset: bad data raise `InputError`, and the iterator ends with the loop.

    A traceback keeps the iterator that an exception came through. When the interpreter ends, its threads can no longer
    run our Python, and its end would wait for them for ever (TensorFlow 2.21).
    """
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        reraise_input_error(error)
        raise


def mapped(
    function: Callable[[int], tuple[np.ndarray, ...]],
    numbers: range,
    shapes: Sequence[Sequence[int | None]],
    dtypes: Sequence[type[np.generic]],
    *,
    threads: int | None = None,
) -> tf.data.Dataset:
    """`function` of each number, in order, called from several threads: arrays of these shapes and dtypes."""
    threads = checked_threads(threads)

    def call(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # A stateful function runs one call at a time where operations have to be deterministic.
        arrays = tf.numpy_function(lambda i: function(int(i)), [number], list(dtypes), stateful=False)
        return tuple(tf.ensure_shape(array, shape) for array, shape in zip(arrays, shapes, strict=True))

    options = tf.data.Options()
    options.autotune.enabled = False  # its thread can delay an iterator's end by as long as it has run
    options.threading.private_threadpool_size = threads  # Python functions would fill the pool that the model runs in
    dataset = tf.data.Dataset.range(numbers.start, numbers.stop, numbers.step)
    return dataset.map(call, num_parallel_calls=threads, deterministic=True).prefetch(2).with_options(options)


def batches_at_once(threads: int | None, *, batch_bytes: int, in_memory: bool) -> int:
    """How many batches of so many bytes `threads` make at once, of images in memory or elsewhere."""
    threads = checked_threads(threads)
    if in_memory:  # more threads than cores help only where they wait for a disk
        threads = min(threads, os.cpu_count() or 1)
    return max(1, min(threads, _BEING_MADE // batch_bytes))


def checked_threads(threads: int | None) -> int:
    """The number of threads: one a core, at most 16, unless given.

    Raises:
      InputError: it is no number from 1 on.
    """
    if threads is None:
        return min(os.cpu_count() or 1, 16)
    if fields.checked(threads, int, "threads") < 1:
        raise InputError(f"A number of threads. Received: {threads}; 1 or more would work.")
    return threads
