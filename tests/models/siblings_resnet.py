"""Small siblings of the ResNet families: the spec of a branch with few layers, and the shape of a view."""

from typing import Any

from divco_tf.models.backbones.resnet import ResNetSpec, ResNeXtSpec, WideResNet50Spec, WideResNet101Spec
from divco_tf.models.backbones.resnet_cifar import CifarResNeXtSpec
from divco_tf.models.backbones.senet import SENetSpec, SEResNetSpec
from divco_tf.models.backbones.senet_cifar import CifarSEResNetSpec

_SENET = {"width": 16, "base_width": 16, "groups": 2, "stem_factor": 2, "halves_first": True, "pools_shortcuts": False}

RESNET_SIBLINGS: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "resnet": (ResNetSpec((1, 2), width=8, dropout=0.1), (17, 16, 3)),
    "resnext": (ResNeXtSpec((1, 1), width=16, base_width=16, groups=2), (17, 16, 3)),
    "resnext_cifar": (CifarResNeXtSpec(depth=11, width=4, groups=2), (9, 8, 3)),
    "se_resnet": (SEResNetSpec((1, 1, 1), width=16, drop_block=0.1), (33, 32, 3)),
    "senet": (SENetSpec((1, 1), **_SENET), (17, 16, 3)),
    "senet_cifar": (CifarSEResNetSpec(depth=11, width=4, dropout=0.1), (9, 8, 3)),
    "wide_resnet50": (WideResNet50Spec((1, 1), width=8, base_width=128), (17, 16, 3)),
    "wide_resnet101": (WideResNet101Spec((1, 1), width=8), (17, 16, 3)),
}
