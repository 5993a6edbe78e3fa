"""The moving average of a model's weights and statistics, which each device moves by itself."""

from collections.abc import Sequence

import keras
import tensorflow as tf


def add_averages(model: keras.Model, variables: Sequence[keras.Variable]) -> list[keras.Variable]:
    """Variables of `model` that will hold the averages of `variables`, "ema.NAME" for each."""
    averages = []
    for variable in variables:
        average = model.add_weight(
            name=f"ema.{variable.name}",
            shape=variable.shape,
            dtype=variable.dtype,
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",  # each replica averages the same values by itself
            autocast=False,
        )
        setattr(model, average.name, average)  # tf.train.Checkpoint finds attributes only
        averages.append(average)
    return averages


def move(
    averages: Sequence[keras.Variable],
    variables: Sequence[keras.Variable],
    *,
    decay: float | None,
    step: tf.Tensor,
    strategy: tf.distribute.Strategy,
) -> None:
    """Moves averages towards variables by 1 - min(decay, (1 + step) / (10 + step)); in the cross-replica context.

    Args:
      averages: as `add_averages` gives them.
      variables: what they are of, in the same order.
      decay: above 0 and below 1.
      step: int64, how many steps came before this one.
      strategy: whose replicas hold them.
    """
    step = tf.cast(step, tf.float64)
    rest = 1 - tf.minimum(tf.constant(decay, tf.float64), (1 + step) / (10 + step))

    def of_one(average: tf.Variable, value: tf.Variable) -> None:
        if value.dtype.is_floating:
            average.assign_add(tf.cast(rest, value.dtype) * (value - average))
        else:  # the state of Keras's own random layers
            average.assign(value)

    for average, variable in zip(averages, variables, strict=True):
        strategy.extended.update(average.value, of_one, args=(variable.value,), group=False)
