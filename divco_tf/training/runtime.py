"""Where and how a run computes: strategy, XLA, threads."""

import contextlib
import functools
import json
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from divco_tf import compat
from divco_tf.errors import InputError, Preempted, RunError
from divco_tf.models.divide import check_split_factor
from divco_tf.models.placement import usable_devices
from divco_tf.registry import did_you_mean
from divco_tf.training.options import JIT, STRATEGIES


def make_strategy(name: str = "auto") -> tf.distribute.Strategy:
    """The strategy called `name`.

    "one_device" is TensorFlow's default placement; "mirrored" is data-parallel over all GPUs, or over all logical
    CPUs where there is no GPU; "multi_worker_mirrored" over the computers that the environment's TF_CONFIG names;
    "tpu" over a TPU's cores; "branch_parallel" is one replica, whose branches `branch_devices` places; "auto" is
    "mirrored" for two GPUs and more, else "one_device".

    Raises:
      InputError: an unknown name, or one that does not fit this computer.
    """
    if name not in STRATEGIES:
        raise InputError(f"Unknown strategy. Received: {name!r}.{did_you_mean(name, STRATEGIES)}")
    if name == "multi_worker_mirrored":
        return _multi_worker()
    if name == "tpu":
        return _tpu()
    gpus = tf.config.list_logical_devices("GPU")
    if name in ("one_device", "branch_parallel") or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    return _mirrored(tuple(device.name for device in gpus or tf.config.list_logical_devices("CPU")))


def branch_devices(strategy: str, split_factor: int) -> tuple[str, ...] | None:
    """Where the branches lie: under "branch_parallel" on all GPUs, or all logical CPUs where there is none.

    Of them it takes as many as S branches can be shared out over evenly. None: wherever the replica is.

    Raises:
      InputError: the split factor is no positive whole number.
    """
    if strategy != "branch_parallel":
        return None
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return usable_devices(split_factor, [device.name for device in devices])


def check_workers(strategy: str) -> None:
    """Refuses several workers under a strategy that would let each train by itself, all in one model_dir.

    Raises:
      InputError: as said.
    """
    if strategy not in ("multi_worker_mirrored", "tpu") and named_workers() > 1:
        raise InputError(
            f"TF_CONFIG names {named_workers()} workers, which train together by one strategy only. Received: "
            f"strategy={strategy!r}; strategy='multi_worker_mirrored' would work, or no TF_CONFIG."
        )


def named_workers() -> int:
    """How many workers the environment's TF_CONFIG names; 0: it does not."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG", "{}"))["cluster"]
        return len(cluster.get("chief", ())) + len(cluster["worker"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0


@functools.cache
def _multi_worker() -> tf.distribute.MultiWorkerMirroredStrategy:
    """One strategy a process: its server is started with it, and TensorFlow must not have computed anything before."""
    if not named_workers():
        raise InputError(
            f"TF_CONFIG names no workers. Received: {os.environ.get('TF_CONFIG', 'none')}; divco-launch shows "
            'how: {"cluster": {"worker": ["host0:port", "host1:port"]}, "task": {"type": "worker", "index": 0}}.'
        )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (RuntimeError, ValueError, tf.errors.OpError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"The workers cannot be brought together ({why}). Received: TF_CONFIG={os.environ['TF_CONFIG']}; start all "
            "of them, in processes of their own."
        ) from error
    _take_sigterm_back()
    # A worker that is gone is noticed after at most 10 + 3 * 10 s (TensorFlow 2.21 begins after 30).
    compat.check_workers_every(strategy, 10)
    return strategy


def _take_sigterm_back() -> None:
    """Workers that find each other catch SIGTERM in TensorFlow's own way, which does nothing with it (2.21)."""
    known = signal.getsignal(signal.SIGTERM)
    if known is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, known)


def _tpu() -> tf.distribute.TPUStrategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"There is no TPU here ({why}). Received: strategy='tpu'; \"auto\" takes what there is."
        ) from error
    return tf.distribute.TPUStrategy(resolver)


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.MirroredStrategy:
    """One strategy a process: a second one numbers its collectives from the start again, and TensorFlow 2.21 takes
    them for the first one's ("Shape mismatch in the collective instance")."""
    return tf.distribute.MirroredStrategy(devices)


