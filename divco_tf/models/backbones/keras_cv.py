"""Backbones of keras-cv 0.9 whose builders take widths: ResNetV2, CSPDarkNet, MobileNetV3, EfficientNetV2.

Nobody has published divisions of them, so they are divided by the budget rule. They are built as keras-cv has them: its
layers, initial values and batch normalisation, without rescaling of images, which come normalised; our classifier is
put on top. Their tables stand here, as keras-cv fetches its own from the network.
"""

import dataclasses
from typing import Any

from divco_tf import compat
from divco_tf.errors import InputError
from divco_tf.models.backbones import keras_applications
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.divide import by_sqrt_split, divided


def _check_width(width: float) -> None:
    if not width > 0:
        raise InputError(f"The width is not positive. Received: {width}; pass the published network's, say.")


@dataclasses.dataclass(frozen=True)
class ResNetV2Spec:
    """A pre-activation ResNet with bottlenecks (He et al., arXiv 1603.05027).

    keras-cv gives the stem 64 channels, whatever the width; in its ResNets without bottlenecks (18, 34) the first stage
    must have as many, so they have no width to divide.
    """

    blocks: tuple[int, ...]  # of each stage
    width: float = divided(width=1 / 8, default=64)  # of the first stage; each further one is twice as wide
    dropout: float = divided(by_sqrt_split, regulariser=True, default=0.0)  # before the classifier

    def __post_init__(self) -> None:
        _check_width(self.width)
        if min(self.blocks) < 2:
            raise InputError(
                f"keras-cv names two layers alike in a stage of one block. Received: blocks={self.blocks}; pass 2 or "
                "more for each stage."
            )


RESNETS = {
    "keras_cv_resnet50_v2": ResNetV2Spec((3, 4, 6, 3)),
    "keras_cv_resnet101_v2": ResNetV2Spec((3, 4, 23, 3)),
    "keras_cv_resnet152_v2": ResNetV2Spec((3, 8, 36, 3)),
}


