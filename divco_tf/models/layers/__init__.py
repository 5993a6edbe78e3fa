"""What the families are built of."""

from divco_tf.models.layers.attention import split_attention
from divco_tf.models.layers.basic import (
    FAN_IN_NORMAL,
    FAN_IN_UNIFORM,
    FAN_OUT_NORMAL,
    SMALL_NORMAL,
    BatchNormalization,
    classifier,
    conv,
    conv_norm_relu,
    deep_stem,
    fan_in_uniform,
    max_pool,
    norm,
    padded_residual,
    relu,
    residual,
    shortcut,
)
from divco_tf.models.layers.bottleneck import bottleneck, stages
from divco_tf.models.layers.depthwise import DEPTHWISE_FAN_IN_UNIFORM, DEPTHWISE_FAN_OUT_NORMAL, depthwise_conv
from divco_tf.models.layers.grouped import GroupedConv2D
from divco_tf.models.layers.squeeze import squeeze_excite
from divco_tf.models.layers.stochastic import ChannelDropout, DropBlock, Dropout, DropPath, ShakeDrop, ShakeShake

__all__ = [
    "DEPTHWISE_FAN_IN_UNIFORM",
    "DEPTHWISE_FAN_OUT_NORMAL",
    "FAN_IN_NORMAL",
    "FAN_IN_UNIFORM",
    "FAN_OUT_NORMAL",
    "SMALL_NORMAL",
    "BatchNormalization",
    "ChannelDropout",
    "DropBlock",
    "DropPath",
    "Dropout",
    "GroupedConv2D",
    "ShakeDrop",
    "ShakeShake",
    "bottleneck",
    "classifier",
    "conv",
    "conv_norm_relu",
    "deep_stem",
    "depthwise_conv",
    "fan_in_uniform",
    "max_pool",
    "norm",
    "padded_residual",
    "relu",
    "residual",
    "shortcut",
    "split_attention",
    "squeeze_excite",
    "stages",
]
