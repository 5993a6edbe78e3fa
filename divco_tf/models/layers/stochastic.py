"""Layers that draw random numbers in training, statelessly: from (seed, step, layer, branch, place in the batch)."""

import numbers
from typing import Any

import keras
import tensorflow as tf

from divco_tf import compat
from divco_tf.errors import InputError
from divco_tf.models import draws


class _Stochastic(keras.layers.Layer):
    """A layer that is random in training only; subclasses say what it is then, and what it is in evaluation."""

    def call(self, inputs: Any, draw: tf.Tensor | None = None, training: bool | None = None) -> tf.Tensor:
        """[B, ...] -> the same shape. `draw`: uint64 [B, 2]; without it TensorFlow's global generator draws."""
        if not training:
            return self._expected(inputs)
        if draw is None:
            draw = draws.random_draw_keys(tf.shape(tf.nest.flatten(inputs)[0])[0])
        return self._perturbed(inputs, draw)

    def _expected(self, inputs: Any) -> tf.Tensor:
        return inputs

    def _perturbed(self, inputs: Any, draw: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError

    def compute_output_shape(self, inputs_shape: Any, draw_shape: tuple | None = None) -> tuple:
        """The input's, of several the first's."""
        return inputs_shape[0] if isinstance(inputs_shape[0], (tuple, list)) else inputs_shape


class _Dropping(_Stochastic):
    """A stochastic layer with a rate, which is the identity at rate 0."""

    sampled = False  # whether it drops in evaluation too, see `sample_dropout`

    def __init__(self, rate: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(rate, numbers.Real) or not 0 <= rate < 1:
            raise InputError(
                f"The rate of {type(self).__name__} is no probability below 1. Received: {rate!r}; pass 0 <= rate < 1."
            )
        self.rate = float(rate)

    def call(self, inputs: Any, draw: tf.Tensor | None = None, training: bool | None = None) -> tf.Tensor:
        """[B, ...] -> the same shape. `draw`: uint64 [B, 2]; without it TensorFlow's global generator draws."""
        return super().call(inputs, draw, training or self.sampled) if self.rate else inputs

    def _keep(self, inputs: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
        """Zeros where the numbers are below the rate, the rest scaled to the same mean."""
        return inputs * (tf.cast(uniform >= self.rate, inputs.dtype) / (1.0 - self.rate))

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "rate": self.rate}


@keras.saving.register_keras_serializable("divco_tf")
class Dropout(_Dropping):
    """Dropout (Srivastava et al., JMLR 2014) of single elements.

    Args:
      rate: probability of zeroing an element; the others are scaled by 1 / (1 - rate).
    """

    def _perturbed(self, inputs: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        return self._keep(inputs, draws.uniform(draw, tuple(inputs.shape[1:]), layer=self.name))


@keras.saving.register_keras_serializable("divco_tf")
class ChannelDropout(_Dropping):
    """Dropout of whole channels of an example, [B, ..., C] (Tompson et al., arXiv 1411.4280).

    Args:
      rate: probability of zeroing a channel; the others are scaled by 1 / (1 - rate).
    """

    def _perturbed(self, inputs: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        shape = (*(1,) * (inputs.shape.rank - 2), inputs.shape[-1])
        return self._keep(inputs, draws.uniform(draw, shape, layer=self.name))


@keras.saving.register_keras_serializable("divco_tf")
class DropPath(_Dropping):
    """Drops a residual branch of an example, also known as stochastic depth (Huang et al., arXiv 1603.09382).

    Args:
      rate: probability of zeroing an example; the others are scaled by 1 / (1 - rate).
    """

    def _perturbed(self, inputs: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        return self._keep(inputs, draws.uniform(draw, (1,) * (inputs.shape.rank - 1), layer=self.name))


@keras.saving.register_keras_serializable("divco_tf")
class DropBlock(_Dropping):
    """Zeroes squares of [B, H, W, C], in each channel apart (Ghiasi et al., arXiv 1810.12890, algorithm 1).

    As in the authors' networks any pixel may be a square's centre, so that squares are cut off at the border. What is
    kept is scaled by size / kept size of its example, where they take the batch's: an example's activations then do
    not depend on its neighbours.

    Args:
      rate: share of elements to be zeroed, about: squares may overlap.
      block_size: side of a square in pixels, odd or even; a smaller image is a square itself.
    """

    def __init__(self, rate: float, block_size: int, **kwargs: Any) -> None:
        super().__init__(rate, **kwargs)
        if not isinstance(block_size, int) or block_size < 1:
            raise InputError(f"A block has no such side. Received: {block_size!r}; pass 1, 2, ... pixels.")
        self.block_size = block_size

    def seed_rate(self, height: int, width: int) -> float:
        """The probability that a pixel is the centre of a square (equation 1)."""
        side = min(self.block_size, height, width)
        return self.rate / side**2 * height * width / ((height - side + 1) * (width - side + 1))

    def _perturbed(self, inputs: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        height, width, channels = inputs.shape[1:]
        uniform = draws.uniform(draw, (height, width, channels), layer=self.name)
        seeds = tf.cast(uniform < self.seed_rate(height, width), tf.float32)
        kept = 1.0 - tf.nn.max_pool2d(seeds, min(self.block_size, height, width), 1, "SAME")
        scale = tf.math.divide_no_nan(1.0, tf.reduce_mean(kept, axis=(1, 2, 3), keepdims=True))
        return inputs * tf.cast(kept * scale, inputs.dtype)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "block_size": self.block_size}


@tf.custom_gradient
def _scaled(inputs: tf.Tensor, forward: tf.Tensor, backward: tf.Tensor) -> tuple:
    """inputs * forward, whose gradient is multiplied by `backward` instead; the factors are [B]."""
    shape = (-1, *(1,) * (inputs.shape.rank - 1))
    forward, backward = (tf.reshape(tf.cast(factor, inputs.dtype), shape) for factor in (forward, backward))
    return inputs * forward, lambda upstream: (upstream * backward, None, None)


@keras.saving.register_keras_serializable("divco_tf")
class ShakeDrop(_Dropping):
    """Disturbs a residual branch (Yamada et al., arXiv 1802.02375): 1 - rate of the time it is left as it is.

    Else, an example's outputs are multiplied by alpha ~ U(-1, 1) and its gradient by beta ~ U(0, 1). One gate decides
    for the whole global batch, as in the authors' networks. Evaluation multiplies by 1 - rate.

    Args:
      rate: probability of disturbing.
    """

    def _expected(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * (1.0 - self.rate)

    def _perturbed(self, inputs: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        noise = {f"{self.name}.gate": False, f"{self.name}.alpha": True, f"{self.name}.beta": True}
        gate, alpha, beta = draws.uniform_scalars(draw, layers=noise)
        left_alone = gate >= self.rate
        return _scaled(inputs, tf.where(left_alone, 1.0, 2.0 * alpha - 1.0), tf.where(left_alone, 1.0, beta))


@keras.saving.register_keras_serializable("divco_tf")
class ShakeShake(_Stochastic):
    """Mixes two residual branches, [x1, x2] -> alpha x1 + (1 - alpha) x2 (Gastaldi, arXiv 1705.07485).

    alpha ~ U(0, 1) an example; the gradient is shared out by a beta of its own. Evaluation takes the mean of the two.
    """

    def _expected(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        return 0.5 * (inputs[0] + inputs[1])

    def _perturbed(self, inputs: list[tf.Tensor], draw: tf.Tensor) -> tf.Tensor:
        noise = {f"{self.name}.alpha": True, f"{self.name}.beta": True}
        alpha, beta = draws.uniform_scalars(draw, layers=noise)
        return _scaled(inputs[0], alpha, beta) + _scaled(inputs[1], 1.0 - alpha, 1.0 - beta)


def sample_dropout(network: keras.Model) -> None:
    """Has dropout draw in evaluation as in training: Monte Carlo dropout (arXiv 1506.02142); the rest stays as it is.

    To be called before the network is traced.

    Raises:
      InputError: the network has no dropout.
    """
    layers = [layer for layer in compat.flat_layers(network) if isinstance(layer, Dropout | ChannelDropout)]
    if not any(layer.rate for layer in layers):
        raise InputError(
            f"The network has no dropout to sample. Received: {len(layers)} layers of dropout, none with a rate; "
            "overrides={'dropout': 0.3} would work where the backbone's spec has it."
        )
    for layer in layers:
        layer.sampled = True
