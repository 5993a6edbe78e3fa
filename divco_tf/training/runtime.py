"""Where and how a run computes: strategy, XLA."""

import functools

import tensorflow as tf

from divco_tf.errors import InputError
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
