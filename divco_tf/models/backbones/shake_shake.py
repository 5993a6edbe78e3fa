"""Shake-Shake (Gastaldi, arXiv 1705.07485)."""

import dataclasses
import itertools
from typing import Any

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.divide import by_table, divided

STEM_WIDTH = 16  # whatever the split factor


@dataclasses.dataclass(frozen=True)
class ShakeShakeSpec:
    """A ResNet of two residual branches a block: three stages of (depth - 2) / 6 blocks."""

    depth: int
    width: float = divided(
        by_table({96: {1: 96, 2: 64, 4: 48, 8: 32, 16: 24}}), width=1 / 4
    )  # channels of the first stage

    def __post_init__(self) -> None:
        if self.depth < 8 or (self.depth - 2) % 6:
            raise InputError(f"A Shake-Shake ResNet's depth is 6 n + 2. Received: {self.depth}; 26 is the paper's.")
        if self.width < 2:  # a shortcut is made of two halves
            raise InputError(f"The width is below 2. Received: {self.width}; pass 2, 3, ... channels.")


SPECS = {"shake_resnet26_2x96d": ShakeShakeSpec(depth=26, width=96)}


def unused_tensors(spec: ShakeShakeSpec) -> list[str]:
    """The authors' networks hold a shortcut for every block, also where input and output have one shape."""
    blocks = itertools.product((1, 2, 3), range((spec.depth - 2) // 6))
    same_shape = [place for place in blocks if place[1] > 0 or (place[0] == 1 and spec.width == STEM_WIDTH)]
    tensors = ("conv1.weight", "conv2.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    return [f"stage_{stage}.{block}.shortcut.{tensor}" for stage, block in same_shape for tensor in tensors]


@register_backbones(SPECS, unused_tensors=unused_tensors)
def shake_resnet(spec: ShakeShakeSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    from divco_tf.models import layers

    x = layers.conv(image, STEM_WIDTH, 3, use_bias=True, bias_initializer=layers.fan_in_uniform, name="conv_1")
    x = layers.norm(x, name="bn_1")
    for stage in (1, 2, 3):
        for block in range((spec.depth - 2) // 6):
            stride = 2 if stage > 1 and block == 0 else 1
            x = _block(x, spec.width * 2 ** (stage - 1), stride=stride, draw=draw, name=f"stage_{stage}.{block}")
    return layers.classifier(layers.relu(x, name="relu"), num_classes, name="fc_out")


def _block(x: Any, width: float, *, stride: int, draw: Any, name: str) -> Any:
    import keras

    from divco_tf.models import layers

    active = layers.relu(x, name=f"{name}.relu")
    branches = []
    for branch in (f"{name}.branch1", f"{name}.branch2"):
        y = layers.conv_norm_relu(active, width, 3, stride=stride, names=(f"{branch}.1", f"{branch}.2"))
        branches.append(layers.conv_norm(y, width, 3, names=(f"{branch}.4", f"{branch}.5")))
    y = layers.ShakeShake(name=f"{name}.shake")(branches, draw=draw)
    if x.shape != y.shape:
        x = _shortcut(active, y.shape[-1], stride=stride, name=f"{name}.shortcut")
    return keras.layers.Add(name=f"{name}.add")([x, y])


def _shortcut(x: Any, width: int, *, stride: int, name: str) -> Any:
    """Two 1x1 convolutions, half of the channels each; the second one sees the image one pixel further on."""
    import keras

    from divco_tf.models import layers

    shifted = keras.layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}.pad")(x)
    shifted = keras.layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}.crop")(shifted)
    one = layers.conv(x, width // 2, 1, stride=stride, name=f"{name}.conv1")
    other = layers.conv(shifted, width - width // 2, 1, stride=stride, name=f"{name}.conv2")
    return layers.norm(keras.layers.Concatenate(name=f"{name}.concat")([one, other]), name=f"{name}.bn")
