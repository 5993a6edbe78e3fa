"""Source -> read -> S views of each image -> batch -> batch operations -> mixing.

A batch is a pure function of (seed, step), so a run goes on anywhere by starting at step k, and nothing depends on
threads, prefetching or an image's neighbours.
"""

import concurrent.futures
import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from divco_tf import fields
from divco_tf.data import streams
from divco_tf.data.batch_runner import BatchOperations
from divco_tf.data.branch_views import BranchViews
from divco_tf.data.decoding import Box
from divco_tf.data.fallback import FirstGood
from divco_tf.data.keras_layers import KerasLayer
from divco_tf.data.mixing import Mixing
from divco_tf.data.order import Order, check_step
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import ArraySource, Source, check_on_error
from divco_tf.data.sources.checked import read_image, read_labels
from divco_tf.data.views.kernels.basic import mix
from divco_tf.data.views.kernels.random_numbers import compiling_told, view_keys
from divco_tf.data.views.policies import ViewPolicy
from divco_tf.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


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
        _check_sizes(source, batch_size, split_factor, seed, preprocessing.image_size)
        _check_policies(policies, split_factor, identical_views, preprocessing.image_size)
        check_on_error(on_error)
        _check_part(part, batch_size, batch_operations)
        self._mixing = Mixing(mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha, block=mix_block)
        self._mixing.check_batch(batch_size)
        self.source, self.seed, self.split_factor = source, seed, split_factor
        self.batch_size, self.image_size, self.preprocessing = batch_size, preprocessing.image_size, preprocessing
        self._identical_views = identical_views
        self._part = (part[0] * batch_size // part[1], (part[0] + 1) * batch_size // part[1])
        self._order = Order(seed=seed, images=len(source), batch_size=batch_size)
        self._first_good = FirstGood(self._order, skips=on_error == "skip")
        self.replaced = self._first_good.replaced  # why images could not be read, by their index
        self._views = BranchViews(source, policies, preprocessing)
        self._batch_operations = BatchOperations(
            batch_operations, image_size=self.image_size, mean=preprocessing.mean, std=preprocessing.std
        )
        self._map = map  # over the images of a batch

    @property
    def steps_per_epoch(self) -> int:
        """Full batches an epoch: floor(N / B)."""
        return self._order.steps_per_epoch

    def indices_at(self, step: int) -> np.ndarray:
        """Which images of the source make up the global batch of `step`, int64 [B]; each at most once an epoch."""
        return self._order.batch(step)

    def views_at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch of a step (0, 1, ..., on through all epochs), or this host's part of it.

        Returns:
          Views float32 [B, S, H, W, 3], normalised; labels float32 [B, K], one-hot or mixed.

        Raises:
          InputError: the step is negative, or an image cannot be read.
        """
        check_step(step)
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
        indices, keys = self.indices_at(step)[positions], self.keys_at(step)[positions]
        views = np.empty((*keys.shape, self.image_size, self.image_size, 3), np.float32)

        def fill(place: int) -> int:
            read = functools.partial(self._views.fill, keys=keys[place], views=views[place])
            return self._first_good(step, positions[place], read)[0]

        if self._views.take_batches:
            self._views.fill_batch(indices, keys, views)
        else:
            indices = np.array(list(self._map(fill, range(len(keys)))))
        labels = np.zeros((len(positions), self.source.num_classes), np.float32)
        labels[np.arange(len(positions)), read_labels(self.source, indices)] = 1
        return views, labels

    def keys_at(self, step: int) -> np.ndarray:
        """The keys of the global batch's views, uint64 [B, S], or [B, 1] with `identical_views`."""
        branches = 1 if self._identical_views else self.split_factor
        return view_keys(seed=self.seed, step=step, batch_size=self.batch_size, split_factor=branches)

    def image_at(self, step: int, position: int) -> np.ndarray:
        """The image at a position of the global batch before views are made of it, uint8 [H, W, 3]."""
        return self._first_good(step, position, functools.partial(read_image, self.source))[1]

    def drawn_at(self, step: int, position: int, branch: int) -> list[tuple[str, float]]:
        """The operations, with their arguments, that are drawn for a view."""
        return self._views.drawn(self.keys_at(step)[position, 0 if self._identical_views else branch], branch)

    def boxes(self, keys: np.ndarray, height: int, width: int) -> list[Box]:
        """The parts of a stored image of these pixels that its views, of `keys` uint64 [S], show."""
        return self._views.boxes(keys, height, width)

    def dataset(self, start_step: int, stop_step: int, *, threads: int | None = None) -> "tf.data.Dataset":
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
        threads = streams.checked_threads(threads)
        batches = self.batches_at_once(threads)
        if batches < threads and self._map is map:
            self._map = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="views").map
        views = (self._size, self.split_factor, self.image_size, self.image_size, 3)
        shapes, dtypes = (views, (self._size, self.source.num_classes)), (np.float32, np.float32)
        return streams.mapped(self.views_at, range(start_step, stop_step), shapes, dtypes, threads=batches)

    def batches_at_once(self, threads: int | None = None) -> int:
        """How many batches `dataset` makes at once; two more wait in memory."""
        return streams.batches_at_once(
            threads, batch_bytes=self.batch_bytes, in_memory=isinstance(self.source, ArraySource)
        )

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


def _check_sizes(source: Source, batch_size: int, split_factor: int, seed: int, image_size: int) -> None:
    for name, number in (("batch_size", batch_size), ("split_factor", split_factor), ("seed", seed)):
        fields.checked(number, int, name)
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
    if source.image_size != image_size:
        raise InputError(
            f"The source's images have another size. Received: image_size={image_size}; {source.image_size} would "
            "work, or opening the source with this image_size."
        )


def _check_policies(
    policies: tuple[ViewPolicy, ...], split_factor: int, identical_views: bool, image_size: int
) -> None:
    fields.checked(policies, tuple[ViewPolicy, ...], "policy")
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
    for policy in policies:
        policy.check_size(image_size, image_size)


def _check_part(part: tuple[int, int], batch_size: int, batch_operations: Sequence[str | KerasLayer]) -> None:
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
