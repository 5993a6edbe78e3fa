"""Wide ResNets for 32-pixel images (Zagoruyko and Komodakis, arXiv 1605.07146).

The paper's are post-activation basic blocks with ResNet-D shortcuts, not the pre-activation blocks of that article.
"""

import dataclasses
import math
from typing import Any

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.divide import by_split, divided


def widen(factor: int, split_factor: int) -> int:
    """The widening factor of each of S networks: k / sqrt(S), rounded down from 0.6 up, at least 1."""
    return int(max(factor / math.sqrt(split_factor) + 0.4, 1))


@dataclasses.dataclass(frozen=True)
class WideResNetSpec:
    """A wide ResNet: three stages of (depth - 4) / 6 basic blocks with 16 k, 32 k and 64 k channels.

    The paper's k are whole numbers; the budget rule's are multiples of 1/64, a channel of the last stage.
    """

    depth: int
    widen_factor: float = divided(widen, width=1 / 64)
    dropout: float = divided(by_split, regulariser=True, default=0.0)  # before the classifier

    def __post_init__(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise InputError(
                f"A wide ResNet's depth is 6 n + 4. Received: {self.depth}; 10, 16, 22, 28, 34, 40, 46, 52 are."
            )
        if not self.widen_factor > 0:
            raise InputError(f"The widening factor is not positive. Received: {self.widen_factor}; pass 1, 2, ...")


SPECS = {
    "wide_resnet16_8": WideResNetSpec(depth=16, widen_factor=8),
    "wide_resnet16_12": WideResNetSpec(depth=16, widen_factor=12),
    "wide_resnet28_10": WideResNetSpec(depth=28, widen_factor=10),
    "wide_resnet40_10": WideResNetSpec(depth=40, widen_factor=10, dropout=0.1),
    "wide_resnet52_8": WideResNetSpec(depth=52, widen_factor=8),
}


@register_backbones(SPECS, pattern="wide_resnet<depth>_<width>", parse=WideResNetSpec)
def wide_resnet(spec: WideResNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]. The stem keeps 16 channels, whatever the split factor."""
    from divco_tf.models import layers

    x = layers.conv_norm_relu(image, 16, 3, names=("layer0.0", "layer0.1"))
    for name, width, stride in layers.stages([(spec.depth - 4) // 6] * 3, 16 * spec.widen_factor):
        y = layers.conv_norm_relu(x, width, 3, stride=stride, names=layers.numbered(name, 1))
        y = layers.conv_norm(y, width, 3, gamma=0.0, names=layers.numbered(name, 2))
        x = layers.residual(x, y, stride=stride, name=name)
    return layers.classifier(x, num_classes, dropout=spec.dropout, draw=draw)
