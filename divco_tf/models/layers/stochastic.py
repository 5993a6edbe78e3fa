"""Layers that draw random numbers in training, statelessly: from (seed, step, layer, branch, place in the batch)."""

from typing import Any

import keras
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models import draws


@keras.saving.register_keras_serializable("divco_tf")
class Dropout(keras.layers.Layer):
    """Dropout whose mask is a function of (seed, step, layer, branch, position in the global batch).

    Args:
      rate: probability of zeroing an element; the others are scaled by 1 / (1 - rate).
    """

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise InputError(f"The dropout rate is no probability below 1. Received: {rate}; pass 0 <= rate < 1.")
        self.rate = rate

    def call(self, inputs: tf.Tensor, draw: tf.Tensor | None = None, training: bool | None = None) -> tf.Tensor:
        """[B, ...] -> the same shape. `draw`: uint64 [B, 2]; without it TensorFlow's global generator draws."""
        if not training or self.rate == 0:
            return inputs
        if draw is None:
            draw = draws.random_draw_keys(tf.shape(inputs)[0])
        numbers = draws.uniform(draw, tuple(inputs.shape[1:]), layer=self.name)
        kept = tf.cast(numbers >= self.rate, inputs.dtype)
        return inputs * kept / (1.0 - self.rate)

    def compute_output_shape(self, inputs_shape: tuple, draw_shape: tuple | None = None) -> tuple:
        """The input's."""
        return inputs_shape

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "rate": self.rate}
