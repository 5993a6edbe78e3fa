"""EfficientNets for ImageNet (Tan and Le, arXiv 1905.11946)."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.divide import by_sqrt_split, by_table, divided, kept

_CHANNELS = {
    1: (16, 24, 40, 80, 112, 192, 320),
    2: (12, 16, 24, 56, 80, 136, 224),
    4: (12, 16, 20, 40, 56, 96, 160),
}


@dataclasses.dataclass(frozen=True)
class Block:
    """One inverted residual block: its index among all from 0 on, its stage and its place there from 1 on."""

    index: int
    stage: int
    place: int
    filters: int
    kernel_size: int
    stride: int
    expansion: int


@dataclasses.dataclass(frozen=True)
class EfficientNetSpec:
    """An EfficientNet: a stem, stages of inverted residual blocks, a head; b0's, scaled in width and depth.

    The paper divides the unscaled channels by a table of its own, and rounds more finely afterwards.
    """

    width: float = divided(kept, width=1 / 512, default=1.0)  # times all channels
    depth: float = 1.0  # times the blocks of each stage, rounded up
    dropout: float = divided(by_sqrt_split, regulariser=True, default=0.2)  # before the classifier
    block_dropout: float = divided(by_sqrt_split, regulariser=True, default=0.0)  # of the last residual branch
    stem: int = divided(by_table({32: {1: 32, 2: 24, 4: 16}}), default=32)
    head: int = divided(by_table({1280: {1: 1280, 2: 920, 4: 640}}), default=1280)
    channels: tuple[int, ...] = divided(by_table({_CHANNELS[1]: _CHANNELS}), default=_CHANNELS[1])  # of each stage
    divisor: int = divided(by_table({8: {1: 8, 2: 4, 4: 4}}), default=8)  # scaled channels are its multiples
    blocks: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    kernel_sizes: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    stem_stride: int = 2

    def __post_init__(self) -> None:
        stages = {name: getattr(self, name) for name in ("channels", "blocks", "kernel_sizes", "strides")}
        told = ", ".join(f"{name}={value}" for name, value in stages.items())
        if any(not isinstance(value, tuple) or len(value) != len(self.channels) for value in stages.values()):
            raise InputError(f"The stages are not told by tuples of one length. Received: {told}; give one of each.")
        if not (self.width > 0 and self.depth > 0):
            raise InputError(
                f"An EfficientNet has no positive size. Received: width={self.width}, depth={self.depth}; 1.0 is b0's."
            )
        numbers = (self.stem, self.head, self.divisor, self.stem_stride, *sum(stages.values(), ()))
        if min(numbers) < 1 or not all(size % 2 for size in self.kernel_sizes):
            raise InputError(
                f"An EfficientNet's sizes are positive, kernels odd. Received: stem={self.stem}, head={self.head}, "
                f"divisor={self.divisor}, stem_stride={self.stem_stride}, {told}; b0's are the defaults."
            )

    def scaled(self, channels: int) -> int:
        """`channels` times the width, as the nearest multiple of the divisor that is not below 90 % of it."""
        exact = channels * self.width
        rounded = max(self.divisor, int(exact + self.divisor / 2) // self.divisor * self.divisor)
        return rounded if rounded >= 0.9 * exact else rounded + self.divisor

    def all_blocks(self) -> list[Block]:
        """The blocks in their order. A stage's first one strides; those of the first stage do not expand."""
        blocks = []
        stages = zip(self.channels, self.blocks, self.kernel_sizes, self.strides, strict=True)
        for stage, (channels, count, kernel_size, stride) in enumerate(stages, start=1):
            for place in range(1, math.ceil(self.depth * count) + 1):
                block = Block(
                    index=len(blocks),
                    stage=stage,
                    place=place,
                    filters=self.scaled(channels),
                    kernel_size=kernel_size,
                    stride=stride if place == 1 else 1,
                    expansion=1 if stage == 1 else 6,
                )
                blocks.append(block)
        return blocks


# (width, depth, dropout) of b0, b1, ...; b8 comes from Xie et al., arXiv 1911.09665.
SCALES = (
    (1.0, 1.0, 0.2),
    (1.0, 1.1, 0.2),
    (1.1, 1.2, 0.3),
    (1.2, 1.4, 0.3),
    (1.4, 1.8, 0.4),
    (1.6, 2.2, 0.4),
    (1.8, 2.6, 0.5),
    (2.0, 3.1, 0.5),
    (2.2, 3.6, 0.5),
)

