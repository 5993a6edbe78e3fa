"""PyramidNets with ShakeDrop (Han et al., arXiv 1610.02915; Yamada et al., arXiv 1802.02375)."""

import dataclasses
from typing import Any

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.divide import by_sqrt_split, divided

STEM_WIDTH = 16  # whatever the split factor


@dataclasses.dataclass(frozen=True)
class PyramidNetSpec:
    """A PyramidNet: three stages of (depth - 2) / 9 bottlenecks, each a little wider than the one before."""

    depth: int
    widening: float = divided(by_sqrt_split, width=0.5)  # alpha: what all blocks together add to the width
    shake_drop: float = divided(by_sqrt_split, regulariser=True, default=0.5)  # of the last block; the first's is least

    def __post_init__(self) -> None:
        if self.depth < 11 or (self.depth - 2) % 9:
            raise InputError(f"A PyramidNet's depth is 9 n + 2. Received: {self.depth}; 164 and 272 are the paper's.")
        if not self.widening >= 0:
            raise InputError(f"The widening is negative. Received: {self.widening}; pass 0 or more channels.")

    def widths(self) -> list[int]:
        """Of each block. Rounding half to even and summing floats is part of the definition: it decides sizes."""
        blocks = (self.depth - 2) // 3
        width, widths = float(STEM_WIDTH), []
        for _ in range(blocks):
            width += self.widening / blocks
            widths.append(round(width))
        return widths


SPECS = {
    "pyramidnet164": PyramidNetSpec(depth=164, widening=270.0),
    "pyramidnet272": PyramidNetSpec(depth=272, widening=200.0),
}


@register_backbones(SPECS)
def pyramidnet(spec: PyramidNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    from divco_tf.models import layers

    x = layers.conv_norm(image, STEM_WIDTH, 3, names=("conv1", "bn1"))
    widths = spec.widths()
    for index, width in enumerate(widths):
        stage, block = divmod(index, len(widths) // 3)
        name, stride = f"layer{stage + 1}.{block}", 2 if stage > 0 and block == 0 else 1
        y = layers.norm(x, name=f"{name}.bn1")
        y = layers.conv_norm_relu(y, width, 1, names=(f"{name}.conv1", f"{name}.bn2"))
        y = layers.conv_norm_relu(y, width, 3, stride=stride, names=(f"{name}.conv2", f"{name}.bn3"))
        y = layers.conv_norm(y, 4 * width, 1, names=(f"{name}.conv3", f"{name}.bn4"))
        if spec.shake_drop:
            rate = spec.shake_drop * (index + 1) / len(widths)
            y = layers.ShakeDrop(rate, name=f"{name}.shake_drop")(y, draw=draw)
        x = layers.padded_residual(x, y, stride=stride, name=name)
    return layers.classifier(
        layers.norm_relu(x, name="bn_final"),
        num_classes,
        kernel_initializer=layers.FAN_IN_UNIFORM,
        bias_initializer=layers.fan_in_uniform,
    )
