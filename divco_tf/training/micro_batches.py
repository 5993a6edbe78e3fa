"""The gradients of a batch in parts, one after the other, in the memory that one part takes."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.refusals import refuse_unless
from divco_tf.training.optim.placed import beside_inputs

Part = Callable[..., tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor]]
"""Slices of the inputs -> gradients, new statistics, logits."""


def accumulated(
    part: Part,
    inputs: tuple[tf.Tensor, ...],
    *,
    count: int,
    weights: Sequence[tf.Tensor],
    statistics: Sequence[tf.Tensor],
    unrolled: bool,
) -> tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor]:
    """What `part` gives for a whole batch, from `count` slices of it.

    Args:
      part: of one slice.
      inputs: of the whole batch, each [size, ...].
      count: how many.
      weights: what the gradients are of.
      statistics: before the step.
      unrolled: no loop of the graph. A loop carries all sums through one device, and replicas cannot meet in it.

    Returns:
      The sums of the gradients, the means of the statistics, the logits one behind the other.

    Raises:
      InputError: the batch is not divided by `count`.
    """
    if count == 1:
        return part(*inputs)
    sliced = _sliced(inputs, count)
    return (_unrolled if unrolled else _looped)(part, sliced, count, weights, statistics)


def _looped(
    part: Part, sliced: list[tf.Tensor], count: int, weights: Sequence[tf.Tensor], statistics: Sequence[tf.Tensor]
) -> tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor]:
    def body(index: tf.Tensor, gradients: list, means: list, logits: tf.TensorArray) -> tuple:
        new_gradients, new_statistics, new_logits = part(*(x[index] for x in sliced))
        totals = _added(gradients, means, new_gradients, new_statistics, count)
        return index + 1, *totals, logits.write(index, new_logits)

    zeros = [[tf.zeros_like(value) for value in values] for values in (weights, statistics)]
    logits = tf.TensorArray(tf.float32, size=count)
    _, gradients, means, logits = tf.while_loop(
        lambda index, *_: index < count, body, (0, *zeros, logits), parallel_iterations=1
    )
    return gradients, means, logits.concat()


def _unrolled(
    part: Part, sliced: list[tf.Tensor], count: int, weights: Sequence[tf.Tensor], statistics: Sequence[tf.Tensor]
) -> tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor]:
    gradients, means, logits = [0.0] * len(weights), [0.0] * len(statistics), []
    before: list[tf.Operation] = []  # so that activations of one part are held at a time
    for index in range(count):
        with tf.control_dependencies(before):
            new_gradients, new_statistics, new_logits = part(*(x[index] for x in sliced))
        with beside_inputs():
            gradients, means = _added(gradients, means, new_gradients, new_statistics, count)
        before = [tf.group(*gradients)] if not tf.executing_eagerly() else []
        logits.append(new_logits)
    return gradients, means, tf.concat(logits, axis=0)


def _sliced(inputs: tuple, count: int) -> list[tf.Tensor]:
    """[count, size / count, ...] of each [size, ...]."""
    size = tf.shape(inputs[0])[0]
    if (inputs[0].shape[0] or 0) % count:
        raise InputError(f"A replica's batch is not divided by micro_batches={count}. Received: {inputs[0].shape[0]}.")
    divides = refuse_unless(
        size % count == 0,
        f"micro_batches={count} does not divide a replica's batch. Received: one of",
        size,
        f"images; a multiple of {count} would work.",
    )
    with tf.control_dependencies([divides]):
        sliced = [tf.reshape(x, tf.concat([[count, size // count], tf.shape(x)[1:]], axis=0)) for x in inputs]
    for x, whole in zip(sliced, inputs, strict=True):
        static = whole.shape[0] // count if whole.shape[0] else None
        x.set_shape([count, static, *whole.shape[1:]])
    return sliced


def _added(
    gradients: list, means: list, new_gradients: list, new_statistics: list, count: int
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """The sums of gradients and the means of statistics with those of one more of `count` micro-batches."""
    gradients = [total + new for total, new in zip(gradients, new_gradients, strict=True)]
    # Whole numbers are the state of Keras's own random layers.
    means = [
        total + new / count if new.dtype.is_floating else new for total, new in zip(means, new_statistics, strict=True)
    ]
    return gradients, means
