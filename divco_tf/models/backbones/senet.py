"""Squeeze-and-excitation networks for ImageNet (Hu et al., arXiv 1709.01507): SE-ResNet, SENet, SE-ResNeXt."""

import dataclasses
from typing import Any

from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.backbones.resnet import DEPTHS, ResNetSpec
from divco_tf.models.divide import by_sqrt_split, by_whole_split, divided, kept

REDUCTION = 16  # channels of a block for each hidden one of its squeeze-excite


@dataclasses.dataclass(frozen=True)
class SEResNetSpec(ResNetSpec):
    """An SE-ResNet: a ResNet whose blocks end in squeeze-excite."""

    stem_factor: int = 1  # of the stem's last convolution: its channels are this many times its first one's
    halves_first: bool = False  # the first convolution of a bottleneck is half as wide as the second
    pools_shortcuts: bool = True  # shortcuts pool where they stride; otherwise they are 3x3 convolutions there
    dropout: float = divided(by_sqrt_split, regulariser=True, default=0.2)  # before the classifier
    drop_block: float = divided(by_sqrt_split, regulariser=True, default=0.0)  # after each norm of stages 3 and 4

    def widths(self, width: float) -> tuple[float, float, float]:
        """Channels of a bottleneck's convolutions in a stage of `width`."""
        first, inner, last = super().widths(width)
        if self.halves_first:
            first = max(first // (2 * self.groups), 1) * self.groups  # whole groups enter the next convolution
        return first, inner, last


@dataclasses.dataclass(frozen=True)
class SENetSpec(SEResNetSpec):
    """A SENet or SE-ResNeXt, divided by its groups."""

    width: float = divided(kept, width=1 / 8, default=64)
    base_width: int = 4
    groups: int = divided(by_whole_split, default=64)


SPECS = {
    "se_resnet50": SEResNetSpec(DEPTHS[50]),
    "se_resnet50_b": SEResNetSpec(DEPTHS[50], drop_block=0.1),
    "se_resnet101": SEResNetSpec(DEPTHS[101]),
    "se_resnet152": SEResNetSpec(DEPTHS[152]),
    "senet113": SENetSpec((3, 8, 23, 3), stem_factor=2, halves_first=True),
    "senet154": SENetSpec((3, 8, 36, 3), stem_factor=2, halves_first=True, pools_shortcuts=False),
    "se_resnext101_64x4d": SENetSpec(DEPTHS[101]),
    "se_resnext101_64x4d_b": SENetSpec(DEPTHS[101], stem_factor=2),
}


@register_backbones(SPECS)
def senet(spec: SEResNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    from divco_tf.models import layers

    def drop_block(features: Any, name: str) -> Any:
        # A block of 3 pixels at 224, in proportion at other sizes.
        block_size = max(3 * image.shape[1] // 224, 1)
        return layers.DropBlock(spec.drop_block, block_size, name=f"{name}.drop")(features, draw=draw)

    stem = [layers.numbered("layer0", index) for index in (1, 2, 3)]
    x = layers.deep_stem(image, (spec.width, spec.width, spec.stem_factor * spec.width), names=stem)
    x = layers.max_pool(x, ceil_mode=True, name="layer0.pool")
    for name, width, stride in layers.stages(spec.blocks, spec.width):
        drop = drop_block if spec.drop_block and width >= 4 * spec.width else None
        y = layers.bottleneck(x, spec.widths(width), stride=stride, groups=spec.groups, drop=drop, name=name)
        hidden = max(4 * width // REDUCTION, 1)
        y = layers.squeeze_excite(y, hidden, names=(f"{name}.se_module.fc1", f"{name}.se_module.fc2"))
        x = layers.residual(x, y, stride=stride, pool=spec.pools_shortcuts, name=name)
    return layers.classifier(x, num_classes, name="last_linear", dropout=spec.dropout, draw=draw)
