"""Networks of keras.applications whose builders take a width: MobileNets and EfficientNetV2.

Nobody has published divisions of them, so they are divided by the budget rule. They are built as Keras has them: its
layers, initial values and batch normalisation. Left out are its tops, for our classifier, and its rescaling of images,
which come normalised. EfficientNet (the first version) cannot be told to leave its rescaling out.
"""

import dataclasses
from typing import Any

from divco_tf import compat
from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.divide import by_sqrt_split, divided


@dataclasses.dataclass(frozen=True)
class MobileNetSpec:
    """MobileNet (arXiv 1704.04861), V2 (1801.04381) and V3 (1905.02244)."""

    function: str  # of keras.applications
    alpha: float = divided(width=0.001, default=1.0)  # multiplies the channels
    dropout: float = divided(by_sqrt_split, regulariser=True, default=0.0)  # before the classifier

    def __post_init__(self) -> None:
        if not self.alpha * 32 >= 1:
            raise InputError(f"alpha leaves layers without channels. Received: {self.alpha}; pass 1 / 32 or more.")


MOBILENETS = {
    "keras_mobilenet": MobileNetSpec("MobileNet"),
    "keras_mobilenet_v2": MobileNetSpec("MobileNetV2"),
    "keras_mobilenet_v3_large": MobileNetSpec("MobileNetV3Large", dropout=0.2),
    "keras_mobilenet_v3_small": MobileNetSpec("MobileNetV3Small", dropout=0.2),
}


@register_backbones(MOBILENETS)
def keras_mobilenet(spec: MobileNetSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]."""
    import keras

    from divco_tf.models import layers

    rescaling = {"include_preprocessing": False} if "V3" in spec.function else {}  # the others have none
    network = getattr(keras.applications, spec.function)(
        input_tensor=image, include_top=False, weights=None, alpha=spec.alpha, **rescaling
    )
    return layers.classifier(network.output, num_classes, dropout=spec.dropout, draw=draw)


@dataclasses.dataclass(frozen=True)
class EfficientNetV2Spec:
    """EfficientNetV2 (arXiv 2104.00298)."""

    blocks: str  # the table of blocks, by the library's name
    width_coefficient: float = divided(width=0.001, default=1.0)
    depth_coefficient: float = 1.0
    depth_divisor: int = 1  # of all numbers of channels; at a width of 1 all have 8, and less divides more finely
    drop_connect: float = divided(by_sqrt_split, regulariser=True, default=0.2)  # of the last block; by Keras's layers
    dropout: float = divided(by_sqrt_split, regulariser=True, default=0.2)  # before the classifier

    def __post_init__(self) -> None:
        if not self.width_coefficient > 0:
            raise InputError(f"The width is not positive. Received: {self.width_coefficient}; pass 1.0, say.")


EFFICIENTNET_SCALES = {  # width and depth coefficients, divisor
    "b0": (1.0, 1.0),
    "b1": (1.0, 1.1),
    "b2": (1.1, 1.2, 8),
    "b3": (1.2, 1.4, 8),
    "s": (1.0, 1.0),
    "m": (1.0, 1.0),
    "l": (1.0, 1.0),
}
EFFICIENTNETS = {
    f"keras_efficientnet_v2_{variant}": EfficientNetV2Spec(f"efficientnetv2-{variant}", *scale)
    for variant, scale in EFFICIENTNET_SCALES.items()
}


@register_backbones(EFFICIENTNETS)
def keras_efficientnet_v2(spec: EfficientNetV2Spec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, 3] -> logits [B, num_classes]. The head is as wide as the width coefficient says."""
    from divco_tf.models import layers

    network = compat.efficientnet_v2()(
        spec.width_coefficient,
        spec.depth_coefficient,
        default_size=224,
        depth_divisor=spec.depth_divisor,
        min_depth=spec.depth_divisor,
        drop_connect_rate=spec.drop_connect,
        name=spec.blocks,
        input_tensor=image,
        include_top=False,
        weights=None,
        include_preprocessing=False,
    )
    return layers.classifier(network.output, num_classes, dropout=spec.dropout, draw=draw)
