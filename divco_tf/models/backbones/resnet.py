"""ResNet-D, Wide ResNet and ResNeXt for ImageNet, with bottlenecks, a deep stem and pooled shortcuts.

He et al., arXiv 1512.03385 and 1812.01187; Zagoruyko and Komodakis, arXiv 1605.07146; Xie et al., arXiv 1611.05431.
"""

import dataclasses
from typing import Any

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.divide import by_split, by_table, by_whole_split, divided, kept


@dataclasses.dataclass(frozen=True)
class ResNetSpec:
    """A ResNet: stages of bottlenecks, each twice as wide as the one before."""

    blocks: tuple[int, ...]  # of each stage
    width: float = divided(by_table({64: {1: 64, 2: 44, 4: 32, 8: 24}}), width=1 / 8, default=64)  # of the first stage
    base_width: int = 64  # channels of a group of a bottleneck's 3x3 convolution, for each 64 of its stage's width
    groups: int = 1  # of the 3x3 convolutions
    dropout: float = divided(by_split, regulariser=True, default=0.0)  # before the classifier

    def __post_init__(self) -> None:
        if not self.blocks or min(self.blocks) < 1:
            raise InputError(f"A stage has no blocks. Received: blocks={self.blocks}; pass (3, 4, 6, 3), say.")
        if min(self.width, self.base_width, self.groups) < 1:
            raise InputError(
                f"A bottleneck has no channels. Received: width={self.width}, base_width={self.base_width}, "
                f"groups={self.groups}; pass 1 or more of each."
            )

    def widths(self, width: float) -> tuple[float, float, float]:
        """Channels of a bottleneck's convolutions in a stage of `width`."""
        inner = max(width * self.base_width // 64, 1) * self.groups
        return inner, inner, 4 * width


@dataclasses.dataclass(frozen=True)
class WideResNet50Spec(ResNetSpec):
    """A wide ResNet-50, whose halves are the next narrower one: WRN-50-3, WRN-50-2, ResNet-50."""

    width: float = divided(by_table({64: {1: 64, 2: 64, 4: 32}}), width=1 / 8, default=64)
    base_width: int = divided(by_table({128: {1: 128, 2: 64, 4: 128}, 192: {1: 192, 2: 128, 4: 192}}), default=128)


@dataclasses.dataclass(frozen=True)
class WideResNet101Spec(ResNetSpec):
    """A wide ResNet-101, divided as a ResNet is."""

    width: float = divided(by_table({64: {1: 64, 2: 44, 4: 32}}), width=1 / 8, default=64)
    base_width: int = 128


@dataclasses.dataclass(frozen=True)
class ResNeXtSpec(ResNetSpec):
    """A ResNeXt, divided by its groups: all that is outside of the grouped convolutions stays as it is."""

    width: float = divided(kept, width=1 / 8, default=64)
    base_width: int = 4
    groups: int = divided(by_whole_split, default=32)


DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}

RESNETS = {
    "resnet50": ResNetSpec(DEPTHS[50]),
    "resnet101": ResNetSpec(DEPTHS[101], dropout=0.1),
    "resnet152": ResNetSpec(DEPTHS[152]),
    "resnet200": ResNetSpec(DEPTHS[200]),
    "wide_resnet50_2": WideResNet50Spec(DEPTHS[50], base_width=128),
    "wide_resnet50_3": WideResNet50Spec(DEPTHS[50], base_width=192),
    "wide_resnet101_2": WideResNet101Spec(DEPTHS[101]),
    "resnext50_32x4d": ResNeXtSpec(DEPTHS[50], groups=32),
    "resnext101_32x4d": ResNeXtSpec(DEPTHS[101], groups=32),
    "resnext101_64x4d": ResNeXtSpec(DEPTHS[101], groups=64),
}


@register_backbones(RESNETS)
def resnet(spec: ResNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    from divco_tf.models import layers

    stem = (("layer0.0", "layer0.1"), ("layer0.3", "layer0.4"), ("layer0.6", "layer0.7"))
    x = layers.deep_stem(image, (spec.width, spec.width, 2 * spec.width), names=stem)
    x = layers.max_pool(x, name="layer0.9")
    for name, width, stride in layers.stages(spec.blocks, spec.width):
        y = layers.bottleneck(x, spec.widths(width), stride=stride, groups=spec.groups, gamma=0.0, name=name)
        x = layers.residual(x, y, stride=stride, name=name)
    return layers.classifier(x, num_classes, dropout=spec.dropout, draw=draw)
