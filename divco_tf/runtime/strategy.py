"""Which devices a run computes on: strategies by name, and the devices of branches."""

import functools
import json
import os
import signal
import threading

import tensorflow as tf

from divco_tf import compat
from divco_tf.errors import InputError
from divco_tf.models.placement import usable_devices
from divco_tf.registry import did_you_mean

STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker_mirrored", "tpu", "branch_parallel")


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
