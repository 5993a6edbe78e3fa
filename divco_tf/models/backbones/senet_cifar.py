"""SE-ResNets for 32-pixel images (Hu et al., arXiv 1709.01507)."""

import dataclasses
from typing import Any

from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.backbones.resnet_cifar import CifarResNetSpec
from divco_tf.models.divide import by_sqrt_split, by_table, divided

REDUCTION = 4  # channels of a block for each hidden one of its squeeze-excite


@dataclasses.dataclass(frozen=True)
class CifarSEResNetSpec(CifarResNetSpec):
    """A CIFAR ResNet whose blocks end in squeeze-excite."""

    width: float = divided(by_table({16: {1: 16, 2: 12, 4: 8}}), width=1 / 16, default=16)  # channels of the stem
    dropout: float = divided(by_sqrt_split, regulariser=True, default=0.0)  # before the classifier


SPECS = {
    "se_resnet110": CifarSEResNetSpec(depth=110),
    "se_resnet164": CifarSEResNetSpec(depth=164),
}


@register_backbones(SPECS)
def cifar_senet(spec: CifarSEResNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    from divco_tf.models import layers

    x = layers.conv_norm_relu(image, spec.width, 3, names=layers.numbered("layer0", 1))
    for name, width, stride in layers.stages(spec.blocks, spec.width):
        y = layers.bottleneck(x, spec.widths(width), stride=stride, groups=spec.groups, name=name)
        hidden = max(4 * width // REDUCTION, 1)
        y = layers.squeeze_excite(y, hidden, names=(f"{name}.se_module.fc1", f"{name}.se_module.fc2"))
        x = layers.residual(x, y, stride=stride, name=name)
    return layers.classifier(x, num_classes, name="last_linear", dropout=spec.dropout, draw=draw)
