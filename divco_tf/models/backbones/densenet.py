"""DenseNet-BC (Huang et al., arXiv 1608.06993)."""

import dataclasses
import functools
import math
from typing import Any

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.divide import by_sqrt_split, divided


def thin(growth: float, split_factor: int) -> int:
    """The growth rate of each of S networks: g / sqrt(S), rounded down."""
    return int(growth / math.sqrt(split_factor) * 2) // 2


@dataclasses.dataclass(frozen=True)
class DenseNetSpec:
    """A DenseNet-BC: three dense blocks of (depth - 4) / 6 layers, which see all that came before in their block."""

    depth: int
    growth: float = divided(thin, width=1 / 8)  # channels that a layer adds
    shake_drop: float = divided(by_sqrt_split, regulariser=True, default=0.0)  # of the last layer; the first's is least

    def __post_init__(self) -> None:
        if self.depth < 10 or (self.depth - 4) % 6:
            raise InputError(f"A DenseNet-BC's depth is 6 n + 4. Received: {self.depth}; 190 is the paper's.")
        if self.growth < 1:
            raise InputError(f"The growth rate is below 1. Received: {self.growth}; pass 1, 2, ...")


SPECS = {"densenet190": DenseNetSpec(depth=190, growth=40)}


@register_backbones(SPECS)
def densenet(spec: DenseNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    import keras

    from divco_tf.models import layers

    if min(image.shape[1:3]) < 4:
        raise InputError(
            f"A DenseNet halves images twice. Received: {image.shape[1]}x{image.shape[2]} pixels; pass 4x4 or more."
        )
    conv = functools.partial(layers.conv, kernel_initializer=layers.FAN_IN_NORMAL)

    def norm_relu_conv(x: Any, filters: float, kernel_size: int, norm: str, name: str) -> Any:
        return conv(layers.norm_relu(x, name=norm), filters, kernel_size, name=name)

    x = layers.norm_relu(conv(image, 2 * spec.growth, 3, name="features.conv0"), name="features.norm0")
    blocks, depth = 3, (spec.depth - 4) // 6
    for block in range(blocks):
        for layer in range(depth):
            name, index = f"features.denseblock{block + 1}.denselayer{layer + 1}", block * depth + layer
            # A growth rate of 9.5, which the budget rule may choose, adds 10 and 9 channels by turns.
            added = round(spec.growth * (index + 1)) - round(spec.growth * index)
            y = norm_relu_conv(x, 4 * spec.growth, 1, f"{name}.norm1", f"{name}.conv1")
            y = norm_relu_conv(y, added, 3, f"{name}.norm2", f"{name}.conv2")
            if spec.shake_drop:
                rate = spec.shake_drop * (index + 1) / (blocks * depth)
                y = layers.ShakeDrop(rate, name=f"{name}.shake_drop")(y, draw=draw)
            x = keras.layers.Concatenate(name=f"{name}.concat")([x, y])
        if block < blocks - 1:
            name = f"features.transition{block + 1}"
            x = norm_relu_conv(x, x.shape[-1] // 2, 1, f"{name}.norm", f"{name}.conv")
            x = keras.layers.AveragePooling2D(2, name=f"{name}.pool")(x)
    x = layers.norm_relu(x, name="features.norm_final")
    return layers.classifier(x, num_classes, kernel_initializer=layers.FAN_IN_UNIFORM, name="classifier")
