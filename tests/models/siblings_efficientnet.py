"""Small siblings of the EfficientNets: the spec of a branch with few layers, and the shape of a view."""

from typing import Any

from divco_tf.models.backbones.efficientnet import EfficientNetSpec
from divco_tf.models.backbones.efficientnet_cifar import CifarEfficientNetSpec

_SMALL = {"stem": 8, "head": 16, "channels": (8, 12), "blocks": (1, 2), "kernel_sizes": (3, 5), "strides": (1, 2)}

EFFICIENTNET_SIBLINGS: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "efficientnet": (EfficientNetSpec(divisor=4, block_dropout=0.2, **_SMALL), (17, 16, 3)),
    "efficientnet_cifar": (CifarEfficientNetSpec(divisor=4, block_dropout=0.2, **_SMALL), (9, 8, 3)),
}
