"""Source -> read -> S views of each image -> batch -> mixup -> prefetch.

A batch is a pure function of (seed, step), so a run goes on anywhere by starting at step k, and nothing depends on
threads, prefetching or an image's neighbours.
"""

import concurrent.futures
import contextlib
import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divco_tf import fields
from divco_tf.data import draws
from divco_tf.data.batch_ops import BatchOperations, KerasLayer
from divco_tf.data.checks import check_images, check_labels
from divco_tf.data.decoding import Box
from divco_tf.data.mixing import Mixing
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import ArraySource, BadImage, Source, check_on_error
from divco_tf.data.views.kernels.basic import mix
from divco_tf.data.views.kernels.random_numbers import compiling_told, shuffled, view_keys
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.policies import ViewPolicy
from divco_tf.errors import InputError

ORDER = 2  # by which images follow each other, and are mixed; 1, of 0.1.0, was of numpy's generators
_BEING_MADE = 2**30  # bytes of the batches that are made at once


class ViewPipeline:
    """Training batches of views.

    Args:
      source: training images.
      batch_size: B, of the global batch; the remainder of an epoch is dropped.
      split_factor: S, the number of views of an image.
      policy: what is drawn for a view, or S policies, one for each branch.
      preprocessing: of evaluation, whose image size (the source's) and normalisation views have.
      seed: of the run.
      mixup_alpha: of mixup's Beta distribution, 0 for none.
      cutmix_alpha: of CutMix's Beta distribution, 0 for none; with both, one of the two is drawn a step.
      mix_block: partners are mixed within so many consecutive images of the batch; None: the whole batch.
      identical_views: shows all branches the same view (an ablation) instead of another one each.
      batch_operations: names of registered batch operations, and `KerasLayer`s, in their order.
      on_error: "raise", or "skip": an image that cannot be read is replaced by the next good one of the epoch.
      part: (i, n) makes the i-th of n equal slices of every batch, as one of n hosts does.

    Raises:
      InputError: an argument is out of its range, or does not fit the source.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        split_factor: int,
        policy: ViewPolicy | Sequence[ViewPolicy],
        preprocessing: Preprocessing,
        seed: int = 0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        mix_block: int | None = None,
        identical_views: bool = False,
        batch_operations: Sequence[str | KerasLayer] = (),
        on_error: str = "raise",
        part: tuple[int, int] = (0, 1),
    ) -> None:
        policies = tuple(policy) if isinstance(policy, tuple | list) else (policy,)
        _check_batch(
            source, batch_size, split_factor, policies, seed, identical_views, batch_operations, on_error, part
        )
        image_size = preprocessing.image_size
        if source.image_size != image_size:
            raise InputError(
                f"The source's images have another size. Received: image_size={image_size}; {source.image_size} would "
                "work, or opening the source with this image_size."
            )
        self._mixing = Mixing(mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha, block=mix_block)
        self._mixing.check_batch(batch_size)
        for one in policies:
            one.check_size(image_size, image_size)
        self.source, self.seed, self.split_factor = source, seed, split_factor
        self.batch_size, self.image_size = batch_size, image_size
        self.replaced: dict[int, str] = {}  # images that could not be read, and why
        self.preprocessing = preprocessing
        self._makers = [ViewMaker(one, mean=preprocessing.mean, std=preprocessing.std) for one in policies]
        self._batch_operations = BatchOperations(
            batch_operations, image_size=image_size, mean=preprocessing.mean, std=preprocessing.std
        )
        self._identical_views, self._skips = identical_views, on_error == "skip"
        self._part = (part[0] * batch_size // part[1], (part[0] + 1) * batch_size // part[1])
        self._order_key = draws.fold(draws.ORDER, seed)
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Full batches an epoch: floor(N / B)."""
        return len(self.source) // self.batch_size

    def indices_at(self, step: int) -> np.ndarray:
        """Which images of the source make up the global batch of `step`, int64 [B]; each at most once an epoch."""
        _check_step(step)
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._order(epoch, place * self.batch_size, (place + 1) * self.batch_size)

    def views_at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch of a step (0, 1, ..., on through all epochs), or this host's part of it.

        Returns:
          Views float32 [B, S, H, W, 3], normalised; labels float32 [B, K], one-hot or mixed.

        Raises:
          InputError: the step is negative, or an image cannot be read.
        """
        _check_step(step)
        start, stop = self._part
        mixture = self._mixing.draw(seed=self.seed, step=step, batch_size=self.batch_size)
        needed = np.arange(start, stop) if mixture is None else mixture.positions(start, stop)
        views, labels = self.unmixed_at(step, needed)
        views, labels = self._batch_operations(views, labels, seed=self.seed, step=step)
        if mixture is not None:
            views, labels = mixture.apply(views, labels, start=start, stop=stop)
        return (np.repeat(views, self.split_factor, axis=1) if self._identical_views else views), labels

    def unmixed_at(self, step: int, positions: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What `positions` (int [n], of the global batch) hold before they are mixed.

        Returns:
          Views float32 [n, S, H, W, 3], with `identical_views` [n, 1, H, W, 3]; labels float32 [n, K], one-hot.

        Raises:
          InputError: as `views_at`.
        """
        positions = np.asarray(positions, np.int64)
        keys = self.keys_at(step)[positions]
        views = np.empty((*keys.shape, self.image_size, self.image_size, 3), np.float32)
        indices = self.indices_at(step)[positions]
        if isinstance(self.source, ArraySource) and not self._makers[0].needs_stored:
            self._make_views(_read_batch(self.source, indices), keys, views)
        else:
            indices = np.array(list(self._map(lambda i: self._fill(step, positions[i], keys[i], views[i]), len(keys))))
        labels = np.zeros((len(positions), self.source.num_classes), np.float32)
        labels[np.arange(len(positions)), _labels_of(self.source, indices)] = 1
        return views, labels

    def keys_at(self, step: int) -> np.ndarray:
        """The keys of the global batch's views, uint64 [B, S], or [B, 1] with `identical_views`."""
        branches = 1 if self._identical_views else self.split_factor
        return view_keys(seed=self.seed, step=step, batch_size=self.batch_size, split_factor=branches)

    def image_at(self, step: int, position: int) -> np.ndarray:
        """The image at a position of the global batch before views are made of it, uint8 [H, W, 3]."""
        return self._first_good(step, position, self._read)[1]

    def drawn_at(self, step: int, position: int, branch: int) -> list[tuple[str, float]]:
        """The operations, with their arguments, that are drawn for a view."""
        return self._maker(branch).drawn(self.keys_at(step)[position, 0 if self._identical_views else branch])

    def dataset(self, start_step: int, stop_step: int, *, threads: int | None = None) -> tf.data.Dataset:
        """The batches of `views_at(start_step)` to `views_at(stop_step - 1)`, in order, made ahead in `threads`.

        Args:
          start_step: the first step.
          stop_step: the one after the last.
          threads: so many work at once, by default one a core, at most 16: on a batch each while the batches being made
            stay below a gigabyte, else on the images of a batch together.

        Returns:
          A dataset of (views float32 [B, S, H, W, 3], labels float32 [B, K]). Bad data raises a `tf.errors.OpError`
          that `reraise_input_error` turns into its one line.
        """
        threads = _checked_threads(threads)
        batches = self.batches_at_once(threads)
        if batches < threads and self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="views")
        shape = (self._size, self.split_factor, self.image_size, self.image_size, 3)
        shapes = (shape, (self._size, self.source.num_classes))
        steps = tf.data.Dataset.range(start_step, stop_step)
        return _mapped(steps, self.views_at, (tf.float32, tf.float32), shapes, batches)

    def batches_at_once(self, threads: int | None = None) -> int:
        """How many batches `dataset` makes at once; two more wait in memory."""
        threads = _checked_threads(threads)
        if isinstance(self.source, ArraySource):  # more threads than cores help only where they wait for a disk
            threads = min(threads, os.cpu_count() or 1)
        return max(1, min(threads, _BEING_MADE // self.batch_bytes))

    @property
    def batch_bytes(self) -> int:
        """Bytes of a batch's views."""
        return self._size * self.split_factor * self.image_size**2 * 3 * 4

    @property
    def _size(self) -> int:
        return self._part[1] - self._part[0]

    def warm_up(self, *, report: Callable[[str], None] | None = None) -> None:
        """Loads, or compiles, the kernels of a view, so that the first batch does not wait for it.

        Args:
          report: is told, in one line, if kernels have to be compiled.
        """
        told = contextlib.nullcontext() if report is None else compiling_told(report)
        with told, contextlib.suppress(InputError):  # the first batch tells of it
            self.unmixed_at(0, [0])
            if self._mixing:
                mix(np.zeros((1, 1), np.float32), np.zeros(1, np.int64), 1.0)

    def _maker(self, branch: int) -> ViewMaker:
        return self._makers[branch if len(self._makers) > 1 else 0]

    def _make_views(self, images: np.ndarray, keys: np.ndarray, views: np.ndarray) -> None:
        if len(self._makers) == 1:
            self._makers[0](images, keys, views)
            return
        for branch, maker in enumerate(self._makers):
            maker(images, keys[:, branch : branch + 1], views[:, branch : branch + 1])

    def _fill(self, step: int, position: int, keys: np.ndarray, views: np.ndarray) -> int:
        """Makes the views [S, H, W, 3] at a position of the batch; returns the index of the image that is shown."""

        def make(index: int) -> None:
            if self._makers[0].needs_stored:
                self._fill_from_stored(index, keys, views)
            else:
                self._make_views(self._read(index)[None], keys[None], views[None])

        return self._first_good(step, position, make)[0]

    def _first_good(self, step: int, position: int, read: Callable[[int], Any]) -> tuple[int, Any]:
        """What `read` makes of the image at a position, or of the next one of the epoch that can be read: and which."""
        epoch, place = divmod(step, self.steps_per_epoch)
        count, first = len(self.source), place * self.batch_size + int(position)
        for following in range(first, first + count):
            index = int(self._order(epoch, following % count, following % count + 1)[0])
            try:
                return index, read(index)
            except BadImage as error:
                if not self._skips:
                    raise
                self.replaced[index] = str(error)
        raise InputError(f"No image of the epoch can be read. Received: {count} bad ones; mend the data.")

    def boxes(self, keys: np.ndarray, height: int, width: int) -> list[Box]:
        """The parts of a stored image of these pixels that its views, of `keys` uint64 [S], show."""
        return [self._maker(branch).box(key, height, width) for branch, key in enumerate(keys)]

    def _fill_from_stored(self, index: int, keys: np.ndarray, views: np.ndarray) -> None:
        boxes: list[Box] = []

        def choose(height: int, width: int) -> Box:
            boxes[:] = self.boxes(keys, height, width)
            return union(boxes)

        region = self.source.read_region(index, choose)
        top, left, *size = union(boxes)
        check_images(region, (*size, 3), of=_told(self.source))
        for branch, (y, x, height, width) in enumerate(boxes):
            self._maker(branch).from_region(region, (y - top, x - left, height, width), keys[branch], views[branch])

    def _map(self, function: Callable[[int], int], count: int) -> Iterator[int]:
        return map(function, range(count)) if self._pool is None else self._pool.map(function, range(count))

    def _read(self, index: int) -> np.ndarray:
        return check_images(self.source.read(index), (*[self.image_size] * 2, 3), of=_told(self.source))

    def _order(self, epoch: int, start: int, stop: int) -> np.ndarray:
        """The images at places [start, stop) of an epoch's random order."""
        return shuffled(draws.fold(self._order_key, epoch), size=len(self.source), start=start, stop=stop)


def _told(source: Source) -> str:
    return f"the source {type(source).__name__}"


def _read_batch(source: Source, indices: np.ndarray) -> np.ndarray:
    return check_images(source.read_batch(indices), (len(indices), *[source.image_size] * 2, 3), of=_told(source))


def _labels_of(source: Source, indices: np.ndarray) -> np.ndarray:
    return check_labels(source.labels_of(indices), len(indices), num_classes=source.num_classes, of=_told(source))


def _check_step(step: int) -> None:
    if not isinstance(step, int | np.integer) or step < 0:
        raise InputError(f"Steps count from 0. Received: {step}.")


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes."""
    top, left = min(box[0] for box in boxes), min(box[1] for box in boxes)
    bottom, right = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return top, left, bottom - top, right - left


def _check_batch(
    source: Source,
    batch_size: int,
    split_factor: int,
    policies: tuple[ViewPolicy, ...],
    seed: int,
    identical_views: bool,
    batch_operations: Sequence[str | KerasLayer],
    on_error: str,
    part: tuple[int, int],
) -> None:
    for name, number in (("batch_size", batch_size), ("split_factor", split_factor), ("seed", seed)):
        fields.checked(number, int, name)
    fields.checked(policies, tuple[ViewPolicy, ...], "policy")
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
    if len(policies) not in (1, split_factor) or (identical_views and len(policies) > 1):
        raise InputError(
            f"One policy is for all branches, or each has its own. Received: {len(policies)} policies, "
            f"split_factor={split_factor}, identical_views={identical_views}; one policy would work."
        )
    if len({policy.resized_crop is None for policy in policies}) > 1:
        raise InputError(
            "All branches cut views out of the stored image, or none. Received: policies with and without a "
            "resized_crop; all of one kind would work."
        )
    check_on_error(on_error)
    index, count = part
    if count > 1 and batch_operations:
        raise InputError(
            f"A batch operation draws for the batch it sees, so a host's part would get other views than in the whole. "
            f"Received: part={part} and {len(batch_operations)} batch operations; part=(0, 1), or a policy's "
            "augmentation, would work."
        )
    if not 0 <= index < count or batch_size % count:
        raise InputError(
            f"A host makes one of equal parts of a batch. Received: part={part} of batch_size={batch_size}; (i, n) "
            "with i < n, and n a divisor of the batch, would work."
        )


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
        if source.same_size:
            images = _read_batch(source, indices)
        else:
            images = check_images(source.read_stored(start), (None, None, 3), of=_told(source))[None]
        return images, _labels_of(source, indices).astype(np.int64)

    starts = tf.data.Dataset.range(0, len(source), chunk)
    chunks = _mapped(starts, read, (tf.uint8, tf.int64), ((None, side, side, 3), (None,)), threads)
    chunks = chunks.map(
        lambda images, labels: (preprocess(images), labels),
        num_parallel_calls=_checked_threads(threads),
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
    threads = _checked_threads(threads)

    def call(index: tf.Tensor) -> tuple[tf.Tensor, ...]:
        # A stateful function runs one call at a time where operations have to be deterministic.
        arrays = tf.numpy_function(lambda i: function(int(i)), [index], dtypes, stateful=False)
        return tuple(tf.ensure_shape(array, shape) for array, shape in zip(arrays, shapes, strict=True))

    options = tf.data.Options()
    options.autotune.enabled = False  # its thread can delay an iterator's end by as long as it has run
    options.threading.private_threadpool_size = threads  # Python functions would fill the pool that the model runs in
    return indices.map(call, num_parallel_calls=threads, deterministic=True).prefetch(2).with_options(options)


def _checked_threads(threads: int | None) -> int:
    if threads is None:
        return min(os.cpu_count() or 1, 16)
    if fields.checked(threads, int, "threads") < 1:
        raise InputError(f"A number of threads. Received: {threads}; 1 or more would work.")
    return threads
