"""What the families are built of."""

from divco_tf.models.layers.basic import (
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
    relu,
    residual,
    shortcut,
)
from divco_tf.models.layers.grouped import GroupedConv2D
from divco_tf.models.layers.squeeze import squeeze_excite
from divco_tf.models.layers.stochastic import ChannelDropout, DropBlock, Dropout, DropPath, ShakeDrop, ShakeShake

__all__ = [
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
    "classifier",
    "conv",
    "conv_norm_relu",
    "deep_stem",
    "fan_in_uniform",
    "max_pool",
    "norm",
    "relu",
    "residual",
    "shortcut",
    "squeeze_excite",
]
