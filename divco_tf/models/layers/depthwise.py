"""Depthwise convolution."""

from typing import Any

import keras

from divco_tf.models.layers import basic

# Keras counts the fans of a kernel [h, w, C, 1] as if the channels were inputs of a dense one.
DEPTHWISE_FAN_OUT_NORMAL = keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
"""std sqrt(2 / (h w C)): as `FAN_OUT_NORMAL`, the fan-out is not divided by the groups."""

DEPTHWISE_FAN_IN_UNIFORM = keras.initializers.VarianceScaling(1 / 3, "fan_out", "uniform")
"""PyTorch's default: uniform within +-1 / sqrt(h w)."""


def depthwise_conv(
    x: Any,
    kernel_size: int,
    *,
    name: str,
    stride: int = 1,
    padding: str = "symmetric",
    kernel_initializer: Any = DEPTHWISE_FAN_OUT_NORMAL,
) -> Any:
    """Convolution of each channel by itself, [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), C].

    `padding` is that of `conv`.
    """
    x, padding = basic.padded(x, kernel_size, stride=stride, padding=padding, name=name)
    return keras.layers.DepthwiseConv2D(
        kernel_size, stride, padding=padding, use_bias=False, depthwise_initializer=kernel_initializer, name=name
    )(x)