class Job:
    """This process's place among the workers of a strategy; alone, it is the first of one.

    Attributes:
      count: of workers, each a process.
      index: of this one; the first is the chief, which writes what is written once.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self.index, self.count = 0, 1
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            resolver = strategy.cluster_resolver
            spec = resolver.cluster_spec().as_dict()
            tasks = [(kind, index) for kind in ("chief", "worker") for index in range(len(spec.get(kind, ())))]
            self.index, self.count = tasks.index((resolver.task_type, resolver.task_id)), len(tasks)

    @property
    def chief(self) -> bool:
        """Whether this is the worker that writes."""
        return self.index == 0

    @property
    def part(self) -> tuple[int, int]:
        """(i, n): this worker makes the i-th of n equal slices of every batch."""
        return self.index, self.count

    def check_same(self, what: str, value: int, *, at: Any) -> None:
        """Refuses to go on where the workers see different values.

        Raises:
          InputError: as said.
        """
        values = self.gathered(value)
        if len(set(values)) > 1:
            raise InputError(
                f"The workers see different folders: the {what} is {', '.join(map(str, values))}. Received: {at}; a "
                "folder that all of them share would work."
            )

    def gathered(self, value: int) -> list[int]:
        """The values that the workers' replicas call this with, in order; a worker alone gets its own."""
        if self.count == 1:
            return [value]

        def gathered(value: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            mine = value * tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=tf.int64)
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        values = tf.function(lambda: self._strategy.run(gathered, args=(tf.constant(value, tf.int64),)))()
        return self._strategy.experimental_local_results(values)[0].numpy().tolist()

    @contextlib.contextmanager
    def watched(self, last_checkpoint_told: Callable[[], str]) -> Iterator[None]:
        """Tells in one line that a worker is gone.

        Raises:
          RunError: as said.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self.count == 1:
                raise
            raise RunError(
                f"A worker of the job is gone, or cannot be reached ({type(error).__name__}). Received: worker "
                f"{self.index} of {self.count} goes on alone no further; {last_checkpoint_told()}; start all workers "
                "again with the same command."
            ) from error


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


def _in_shares(dataset: tf.data.Dataset, replicas: int) -> tf.data.Dataset:
    """Each batch as `replicas` equal ones."""
    if replicas == 1:
        return dataset

    def shares(*batch: tf.Tensor) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(
            tuple(tf.reshape(value, [replicas, value.shape[0] // replicas, *value.shape[1:]]) for value in batch)
        )

    return dataset.flat_map(shares).with_options(dataset.options())


def prefetched(dataset: tf.data.Dataset, device: str) -> tf.data.Dataset:
    """The same dataset with two batches copied to a device ahead."""
    # Options do not pass through this transformation (TensorFlow 2.21).
    return dataset.apply(tf.data.experimental.prefetch_to_device(device, 2)).with_options(dataset.options())


class Interrupts:
    """Signals between steps instead of anywhere: `check` raises what Ctrl-C (SIGINT) or SIGTERM asked for.

    A KeyboardInterrupt raised inside of a TensorFlow call can be lost, or corrupt the heap (TensorFlow 2.21:
    "malloc_consolidate(): invalid chunk size" in a third of the processes that were interrupted in a training step). A
    second signal acts at once. `numbers` are the signals, both if none is named. Outside the main thread, or where the
    program handles a signal itself, nothing changes.
    """

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers or (signal.SIGINT, signal.SIGTERM)
        self._asked: set[int] = set()
        self._replaced: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        self._note_all(self._numbers)
        return self

    def __exit__(self, *_: Any) -> None:
        self._restore(self._replaced)

    @contextlib.contextmanager
    def noting(self, number: int) -> Iterator[None]:
        """A further signal is kept for `check` in this context."""
        added = self._note_all((number,))
        try:
            yield
        finally:
            self._restore(added)

    @property
    def terminated(self) -> bool:
        """Whether SIGTERM came."""
        return signal.SIGTERM in self._asked

    def check(self, *, terminations: bool = True) -> None:
        """To be called where it is safe.

        Args:
          terminations: False leaves SIGTERM to who asks for `terminated`.

        Raises:
          KeyboardInterrupt: SIGINT came.
          Preempted: SIGTERM came.
        """
        if signal.SIGINT in self._asked:
            raise KeyboardInterrupt
        if terminations and self.terminated:
            raise Preempted("SIGTERM came.")

    def _note_all(self, numbers: Sequence[int]) -> list[int]:
        """Takes signals whose handlers are Python's own; returns those."""
        if threading.current_thread() is not threading.main_thread():
            return []
        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        taken = [number for number in numbers if signal.getsignal(number) is defaults[number]]
        for number in taken:
            self._replaced[number] = defaults[number]
            signal.signal(number, self._note)
        return taken

    def _restore(self, numbers: Iterable[int]) -> None:
        for number in list(numbers):
            signal.signal(number, self._replaced.pop(number))

    def _note(self, number: int, _: Any) -> None:
        self._asked.add(number)
        signal.signal(number, self._replaced[number])


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
