"""What the families are built of."""

# ruff: noqa: F401
from divco_tf.models.layers.attention import split_attention
from divco_tf.models.layers.basic import (
    FAN_IN_NORMAL,
    FAN_IN_UNIFORM,
    FAN_OUT_NORMAL,
    SMALL_NORMAL,
    BatchNormalization,
    classifier,
    conv,
    conv_norm,
    conv_norm_relu,
    deep_stem,
    fan_in_uniform,
    max_pool,
    norm,
    norm_relu,
    numbered,
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