@register_backbones(RESNETS)
def keras_cv_resnet_v2(spec: ResNetV2Spec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    network = _library().models.ResNetV2Backbone(
        stackwise_filters=_doubling(spec.width, len(spec.blocks)),
        stackwise_blocks=list(spec.blocks),
        stackwise_strides=[1] + [2] * (len(spec.blocks) - 1),
        include_rescaling=False,
        input_tensor=image,
    )
    return _logits(network, spec, draw=draw, num_classes=num_classes)


@dataclasses.dataclass(frozen=True)
class CSPDarkNetSpec:
    """The backbone of YOLOX (Ge et al., arXiv 2107.08430)."""

    blocks: tuple[int, ...]  # of each stage
    width: float = divided(width=1 / 8, default=64)  # of the first stage; each further one is twice as wide
    dropout: float = divided(by_sqrt_split, regulariser=True, default=0.0)  # before the classifier

    def __post_init__(self) -> None:
        _check_width(self.width - 1)  # the stem has half as many channels


CSP_DARKNETS = {
    "keras_cv_csp_darknet_tiny": CSPDarkNetSpec((1, 3, 3, 1), width=48),
    "keras_cv_csp_darknet_s": CSPDarkNetSpec((1, 3, 3, 1), width=64),
    "keras_cv_csp_darknet_m": CSPDarkNetSpec((2, 6, 6, 2), width=96),
    "keras_cv_csp_darknet_l": CSPDarkNetSpec((3, 9, 9, 3), width=128),
    "keras_cv_csp_darknet_xl": CSPDarkNetSpec((4, 12, 12, 4), width=170),
}


@register_backbones(CSP_DARKNETS)
def keras_cv_csp_darknet(spec: CSPDarkNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    network = _library().models.CSPDarkNetBackbone(
        stackwise_channels=_doubling(spec.width, len(spec.blocks)),
        stackwise_depth=list(spec.blocks),
        include_rescaling=False,
        input_tensor=image,
    )
    return _logits(network, spec, draw=draw, num_classes=num_classes)


_SE = 0.25
_MOBILENET_STAGES = {  # expansion, channels, kernel size, stride, squeeze-excite ratio, activation: a row a block
    "small": (
        (1, 16, 3, 2, _SE, "relu"),
        (72 / 16, 24, 3, 2, None, "relu"),
        (88 / 24, 24, 3, 1, None, "relu"),
        (4, 40, 5, 2, _SE, "hard_swish"),
        *[(6, 40, 5, 1, _SE, "hard_swish")] * 2,
        *[(3, 48, 5, 1, _SE, "hard_swish")] * 2,
        (6, 96, 5, 2, _SE, "hard_swish"),
        *[(6, 96, 5, 1, _SE, "hard_swish")] * 2,
    ),
    "large": (
        (1, 16, 3, 1, None, "relu"),
        (4, 24, 3, 2, None, "relu"),
        (3, 24, 3, 1, None, "relu"),
        (3, 40, 5, 2, _SE, "relu"),
        *[(3, 40, 5, 1, _SE, "relu")] * 2,
        (6, 80, 3, 2, None, "hard_swish"),
        (2.5, 80, 3, 1, None, "hard_swish"),
        *[(2.3, 80, 3, 1, None, "hard_swish")] * 2,
        *[(6, 112, 3, 1, _SE, "hard_swish")] * 2,
        (6, 160, 5, 2, _SE, "hard_swish"),
        *[(6, 160, 5, 1, _SE, "hard_swish")] * 2,
    ),
}


@dataclasses.dataclass(frozen=True)
class MobileNetV3Spec:
    """MobileNetV3 (Howard et al., arXiv 1905.02244)."""

    size: str  # "small" or "large"
    alpha: float = divided(width=0.001, default=1.0)  # multiplies the channels, which stay multiples of 8
    dropout: float = divided(by_sqrt_split, regulariser=True, default=0.2)  # before the classifier

    def __post_init__(self) -> None:
        _check_width(self.alpha)


MOBILENETS = {f"keras_cv_mobilenet_v3_{size}": MobileNetV3Spec(size) for size in _MOBILENET_STAGES}


@register_backbones(MOBILENETS)
def keras_cv_mobilenet_v3(spec: MobileNetV3Spec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    columns = ("expansion", "filters", "kernel_size", "stride", "se_ratio", "activation")
    network = _library().models.MobileNetV3Backbone(
        **_stackwise(columns, _MOBILENET_STAGES[spec.size]),
        alpha=spec.alpha,
        include_rescaling=False,
        input_tensor=image,
    )
    return _logits(network, spec, draw=draw, num_classes=num_classes)


_EFFICIENTNET_STAGES = {  # repeats, input and output channels, expansion, squeeze-excite ratio, stride, kind of block
    "b": (
        (1, 32, 16, 1, 0, 1, "fused"),
        (2, 16, 32, 4, 0, 2, "fused"),
        (2, 32, 48, 4, 0, 2, "fused"),
        (3, 48, 96, 4, _SE, 2, "unfused"),
        (5, 96, 112, 6, _SE, 1, "unfused"),
        (8, 112, 192, 6, _SE, 2, "unfused"),
    ),
    "s": (
        (2, 24, 24, 1, 0, 1, "fused"),
        (4, 24, 48, 4, 0, 2, "fused"),
        (4, 48, 64, 4, 0, 2, "fused"),
        (6, 64, 128, 4, _SE, 2, "unfused"),
        (9, 128, 160, 6, _SE, 1, "unfused"),
        (15, 160, 256, 6, _SE, 2, "unfused"),
    ),
    "m": (
        (3, 24, 24, 1, 0, 1, "fused"),
        (5, 24, 48, 4, 0, 2, "fused"),
        (5, 48, 80, 4, 0, 2, "fused"),
        (7, 80, 160, 4, _SE, 2, "unfused"),
        (14, 160, 176, 6, _SE, 1, "unfused"),
        (18, 176, 304, 6, _SE, 2, "unfused"),
        (5, 304, 512, 6, _SE, 1, "unfused"),
    ),
    "l": (
        (4, 32, 32, 1, 0, 1, "fused"),
        (7, 32, 64, 4, 0, 2, "fused"),
        (7, 64, 96, 4, 0, 2, "fused"),
        (10, 96, 192, 4, _SE, 2, "unfused"),
        (19, 192, 224, 6, _SE, 1, "unfused"),
        (25, 224, 384, 6, _SE, 2, "unfused"),
        (7, 384, 640, 6, _SE, 1, "unfused"),
    ),
}


@dataclasses.dataclass(frozen=True)
class EfficientNetV2Spec(keras_applications.EfficientNetV2Spec):
    """EfficientNetV2 as keras-cv builds it; `blocks` is one of the tables above."""


EFFICIENTNETS = {
    f"keras_cv_efficientnet_v2_{variant}": EfficientNetV2Spec(variant[0], *scale)
    for variant, scale in keras_applications.EFFICIENTNET_SCALES.items()
}


@register_backbones(EFFICIENTNETS)
def keras_cv_efficientnet_v2(spec: EfficientNetV2Spec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]. The head is as wide as the width coefficient says."""
    columns = ("num_repeats", "input_filters", "output_filters", "expansion_ratios")
    columns += ("squeeze_and_excite_ratios", "strides", "conv_types")
    stages = _EFFICIENTNET_STAGES[spec.blocks]
    network = _library().models.EfficientNetV2Backbone(
        **_stackwise(columns, stages),
        stackwise_kernel_sizes=[3] * len(stages),
        width_coefficient=spec.width_coefficient,
        depth_coefficient=spec.depth_coefficient,
        depth_divisor=spec.depth_divisor,
        min_depth=spec.depth_divisor,
        skip_connection_dropout=spec.drop_connect,
        include_rescaling=False,
        input_tensor=image,
    )
    return _logits(network, spec, draw=draw, num_classes=num_classes)


def _library() -> Any:
    try:
        return compat.keras_cv()
    except ImportError as error:
        raise InputError(str(error)) from error


def _doubling(width: float, stages: int) -> list[int]:
    return [max(1, round(width * 2**stage)) for stage in range(stages)]


def _stackwise(columns: tuple[str, ...], rows: tuple[tuple, ...]) -> dict[str, list]:
    """keras-cv's arguments, a list a column."""
    return {f"stackwise_{name}": list(values) for name, values in zip(columns, zip(*rows, strict=True), strict=True)}


def _logits(network: Any, spec: Any, *, draw: Any, num_classes: int) -> Any:
    from divco_tf.models import layers

    return layers.classifier(network.output, num_classes, dropout=spec.dropout, draw=draw)
