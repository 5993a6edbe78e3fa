"""Source -> read -> S views of each image -> batch -> mixup -> prefetch.

A batch is a pure function of (seed, step), so a run goes on anywhere by starting at step k, and nothing depends on
threads, prefetching or an image's neighbours.
"""

import contextlib
import functools
import os
import re
import traceback
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from divco_tf.data import mixing
from divco_tf.data.image_ops.random_numbers import view_keys
from divco_tf.data.policies import ViewPolicy
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import Source
from divco_tf.data.views import make_views
from divco_tf.errors import InputError

_PERMUTATION = 1  # sets these draws apart from mixup's


class ViewPipeline:
    """Training batches of views.

    Args:
      source: training images.
      batch_size: B, of the global batch; the remainder of an epoch is dropped.
      split_factor: S, the number of views of an image.
      policy: what is drawn for a view.
      preprocessing: of evaluation, whose image size (the source's) and normalisation views have.
      seed: of the run.
      mixup_alpha: of mixup's Beta distribution, 0 for none.
      identical_views: shows all branches the same view (an ablation) instead of another one each.

    Raises:
      InputError: an argument is out of its range, or does not fit the source.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        split_factor: int,
        policy: ViewPolicy,
        preprocessing: Preprocessing,
        seed: int = 0,
        mixup_alpha: float = 0.0,
        identical_views: bool = False,
    ) -> None:
        if batch_size < 1 or split_factor < 1:
            raise InputError(
                f"A batch has images, and an image has views. Received: batch_size={batch_size}, "
                f"split_factor={split_factor}; 1 or more would work."
            )
        if len(source) < batch_size:
            raise InputError(
                f"The training images do not fill one batch. Received: batch_size={batch_size}, {len(source)} images; "
                f"a batch_size of {len(source)} or less would work."
            )
        image_size = preprocessing.image_size
        if source.image_size != image_size:
            raise InputError(
                f"The source's images have another size. Received: image_size={image_size}; {source.image_size} would "
                "work, or opening the source with this image_size."
            )
        if not mixup_alpha >= 0:
            raise InputError(f"Mixup's alpha is not negative. Received: {mixup_alpha}; 0.2, or 0 for none, would work.")
        policy.check_size(image_size, image_size)
        self.source, self.policy, self.seed = source, policy, seed
        self.batch_size, self.split_factor, self.image_size = batch_size, split_factor, image_size
        self.mean, self.std = preprocessing.mean, preprocessing.std
        self.mixup_alpha, self.identical_views = mixup_alpha, identical_views
        # Two epochs, since threads at the turn of an epoch ask for either.
        self._permutation = functools.lru_cache(maxsize=2)(self._draw_permutation)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches an epoch: floor(N / B)."""
        return len(self.source) // self.batch_size

    def indices_at(self, step: int) -> np.ndarray:
        """Which images of the source make up the batch of `step`, int64 [B]; each at most once an epoch."""
        if step < 0:
            raise InputError(f"Steps count from 0. Received: {step}.")
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._permutation(epoch)[place * self.batch_size : (place + 1) * self.batch_size]

    def views_at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch of a step (0, 1, ..., on through all epochs).

        Returns:
          Views float32 [B, S, H, W, 3], normalised; labels float32 [B, K], one-hot or mixed.

        Raises:
          InputError: the step is negative, or an image cannot be read.
        """
        indices = self.indices_at(step)
        keys = view_keys(
            seed=self.seed,
            step=step,
            batch_size=self.batch_size,
            split_factor=1 if self.identical_views else self.split_factor,
        )
        images = self.source.read_batch(indices)
        views = make_views(images, keys, policy=self.policy, mean=self.mean, std=self.std)
        labels = np.zeros((self.batch_size, self.source.num_classes), np.float32)
        labels[np.arange(self.batch_size), self.source.labels[indices]] = 1
        views, labels = mixing.mixup(views, labels, seed=self.seed, step=step, alpha=self.mixup_alpha)
        return (np.repeat(views, self.split_factor, axis=1) if self.identical_views else views), labels

    def dataset(self, start_step: int, stop_step: int, *, threads: int | None = None) -> tf.data.Dataset:
        """The batches of `views_at(start_step)` to `views_at(stop_step - 1)`, in order, made ahead in `threads`.

        Args:
          start_step: the first step.
          stop_step: the one after the last.
          threads: at most so many batches are made at once, and threads + 2 wait in memory; by default one a core, at
            most 16.

        Returns:
          A dataset of (views float32 [B, S, H, W, 3], labels float32 [B, K]). Bad data raises a `tf.errors.OpError`
          that `reraise_input_error` turns into its one line.
        """
        shape = (self.batch_size, self.split_factor, self.image_size, self.image_size, 3)
        shapes = (shape, (self.batch_size, self.source.num_classes))
        steps = tf.data.Dataset.range(start_step, stop_step)
        return _mapped(steps, self.views_at, (tf.float32, tf.float32), shapes, threads)

    def _draw_permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed % 2**64, _PERMUTATION, epoch]).permutation(len(self.source))


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
    if batch_size < 1:
        raise InputError(f"A batch has images. Received: batch_size={batch_size}; 1 or more would work.")

    # Stored images that differ in size are prepared one by one.
    chunk, side = (batch_size, source.image_size) if source.same_size else (1, None)

    def read(start: int) -> tuple[np.ndarray, np.ndarray]:
        indices = np.arange(start, min(start + chunk, len(source)))
        images = source.read_batch(indices) if source.same_size else source.read_stored(start)[None]
        return images, source.labels[indices]

    starts = tf.data.Dataset.range(0, len(source), chunk)
    chunks = _mapped(starts, read, (tf.uint8, tf.int64), ((None, side, side, 3), (None,)), threads)
    chunks = chunks.map(
        lambda images, labels: (preprocess(images), labels),
        num_parallel_calls=threads or _default_threads(),
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


def _mapped(
    indices: tf.data.Dataset,
    function: Callable[[int], tuple[np.ndarray, ...]],
    dtypes: tuple[tf.DType, ...],
    shapes: tuple[tuple[int | None, ...], ...],
    threads: int | None,
) -> tf.data.Dataset:
    """`function` of each index, in order, called from several threads."""
    threads = _default_threads() if threads is None else threads
    if threads < 1:
        raise InputError(f"A number of threads. Received: {threads}; 1 or more would work.")

    def call(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # A stateful function runs one call at a time where operations have to be deterministic.
        arrays = tf.numpy_function(lambda i: function(int(i)), [index], dtypes, stateful=False)
        return tuple(tf.ensure_shape(array, shape) for array, shape in zip(arrays, shapes, strict=True))

    options = tf.data.Options()
    options.autotune.enabled = False  # its thread can delay an iterator's end by as long as it has run
    options.threading.private_threadpool_size = threads  # Python functions would fill the pool that the model runs in
    return indices.map(call, num_parallel_calls=threads, deterministic=True).prefetch(2).with_options(options)


def _default_threads() -> int:
    return min(os.cpu_count() or 1, 16)
