import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.data.ops import multi_device_iterator_ops

from divco_tf.errors import InputError, Preempted
from divco_tf.training.runtime import (
    JIT,
    STRATEGIES,
    Interrupts,
    Job,
    _in_shares,
    distributed,
    make_strategy,
    prefetched,
    resolve_jit,
    share_cores,
)
from tests import tiny


def test_mirrored_takes_all_logical_devices():
    strategy = make_strategy("mirrored")
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    assert strategy.num_replicas_in_sync == len(tf.config.list_logical_devices(kind))


def test_one_device_is_the_default_placement():
    assert make_strategy("one_device") is tf.distribute.get_strategy()


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_auto_mirrors_several_gpus_only(monkeypatch, gpus):
    # CPUs stand in for the GPUs: what is chosen depends on their number alone.
    devices = (tf.config.list_logical_devices("CPU") * 2)[:gpus]
    list_devices = tf.config.list_logical_devices
    monkeypatch.setattr(
        tf.config, "list_logical_devices", lambda kind: devices if kind == "GPU" else list_devices(kind)
    )
    assert make_strategy("auto").num_replicas_in_sync == max(gpus, 1)
    assert isinstance(make_strategy("auto"), tf.distribute.MirroredStrategy) == (gpus == 2)


@pytest.mark.parametrize("devices", [[], ["GPU"], ["TPU"]], ids=str)
def test_auto_compiles_for_accelerators_only(monkeypatch, devices):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["device"] if kind in devices else [])
    assert resolve_jit("auto") == resolve_jit() == bool(devices)
    assert resolve_jit("on") is True
    assert resolve_jit("off") is False


@pytest.mark.parametrize(("function", "names"), [(make_strategy, STRATEGIES), (resolve_jit, JIT)])
def test_other_words_are_refused_in_one_line(function, names):
    with pytest.raises(InputError) as error:
        function("mirored")
    assert tiny.one_line(error.value, says=lambda text: any(name in text for name in names))


SHARE = """
import json, os, sys
import tensorflow as tf
from divco_tf.training.runtime import share_cores
os.sched_getaffinity = lambda pid: range({cores})
told = share_cores({split_factor})
tf.zeros([]).numpy()
late = share_cores(100)
print(json.dumps([told, tf.config.threading.get_intra_op_parallelism_threads(), late]))
"""


@pytest.mark.parametrize(
    ("cores", "split_factor", "environment", "threads"),
    [(8, 4, {}, 2), (9, 2, {}, 4), (2, 1, {}, 2), (8, 4, {"TF_NUM_INTRAOP_THREADS": "3"}, None)],
)
def test_each_branch_gets_its_share_of_the_cores_unless_told_otherwise(cores, split_factor, environment, threads):
    code = SHARE.format(cores=cores, split_factor=split_factor)
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout.splitlines()[-1]) == [threads, threads or 0, None]


def test_more_branches_than_cores_get_one_thread_each(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(2))
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", lambda threads: None)
    assert share_cores(4) == 1


def test_a_gpus_threads_are_left_alone(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert share_cores(4) is None


def test_cores_are_shared_by_a_whole_number_of_branches():
    with pytest.raises(InputError, match="split factor is no positive whole number. Received: 0"):
        share_cores(0)


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


def test_an_interrupt_is_raised_where_it_is_safe_and_a_second_one_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with Interrupts() as interrupts:
            interrupts.check()
            signal.raise_signal(signal.SIGINT)
            for terminations in (True, False):
                with pytest.raises(KeyboardInterrupt):
                    interrupts.check(terminations=terminations)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_termination_is_raised_where_it_is_safe():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with Interrupts() as interrupts:
            assert not interrupts.terminated
            interrupts.check()
            signal.raise_signal(signal.SIGTERM)
            assert interrupts.terminated
            interrupts.check(terminations=False)
            with pytest.raises(Preempted):
                interrupts.check()
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # a second one acts at once
    finally:
        signal.signal(signal.SIGTERM, before)


def test_strategies_that_do_not_fit_this_computer_are_refused_in_one_line(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name, says in (("multi_worker_mirrored", "divco-launch shows how"), ("tpu", "There is no TPU here")):
        with pytest.raises(InputError) as error:
            make_strategy(name)
        assert tiny.one_line(error.value, says=says)


def test_alone_a_process_is_the_first_of_one():
    for name in ("one_device", "mirrored"):
        job = Job(make_strategy(name))
        assert job.chief and job.part == (0, 1)
        job.check_same("step", 3, at="here")
        with pytest.raises(tf.errors.UnavailableError), job.watched(lambda: "told"):
            raise tf.errors.UnavailableError(None, None, "as it was")


def test_a_global_batch_part_is_split_into_replicas_shares():
    dataset = tf.data.Dataset.from_tensors((np.arange(8.0).reshape(4, 2), np.arange(4)))
    views, labels = zip(*_in_shares(dataset, 2), strict=True)
    np.testing.assert_array_equal(np.concatenate(labels), np.arange(4))
    assert [tuple(view.shape) for view in views] == [(2, 2), (2, 2)]


def test_a_program_that_handles_interrupts_itself_keeps_its_handler():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            interrupts.check()
    finally:
        signal.signal(signal.SIGINT, before)