SPECS = {f"efficientnet_b{number}": EfficientNetSpec(*scale) for number, scale in enumerate(SCALES)}

# The dots in front are not the authors' (`torch_weights.torch_tensors`): TensorFlow allows no scope to begin with "_".
NAMES = {
    "stem": ("._conv_stem", "._bn0"),
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "squeeze": ("_se_reduce", "_se_expand"),
    "project": ("_project_conv", "_bn2"),
    "head": ("._conv_head", "._bn1"),
}


@register_backbones(SPECS)
def efficientnet(spec: EfficientNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]. Pads as TensorFlow does, begins with PyTorch's initial values."""
    from divco_tf.models import layers

    conv = functools.partial(
        layers.conv,
        padding="same",
        kernel_initializer=layers.FAN_IN_UNIFORM,
        bias_initializer=layers.fan_in_uniform,
    )
    depthwise_conv = functools.partial(
        layers.depthwise_conv, padding="same", kernel_initializer=layers.DEPTHWISE_FAN_IN_UNIFORM
    )

    def drop(x: Any, block: Block, name: str) -> Any:
        rate = spec.block_dropout * block.index / len(spec.all_blocks())
        return layers.DropPath(rate, name=f"{name}.drop")(x, draw=draw) if rate else x

    x = features(spec, image, parts=Parts(NAMES, lambda block: f"._blocks.{block.index}", conv, depthwise_conv, drop))
    return layers.classifier(
        x,
        num_classes,
        name="._fc",
        dropout=spec.dropout,
        draw=draw,
        kernel_initializer=layers.FAN_IN_UNIFORM,
        bias_initializer=layers.fan_in_uniform,
    )


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the authors' two EfficientNets differ in.

    Attributes:
      names: of a convolution and its norm at each step (and of the two convolutions of the gate).
      block_name: Block -> what stands before its layers' names.
      conv: called as `layers.conv`.
      depthwise_conv: called as `layers.depthwise_conv`.
      drop: (features, block, its name) -> features, on the residual branch of blocks that have a shortcut.
    """

    names: Mapping[str, tuple[str, str]]
    block_name: Callable[[Block], str]
    conv: Callable[..., Any]
    depthwise_conv: Callable[..., Any]
    drop: Callable[[Any, Block, str], Any]


def features(spec: EfficientNetSpec, image: Any, *, parts: Parts) -> Any:
    """Image [B, H, W, C] -> features [B, h, w, scaled head]: all before the classifier."""
    import keras

    from divco_tf.models import layers

    norm = functools.partial(layers.norm, momentum=0.99, epsilon=1e-3)

    def norm_swish(x: Any, name: str) -> Any:
        return keras.layers.Activation("silu", name=f"{name}.swish")(norm(x, name=name))

    def inverted_residual(x: Any, block: Block) -> Any:
        """Expand, convolve depthwise, squeeze and excite, project (MnasNet's block, Tan et al., arXiv 1807.11626)."""
        name, y = parts.block_name(block), x
        names = {step: tuple(f"{name}.{layer}" for layer in pair) for step, pair in parts.names.items()}
        (expand, expand_norm), (depthwise, depthwise_norm) = names["expand"], names["depthwise"]
        project, project_norm = names["project"]
        if block.expansion > 1:
            y = norm_swish(parts.conv(y, block.expansion * x.shape[-1], 1, name=expand), expand_norm)
        y = parts.depthwise_conv(y, block.kernel_size, stride=block.stride, name=depthwise)
        y = norm_swish(y, depthwise_norm)
        hidden = max(1, x.shape[-1] // 4)
        y = layers.squeeze_excite(y, hidden, names=names["squeeze"], activation="silu", convolution=parts.conv)
        y = norm(parts.conv(y, block.filters, 1, name=project), name=project_norm)
        return y if x.shape != y.shape else keras.layers.Add(name=f"{name}.add")([x, parts.drop(y, block, name)])

    (stem, stem_norm), (head, head_norm) = parts.names["stem"], parts.names["head"]
    x = norm_swish(parts.conv(image, spec.scaled(spec.stem), 3, stride=spec.stem_stride, name=stem), stem_norm)
    for block in spec.all_blocks():
        x = inverted_residual(x, block)
    return norm_swish(parts.conv(x, spec.scaled(spec.head), 1, name=head), head_norm)
