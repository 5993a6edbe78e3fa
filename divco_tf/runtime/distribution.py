"""How batches come to the devices."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from divco_tf import compat


def distributed(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Iterator[Any]:
    """A dataset's batches, split over this process's replicas, each part on its device before it is used.

    The batches are global ones, or with several workers this one's parts of them. A strategy's own distribution
    prefetches to its devices; TensorFlow's default placement does not, so there the next batches are copied to the GPU,
    if there is one, while it computes. No more batches may be asked for than there are.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if strategy is tf.distribute.get_strategy() and not tf.distribute.has_strategy() and gpus:
        return iter(prefetched(dataset, gpus[0].name))
    with compat.untuned_prefetching():
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            replicas = len(strategy.extended.worker_devices)
            # Of a finite dataset all workers are asked at each step whether a batch is left (TensorFlow 2.21).
            endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
            shares = _in_shares(dataset, replicas).apply(endless).with_options(dataset.options())
            return iter(strategy.distribute_datasets_from_function(lambda _: shares))
        return iter(strategy.experimental_distribute_dataset(dataset))


def prefetched(dataset: tf.data.Dataset, device: str) -> tf.data.Dataset:
    """The same dataset with two batches copied to a device ahead."""
    # Options do not pass through this transformation (TensorFlow 2.21).
    return dataset.apply(tf.data.experimental.prefetch_to_device(device, 2)).with_options(dataset.options())


def _in_shares(dataset: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Each batch as `replicas` equal ones."""
    if replicas == 1:
        return dataset

    def shares(*batch: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(
            tuple(tf.reshape(value, [replicas, value.shape[0] // replicas, *value.shape[1:]]) for value in batch)
        )

    return dataset.flat_map(shares).with_options(dataset.options())
