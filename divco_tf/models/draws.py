"""Random draws that belong to an example, not to a device, a thread or a moment.

A draw is a hash of (seed, step, branch, position in the global batch, layer, element), so replicas, micro-batches
and a resumed run draw what one undisturbed device would have drawn. The hash is the finaliser of splitmix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), folded over the parts.
"""

import math
import zlib

import numpy as np
import tensorflow as tf

_GOLDEN = 0x9E3779B97F4A7C15
DRAW_SHAPE = (2,)
"""An example's draw keys: [that of (seed, step, branch), that of (seed, step, branch, position)], uint64."""


def _mix(bits: tf.Tensor) -> tf.Tensor:
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        bits = tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _uint64(shift)))
        bits = bits * _uint64(factor)
    return tf.bitwise.bitwise_xor(bits, tf.bitwise.right_shift(bits, _uint64(31)))


def _uint64(value: int) -> tf.Tensor:
    return tf.constant(value, tf.uint64)


def fold(key: tf.Tensor, counter: tf.Tensor | int) -> tf.Tensor:
    """A new key from a key and a counter (both uint64, broadcast)."""
    if isinstance(counter, int):
        return _mix(key + _uint64(_increment(counter)))
    return _mix(key + (counter + _uint64(1)) * _uint64(_GOLDEN))


def _increment(counter: int) -> int:
    return (counter + 1) * _GOLDEN % 2**64


def draw_keys(*, seed: int, step: tf.Tensor, branch: int, positions: tf.Tensor) -> tf.Tensor:
    """The draw keys of one branch's examples.

    Args:
      seed: of the run.
      step: integer scalar, of the optimizer.
      branch: index of the branch.
      positions: integer [B], places in the global batch.

    Returns:
      uint64 [B, 2], see DRAW_SHAPE.
    """
    key = fold(fold(_uint64(seed % 2**64), tf.cast(step, tf.uint64)), branch)
    example = fold(key, tf.cast(positions, tf.uint64))
    return tf.stack([tf.broadcast_to(key, tf.shape(example)), example], axis=1)


def random_draw_keys(batch_size: tf.Tensor) -> tf.Tensor:
    """Draw keys [B, 2] from TensorFlow's global generator, for callers who have no step."""
    bits = tf.random.uniform([batch_size + 1], minval=tf.int64.min, maxval=tf.int64.max, dtype=tf.int64)
    keys = tf.bitcast(bits, tf.uint64)
    return tf.stack([tf.broadcast_to(keys[0], [batch_size]), keys[1:]], axis=1)


def uniform(draw: tf.Tensor, shape: tuple[int, ...], *, layer: str, per_example: bool = True) -> tf.Tensor:
    """Uniform numbers in [0, 1), 24 bits of them, for one layer.

    Args:
      draw: uint64 [B, 2], see DRAW_SHAPE.
      shape: of one example's draw, static.
      layer: its name, which sets its numbers apart from other layers'.
      per_example: False draws the same for the whole global batch (ShakeDrop's gate).

    Returns:
      float32 [B, *shape].
    """
    key = fold(draw[:, 1 if per_example else 0], zlib.crc32(layer.encode()))
    size = math.prod(shape)
    if size > 1:
        key = fold(key[:, None], tf.cast(tf.range(size), tf.uint64))  # XLA has no range of uint64
    return tf.reshape(_numbers(key), [-1, *shape])


def uniform_scalars(draw: tf.Tensor, *, layers: dict[str, bool]) -> list[tf.Tensor]:
    """A uniform number for each example and layer: `uniform(draw, (), ...)` of several layers by the ops of one.

    Args:
      draw: uint64 [B, 2], see DRAW_SHAPE.
      layers: by name, whether it draws per example.

    Returns:
      float32 [B] a layer.
    """
    # Graphs make a constant of a list by way of float64, which rounds: an array keeps every bit (TensorFlow 2.21).
    increments = np.array([_increment(zlib.crc32(layer.encode())) for layer in layers], np.uint64)
    keys = tf.gather(draw, [int(per_example) for per_example in layers.values()], axis=1)
    return tf.unstack(_numbers(_mix(keys + tf.constant(increments))), num=len(layers), axis=1)


def _numbers(key: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.bitwise.right_shift(key, _uint64(40)), tf.float32) * 2.0**-24
