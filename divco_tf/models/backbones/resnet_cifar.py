"""ResNet-110 and -164 for 32-pixel images, with bottlenecks and ResNet-D shortcuts (He et al., arXiv 1512.03385)."""

import dataclasses
from typing import Any

from divco_tf.errors import InputError
from divco_tf.models.backbones import register_backbones
from divco_tf.models.divide import by_split, by_table, divided


@dataclasses.dataclass(frozen=True)
class CifarResNetSpec:
    """A CIFAR ResNet: three stages of (depth - 2) / 9 bottlenecks."""

    depth: int
    width: float = divided(  # channels of the stem; those of the last stage's outputs are 16 times as many
        by_table({16: {1: 16, 2: 12, 4: 8, 8: 6, 16: 4}}), width=1 / 16, default=16
    )
    dropout: float = divided(by_split, regulariser=True, default=0.0)  # before the classifier

    def __post_init__(self) -> None:
        if self.depth < 11 or (self.depth - 2) % 9:
            raise InputError(f"A CIFAR ResNet's depth is 9 n + 2. Received: {self.depth}; 110 and 164 are the paper's.")


SPECS = {
    "resnet110": CifarResNetSpec(depth=110),
    "resnet164": CifarResNetSpec(depth=164),
}


@register_backbones(SPECS)
def cifar_resnet(spec: CifarResNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    from divco_tf.models import layers

    x = layers.conv_norm_relu(image, spec.width, 3, names=("layer0.0", "layer0.1"))
    for stage in (1, 2, 3):
        for block in range((spec.depth - 2) // 9):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _bottleneck(x, spec.width * 2 ** (stage - 1), stride=stride, name=f"layer{stage}.{block}")
    return layers.classifier(x, num_classes, dropout=spec.dropout, draw=draw)


def _bottleneck(x: Any, width: float, *, stride: int, name: str) -> Any:
    from divco_tf.models import layers

    y = layers.conv_norm_relu(x, width, 1, names=(f"{name}.conv1", f"{name}.bn1"))
    y = layers.conv_norm_relu(y, width, 3, stride=stride, names=(f"{name}.conv2", f"{name}.bn2"))
    y = layers.norm(layers.conv(y, 4 * width, 1, name=f"{name}.conv3"), name=f"{name}.bn3", gamma=0.0)
    return layers.residual(x, y, stride=stride, name=name)
