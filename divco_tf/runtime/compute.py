"""What computes: XLA, and the CPU's cores."""

import os

import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.divide import check_split_factor

JIT = ("auto", "on", "off")


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
