"""ResNeSt (Zhang et al., arXiv 2004.08955) and the paper's ResNeXSt: bottlenecks with split attention.

A ResNeXSt is a ResNeXt whose groups have split attention; only it has a published division.
"""

import dataclasses
from typing import Any

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.divide import by_sqrt_split, by_table, by_whole_split, divided, kept


def _check_blocks(blocks: tuple[int, ...]) -> None:
    if not blocks or min(blocks) < 1:
        raise InputError(f"A stage has no blocks. Received: blocks={blocks}; pass (3, 4, 6, 3), say.")


@dataclasses.dataclass(frozen=True)
class ResNeStSpec:
    """A ResNeSt: stages of bottlenecks, each twice as wide as the one before. Radix 2, one group."""

    blocks: tuple[int, ...]  # of each stage
    width: int = divided(by_table({64: {1: 64}}), width=2, default=64)  # of the first stage; even, for the radix

    def __post_init__(self) -> None:
        _check_blocks(self.blocks)
        if self.width < 2:
            raise InputError(f"A bottleneck has too few channels. Received: width={self.width}; pass 2, 4, ...")


@dataclasses.dataclass(frozen=True)
class ResNeXStSpec:
    """A ResNeXSt, divided by its groups: all that is outside of the grouped convolutions stays as it is."""

    blocks: tuple[int, ...]  # of each stage
    groups: int = divided(by_whole_split)  # of split attention
    base_width: int  # channels of a group in a stage of width 64
    width: int = divided(kept, width=2, default=64)  # of the first stage
    dropout: float = divided(by_sqrt_split, regulariser=True, default=0.0)  # before the classifier

    def __post_init__(self) -> None:
        _check_blocks(self.blocks)
        if self.groups < 1 or self.base_width < 2 or self.width < 2:
            raise InputError(
                f"A bottleneck has too few channels. Received: groups={self.groups}, base_width={self.base_width}, "
                f"width={self.width}; pass 4, 16 and 64, say."
            )

    def inner(self, width: int) -> int:
        """Channels inside a bottleneck in a stage of `width`: an even number a group, for the radix."""
        return max(width * self.base_width // 128, 1) * 2 * self.groups


RESNESTS = {
    "resnest101": ResNeStSpec((3, 4, 23, 3)),
    "resnest200": ResNeStSpec((3, 24, 36, 3)),
    "resnest269": ResNeStSpec((3, 30, 48, 8)),
}

RESNEXSTS = {
    "resnexst50_4x16d": ResNeXStSpec((3, 4, 6, 3), groups=4, base_width=16),
    "resnexst50_8x16d": ResNeXStSpec((3, 4, 6, 3), groups=8, base_width=16),
    "resnexst50_4x32d": ResNeXStSpec((3, 4, 6, 3), groups=4, base_width=32),
    "resnexst101_8x32d": ResNeXStSpec((3, 4, 23, 3), groups=8, base_width=32, dropout=0.1),
}


@register_backbones(RESNESTS)
def resnest(spec: ResNeStSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    from divco_tf.models import layers

    stem = (("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1"))
    x = layers.deep_stem(image, (spec.width, spec.width, 2 * spec.width), names=stem)
    x = layers.max_pool(x, name="maxpool")
    for name, width, stride in layers.stages(spec.blocks, spec.width):
        pool = stride if stride > 1 else None
        y = _bottleneck(x, width, 4 * width, pool=pool, bias_initializer=layers.fan_in_uniform, name=name)
        if stride == 1 and x.shape != y.shape:  # named as if there were a pooling before
            x = layers.conv_norm(x, 4 * width, 1, names=(f"{name}.downsample.1", f"{name}.downsample.2"))
        x = layers.residual(x, y, stride=stride, name=name)
    return layers.classifier(
        x, num_classes, kernel_initializer=layers.FAN_IN_UNIFORM, bias_initializer=layers.fan_in_uniform
    )


@register_backbones(RESNEXSTS)
def resnexst(spec: ResNeXStSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    from divco_tf.models import layers

    stem = [layers.numbered("layer0", index) for index in (1, 2, 3)]
    x = layers.deep_stem(image, (spec.width, spec.width, 2 * spec.width), names=stem)
    x = layers.max_pool(x, ceil_mode=True, name="layer0.pool")
    for name, width, stride in layers.stages(spec.blocks, spec.width):
        # Every block of the later stages pools, as the authors' do; a ResNeSt's only where it strides.
        pool = None if width == spec.width else stride
        y = _bottleneck(x, spec.inner(width), 4 * width, groups=spec.groups, pool=pool, name=name)
        x = layers.residual(x, y, stride=stride, name=name)
    return layers.classifier(x, num_classes, name="last_linear", dropout=spec.dropout, draw=draw)


def _bottleneck(x: Any, width: int, filters: int, *, name: str, pool: int | None, **attention: Any) -> Any:
    """1x1 convolution, split attention, 3x3 average pooling with a stride of `pool` (None: no pooling), 1x1."""
    import keras

    from divco_tf.models import layers

    y = layers.conv_norm_relu(x, width, 1, names=layers.numbered(name, 1))
    y = layers.split_attention(y, width, name=f"{name}.conv2", **attention)
    if pool is not None:  # the padding's zeros are averaged too
        y = keras.layers.ZeroPadding2D(1, name=f"{name}.avd.pad")(y)
        y = keras.layers.AveragePooling2D(3, pool, name=f"{name}.avd")(y)
    return layers.conv_norm(y, filters, 1, names=layers.numbered(name, 3))
