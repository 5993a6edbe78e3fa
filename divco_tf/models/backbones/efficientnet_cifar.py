"""EfficientNets for 32-pixel images (Tan and Le, arXiv 1905.11946).

They stride less than those for ImageNet, pad on both sides alike, and drop channels of the residual branches.
"""

import dataclasses
from typing import Any

from divco_tf.models.backbones.efficientnet import SCALES, Block, EfficientNetSpec, Parts, features
from divco_tf.models.backbones.registry import register_backbones


@dataclasses.dataclass(frozen=True)
class CifarEfficientNetSpec(EfficientNetSpec):
    """An EfficientNet whose last stage sees a quarter of the image's side; `block_dropout` is of channels."""

    strides: tuple[int, ...] = (1, 2, 1, 2, 1, 1, 1)
    stem_stride: int = 1


# There is no b8: the authors' network does not know it.
SPECS = {
    f"efficientnet_b{number}_cifar": CifarEfficientNetSpec(width, depth, dropout, block_dropout=dropout)
    for number, (width, depth, dropout) in enumerate(SCALES[:8])
}

NAMES = {
    "stem": ("mod1.conv_block.conv", "mod1.conv_block.norm"),
    "expand": ("expansion.conv_block.conv", "expansion.conv_block.norm"),
    "depthwise": ("depth_wise.conv_block.conv", "depth_wise.conv_block.norm"),
    "squeeze": ("se_block.channel_se.linear1", "se_block.channel_se.linear2"),
    "project": ("point_wise.conv", "point_wise.norm"),
    "head": ("last_feat.conv_block.conv", "last_feat.conv_block.norm"),
}


@register_backbones(SPECS)
def cifar_efficientnet(spec: CifarEfficientNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    from divco_tf.models import layers

    def block_name(block: Block) -> str:
        return f"mod{block.stage + 1}.block{block.place}"

    def drop(x: Any, block: Block, name: str) -> Any:
        rate = spec.block_dropout * block.stage / len(spec.channels)
        return layers.ChannelDropout(rate, name=f"{name}.drop")(x, draw=draw) if rate else x

    x = features(spec, image, parts=Parts(NAMES, block_name, layers.conv, layers.depthwise_conv, drop))
    return layers.classifier(
        x,
        num_classes,
        name="classifier",
        dropout=spec.dropout,
        draw=draw,
        kernel_initializer=layers.fan_in_uniform(num_classes),  # within +-1 / sqrt(classes), of all things
    )
