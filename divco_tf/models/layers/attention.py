"""Split attention: parallel features are weighed against each other, channel by channel (arXiv 2004.08955)."""

import functools
from typing import Any

import keras
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.layers import basic


def split_attention(
    x: Any,
    width: int,
    *,
    name: str,
    radix: int = 2,
    groups: int = 1,
    bias_initializer: Any = "zeros",
) -> Any:
    """3x3 convolution to `radix` features an output, and their sum by attention: [B, H, W, C] -> [B, H, W, width].

    Zhang et al., section 3: "cardinal groups" of channels, each with `radix` splits.

    Args:
      x: features.
      width: channels of the output.
      name: of the block; convolutions are .conv, .fc1, .fc2, norms .bn0, .bn1.
      radix: features that compete for an output.
      groups: of the attention's convolutions; the 3x3 one has groups * radix.
      bias_initializer: of the attention's convolutions, as `conv`'s.
    """
    x = basic.conv_norm_relu(x, radix * width, 3, groups=radix * groups, names=(f"{name}.conv", f"{name}.bn0"))
    gate_conv = functools.partial(
        basic.conv, kernel_size=1, groups=groups, use_bias=True, bias_initializer=bias_initializer
    )
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}.pool")(x)
    gate = RadixSum(radix, name=f"{name}.sum")([gate])
    gate = basic.norm_relu(gate_conv(gate, max(width * radix // 4, 32), name=f"{name}.fc1"), name=f"{name}.bn1")
    gate = gate_conv(gate, radix * width, name=f"{name}.fc2")
    gate = RadixSoftmax(radix, groups, name=f"{name}.softmax")(gate)
    return RadixSum(radix, name=f"{name}.weighted")([x, gate])


class _Radix(keras.layers.Layer):
    """Channels are radix-major: [radix, channels of an output]."""

    def __init__(self, radix: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(radix, int) or radix < 1:
            raise InputError(f"The radix is no positive whole number. Received: {radix!r}; pass 2, say.")
        self.radix = radix

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "radix": self.radix}


@keras.saving.register_keras_serializable("divco_tf")
class RadixSum(_Radix):
    """Sums the `radix` features of each output: [B, H, W, radix * C], times gates of such a shape -> [B, H, W, C]."""

    def call(self, factors: list[tf.Tensor]) -> tf.Tensor:
        """The product's sum over the radix; gates may be [B, 1, 1, radix * C]."""
        parts = [tf.split(factor, self.radix, axis=-1) for factor in factors]
        return tf.add_n([part[0] if len(part) == 1 else part[0] * part[1] for part in zip(*parts, strict=True)])

    def compute_output_shape(self, shapes: list[tuple]) -> tuple:
        """The first one's, with the radix gone."""
        return (*shapes[0][:-1], shapes[0][-1] // self.radix)


@keras.saving.register_keras_serializable("divco_tf")
class RadixSoftmax(_Radix):
    """Softmax over the radix: logits [B, 1, 1, groups * radix * c] -> gates [B, 1, 1, radix * groups * c].

    Logits come out of a grouped convolution and so are group-major, [groups, radix, c]; gates are radix-major.
    """

    def __init__(self, radix: int, groups: int, **kwargs: Any) -> None:
        super().__init__(radix, **kwargs)
        self.groups = groups

    def call(self, logits: tf.Tensor) -> tf.Tensor:
        """Gates, which sum to 1 over the radix."""
        channels = logits.shape[-1]
        grouped = tf.reshape(logits, [-1, self.groups, self.radix, channels // (self.groups * self.radix)])
        gates = tf.transpose(tf.nn.softmax(grouped, axis=2), [0, 2, 1, 3])
        return tf.reshape(gates, [-1, 1, 1, channels])

    def compute_output_shape(self, shape: tuple) -> tuple:
        """The input's."""
        return shape

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {**super().get_config(), "groups": self.groups}
