"""Layers whose defaults are the paper's: convolution, batch normalisation, shortcut pooling, dropout.

Convolutions and norms are named by their module path in the authors' networks ("layer1.0.conv1"), so that weights
of either side are found by name (`models.import_torch`).
"""

from typing import Any

import keras
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models import draws

# fan_out is not divided by groups in the reference; Keras's kernel shape gives the same number there.
KERNEL_INITIALIZER = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")


def conv(x: Any, filters: float, kernel_size: int, *, name: str, stride: int = 1, use_bias: bool = False) -> Any:
    """Convolution, [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), filters].

    `filters` is rounded to a whole number from 1, so that the budget rule may choose fractions of a width.
    Zeros are padded on both sides alike, as PyTorch does: "same" would pad a strided one at the end only.
    """
    padding = "same"
    if stride > 1 and kernel_size > 1:
        x = keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}.pad")(x)
        padding = "valid"
    return keras.layers.Conv2D(
        max(1, round(filters)),
        kernel_size,
        strides=stride,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=KERNEL_INITIALIZER,
        name=name,
    )(x)


def norm(x: Any, *, name: str, gamma: float = 1.0) -> Any:
    """Batch normalisation over [B, H, W], momentum 0.9 and epsilon 1e-5; `gamma` is the initial scale."""
    return BatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer=keras.initializers.Constant(gamma), name=name
    )(x)


def relu(x: Any, *, name: str) -> Any:
    """max(x, 0)."""
    return keras.layers.ReLU(name=name)(x)


def conv_norm_relu(x: Any, filters: float, kernel_size: int, *, names: tuple[str, str], stride: int = 1) -> Any:
    """Convolution, batch normalisation, ReLU; `names` are the convolution's and the norm's."""
    x = conv(x, filters, kernel_size, stride=stride, name=names[0])
    return relu(norm(x, name=names[1]), name=f"{names[1]}.relu")


def shortcut(x: Any, filters: int, *, name: str, stride: int = 1) -> Any:
    """ResNet-D's shortcut (He et al., arXiv 1812.01187): 2x2 average pooling where it strides, 1x1 convolution, norm.

    "same" pooling averages the real pixels of a partial window only, which is PyTorch's ceil mode.
    """
    first = 0
    if stride > 1:
        x = keras.layers.AveragePooling2D(2, stride, padding="same", name=f"{name}.0")(x)
        first = 1
    x = conv(x, filters, 1, name=f"{name}.{first}")
    return norm(x, name=f"{name}.{first + 1}")


def residual(x: Any, y: Any, *, stride: int, name: str) -> Any:
    """relu(x + y); x goes through a `shortcut` where its shape is not y's."""
    if x.shape != y.shape:
        x = shortcut(x, y.shape[-1], stride=stride, name=f"{name}.downsample")
    return relu(keras.layers.Add(name=f"{name}.add")([x, y]), name=f"{name}.relu")


def classifier(x: Any, num_classes: int, *, name: str = "fc", dropout: float = 0.0, draw: Any = None) -> Any:
    """Global average pooling, dropout, a linear layer in float32: [B, H, W, C] -> logits [B, num_classes]."""
    x = keras.layers.GlobalAveragePooling2D(name="avgpool", dtype="float32")(x)
    if dropout:
        x = Dropout(dropout, name="dropout", dtype="float32")(x, draw=draw)
    return keras.layers.Dense(
        num_classes, kernel_initializer=keras.initializers.RandomNormal(stddev=1e-3), dtype="float32", name=name
    )(x)


@keras.saving.register_keras_serializable("divco_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer through TensorFlow's fused op, which Keras 3 spells out in many small ones.

    `divco-benchmark step` measures what that saves. The op's batch variance is the unbiased one, which is also what
    PyTorch puts into the running variance.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Normalises [B, H, W, C]; anything else goes Keras's way."""
        fused = inputs.shape.rank == 4 and self.axis in (-1, 3) and mask is None and not self.synchronized
        if not fused or inputs.dtype not in (tf.float32, tf.float16, tf.bfloat16):
            return super().call(inputs, training=training, mask=mask)
        update = bool(training) and self.trainable
        mean, variance = tf.cast(self.moving_mean, tf.float32), tf.cast(self.moving_variance, tf.float32)
        outputs, new_mean, new_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.cast(self.gamma, tf.float32) if self.scale else tf.ones_like(mean),
            offset=tf.cast(self.beta, tf.float32) if self.center else tf.zeros_like(mean),
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            exponential_avg_factor=1.0 - self.momentum,
            is_training=update,
        )
        if update:
            self.moving_mean.assign(new_mean)
            self.moving_variance.assign(new_variance)
        return outputs


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
