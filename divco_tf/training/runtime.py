"""Where and how a run computes: strategy, XLA, threads."""

import functools
import os
import signal
import threading
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.divide import check_split_factor
from divco_tf.registry import did_you_mean

STRATEGIES = ("auto", "one_device", "mirrored")
JIT = ("auto", "on", "off")


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """The strategy called `name`.

    "one_device" is TensorFlow's default placement; "mirrored" is data-parallel over all GPUs, or over all logical
    CPUs where there is no GPU; "auto" is "mirrored" for two GPUs and more, else "one_device".

    Raises:
      InputError: an unknown name.
    """
    if name not in STRATEGIES:
        raise InputError(f"Unknown strategy. Received: {name!r}.{did_you_mean(name, STRATEGIES)}")
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one_device" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    return _mirrored(tuple(device.name for device in gpus or tf.config.list_logical_devices("CPU")))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """One strategy a process: a second one numbers its collectives from the start again, and TensorFlow 2.21 takes
    them for the first one's ("Shape mismatch in the collective instance")."""
    return tf.distribute.MirroredStrategy(devices)


def distributed(dataset: tf.data.Dataset, strategy: tf.distribute.Strategy) -> Iterable[Any]:
    """The global batches of a dataset, split over a strategy's replicas, each part on its device before it is used.

    A strategy's own distribution prefetches to its devices; TensorFlow's default placement does not, so there the next
    batches are copied to the GPU, if there is one, while it computes.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if strategy is tf.distribute.get_strategy() and not tf.distribute.has_strategy() and gpus:
        return prefetched(dataset, gpus[0].name)
    return strategy.experimental_distribute_dataset(dataset)


def prefetched(dataset: tf.data.Dataset, device: str) -> tf.data.Dataset:
    """The same dataset with two batches copied to a device ahead."""
    # Options do not pass through this transformation (TensorFlow 2.21).
    return dataset.apply(tf.data.experimental.prefetch_to_device(device, 2)).with_options(dataset.options())


class Interrupts:
    """Ctrl-C between steps instead of anywhere: `check` raises the KeyboardInterrupt that SIGINT asked for.

    Raised inside of a TensorFlow call, it can be lost, or corrupt the heap (TensorFlow 2.21: "malloc_consolidate():
    invalid chunk size" in a third of the processes that were interrupted in a training step). A second Ctrl-C is raised
    at once. Outside the main thread, or where the program handles SIGINT itself, nothing is changed.
    """

    def __init__(self) -> None:
        self._asked = False

    def __enter__(self) -> "Interrupts":
        main = threading.current_thread() is threading.main_thread()
        self._mine = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._mine:
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """To be called where it is safe.

        Raises:
          KeyboardInterrupt: SIGINT came.
        """
        if self._asked:
            raise KeyboardInterrupt

    def _note(self, *_: Any) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def resolve_jit(jit: str = "auto") -> bool:
    """Whether branches are compiled by XLA: "on", "off", or "auto": on a GPU or TPU only.

    On CPU XLA loses for most of these networks, and far more on a busy machine: `divco-benchmark step --xla` measures.

    Raises:
      InputError: another word.
    """
    if jit not in JIT:
        raise InputError(f"Unknown jit. Received: {jit!r}; pass one of {', '.join(JIT)}.")
    if jit == "auto":
        return bool(tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))
    return jit == "on"


def share_cores(split_factor: int) -> int | None:
    """Gives each of S branches its share of the CPU's cores: cores / S threads an operation, rounded down.

    The branches of a step run side by side; on a CPU each is faster on cores of its own than when every operation is
    spread over all of them (`divco-benchmark step` measures both). To be called before TensorFlow computes anything.

    Returns:
      The threads an operation; None where nothing was set: the environment says TF_NUM_INTRAOP_THREADS, there is a
      GPU, or TensorFlow has started.

    Raises:
      InputError: the split factor is no positive whole number.
    """
    check_split_factor(split_factor)
    if "TF_NUM_INTRAOP_THREADS" in os.environ or tf.config.list_physical_devices("GPU"):
        return None
    threads = max(len(os.sched_getaffinity(0)) // split_factor, 1)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:  # "cannot be modified after initialization"
        return None
    return threads
