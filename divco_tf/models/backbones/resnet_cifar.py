"""ResNets and ResNeXts for 32-pixel images, with bottlenecks and ResNet-D shortcuts.

He et al., arXiv 1512.03385; Xie et al., arXiv 1611.05431.
"""

import dataclasses
from typing import Any

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.divide import by_split, by_table, by_whole_split, divided, kept


@dataclasses.dataclass(frozen=True)
class CifarResNetSpec:
    """A CIFAR ResNet: three stages of (depth - 2) / 9 bottlenecks."""

    depth: int
    width: float = divided(  # channels of the stem; those of the last stage's outputs are 16 times as many
        by_table({16: {1: 16, 2: 12, 4: 8, 8: 6, 16: 4}}), width=1 / 16, default=16
    )
    dropout: float = divided(by_split, regulariser=True, default=0.0)  # before the classifier
    groups: int = 1  # of the 3x3 convolutions; each is as wide as its stage

    def __post_init__(self) -> None:
        if self.depth < 11 or (self.depth - 2) % 9:
            raise InputError(f"A CIFAR ResNet's depth is 9 n + 2. Received: {self.depth}; 29, 110 and 164 are known.")

    @property
    def blocks(self) -> tuple[int, int, int]:
        """Bottlenecks of each stage."""
        return ((self.depth - 2) // 9,) * 3

    def widths(self, width: float) -> tuple[float, float, float]:
        """Channels of a bottleneck's convolutions in a stage of `width`."""
        return width * self.groups, width * self.groups, 4 * width


@dataclasses.dataclass(frozen=True)
class CifarResNeXtSpec(CifarResNetSpec):
    """A CIFAR ResNeXt, divided by its groups: all that is outside of the grouped convolutions stays as it is."""

    depth: int = 29
    width: float = divided(kept, width=1, default=64)
    groups: int = divided(by_whole_split, default=8)


SPECS = {
    "resnet110": CifarResNetSpec(depth=110),
    "resnet164": CifarResNetSpec(depth=164),
    "resnext29_8x64d": CifarResNeXtSpec(groups=8),
    "resnext29_16x64d": CifarResNeXtSpec(groups=16),
}


@register_backbones(SPECS)
def cifar_resnet(spec: CifarResNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    from divco_tf.models import layers

    x = layers.conv_norm_relu(image, spec.width, 3, names=("layer0.0", "layer0.1"))
    for name, width, stride in layers.stages(spec.blocks, spec.width):
        y = layers.bottleneck(x, spec.widths(width), stride=stride, groups=spec.groups, gamma=0.0, name=name)
        x = layers.residual(x, y, stride=stride, name=name)
    return layers.classifier(x, num_classes, dropout=spec.dropout, draw=draw)
