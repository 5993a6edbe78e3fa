"""Gradients of a batch in parts, one after the other."""

from typing import Any

import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models import placement
from divco_tf.models.refusals import refuse_unless


def accumulate(part: Any, inputs: tuple, count: int, weights: list, statistics: list) -> tuple[list, list, tf.Tensor]:
    """Runs `part` on `count` slices of `inputs`, one after the other: summed gradients, mean statistics, logits."""
    sliced = _sliced(inputs, count)

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


def accumulate_unrolled(
    part: Any, inputs: tuple, count: int, weights: list, statistics: list
) -> tuple[list, list, tf.Tensor]:
    """The same for weights on several devices, through the first of which a loop would carry all sums."""
    sliced, logits = _sliced(inputs, count), []
    gradients, means = [0.0] * len(weights), [0.0] * len(statistics)
    before: list[tf.Operation] = []  # so that activations of one part are held at a time
    for index in range(count):
        with tf.control_dependencies(before):
            new_gradients, new_statistics, new_logits = part(*(x[index] for x in sliced))
        with placement.beside_inputs():
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
