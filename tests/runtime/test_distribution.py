import numpy as np
import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops

from divco_tf.runtime.distribution import _in_shares, distributed, prefetched
from divco_tf.runtime.strategy import make_strategy


def test_batches_are_copied_to_a_device_ahead_and_keep_the_datasets_options():
    dataset = tf.data.Dataset.range(5)
    options = tf.data.Options()
    options.autotune.enabled = False
    ahead = prefetched(dataset.with_options(options), tf.config.list_logical_devices("CPU")[1].name)
    found = list(ahead)
    assert [int(number) for number in found] == list(range(5))
    assert all(number.device.endswith("CPU:1") for number in found)
    assert ahead.options().autotune.enabled is False


def test_without_a_gpu_a_strategy_distributes_by_itself():
    dataset = tf.data.Dataset.range(4).batch(2)
    assert [batch.numpy().tolist() for batch in distributed(dataset, make_strategy("one_device"))] == [[0, 1], [2, 3]]


def test_a_strategys_prefetching_is_not_tuned(monkeypatch):
    made, make = [], multi_device_iterator_ops._create_device_dataset
    options = tf.data.Options()
    options.autotune.enabled = False
    iterators = multi_device_iterator_ops.OwnedMultiDeviceIterator
    monkeypatch.setattr(iterators, "__init__", spied(iterators.__init__, made))
    batches = distributed(tf.data.Dataset.range(8).batch(4).with_options(options), make_strategy("mirrored"))
    assert sum(len(batch.values) for batch in batches) == 2 * 2
    assert made and not any(made)
    assert multi_device_iterator_ops._create_device_dataset is make


def spied(init, made: list):
    """The constructor, which also notes whether each dataset of a device, and that of the host, is tuned."""

    def constructor(self, dataset, *arguments, **options):
        init(self, dataset, *arguments, **options)
        datasets = [dataset, *(iterator._dataset for iterator in self._device_iterators)]
        made.extend(each.options().autotune.enabled is not False for each in datasets)

    return constructor


def test_a_global_batch_part_is_split_into_replicas_shares():
    dataset = tf.data.Dataset.from_tensors((np.arange(8.0).reshape(4, 2), np.arange(4)))
    views, labels = zip(*_in_shares(dataset, 2), strict=True)
    np.testing.assert_array_equal(np.concatenate(labels), np.arange(4))
    assert [tuple(view.shape) for view in views] == [(2, 2), (2, 2)]
