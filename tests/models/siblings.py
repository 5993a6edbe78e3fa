"""A small sibling of each family, for tests that train: the spec of a branch of few layers, and a view's shape."""

from typing import Any

from divco_tf.models.backbones.densenet import DenseNetSpec
from divco_tf.models.backbones.efficientnet import EfficientNetSpec
from divco_tf.models.backbones.efficientnet_cifar import CifarEfficientNetSpec
from divco_tf.models.backbones.pyramidnet import PyramidNetSpec
from divco_tf.models.backbones.resnest import ResNeStSpec, ResNeXStSpec
from divco_tf.models.backbones.resnet import ResNetSpec, ResNeXtSpec, WideResNet50Spec, WideResNet101Spec
from divco_tf.models.backbones.resnet_cifar import CifarResNetSpec, CifarResNeXtSpec
from divco_tf.models.backbones.senet import SENetSpec, SEResNetSpec
from divco_tf.models.backbones.senet_cifar import CifarSEResNetSpec
from divco_tf.models.backbones.shake_shake import ShakeShakeSpec
from divco_tf.models.backbones.wide_resnet_cifar import WideResNetSpec
from divco_tf.models.branch_stack import BranchStack, build

_SMALL = {"stem": 8, "head": 16, "channels": (8, 12), "blocks": (1, 2), "kernel_sizes": (3, 5), "strides": (1, 2)}
_SENET = {"width": 16, "base_width": 16, "groups": 2, "stem_factor": 2, "halves_first": True, "pools_shortcuts": False}

SIBLINGS: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "densenet": (DenseNetSpec(depth=10, growth=4, shake_drop=0.5), (8, 8, 3)),
    "pyramidnet": (PyramidNetSpec(depth=11, widening=20.0), (9, 8, 3)),
    "resnet_cifar": (CifarResNetSpec(depth=11, width=4, dropout=0.1), (8, 8, 3)),
    "shake_shake": (ShakeShakeSpec(depth=8, width=16), (9, 8, 3)),
    "wide_resnet_cifar": (WideResNetSpec(depth=10, widen_factor=1, dropout=0.1), (8, 8, 3)),
    "efficientnet": (EfficientNetSpec(divisor=4, block_dropout=0.2, **_SMALL), (17, 16, 3)),
    "efficientnet_cifar": (CifarEfficientNetSpec(divisor=4, block_dropout=0.2, **_SMALL), (9, 8, 3)),
    "resnest": (ResNeStSpec((1, 1), width=16), (17, 16, 3)),
    "resnexst": (ResNeXStSpec((1, 2), groups=2, base_width=8, dropout=0.1), (17, 16, 3)),
    "resnet": (ResNetSpec((1, 2), width=8, dropout=0.1), (17, 16, 3)),
    "resnext": (ResNeXtSpec((1, 1), width=16, base_width=16, groups=2), (17, 16, 3)),
    "resnext_cifar": (CifarResNeXtSpec(depth=11, width=4, groups=2), (9, 8, 3)),
    "se_resnet": (SEResNetSpec((1, 1, 1), width=16, drop_block=0.1), (33, 32, 3)),
    "senet": (SENetSpec((1, 1), **_SENET), (17, 16, 3)),
    "senet_cifar": (CifarSEResNetSpec(depth=11, width=4, dropout=0.1), (9, 8, 3)),
    "wide_resnet50": (WideResNet50Spec((1, 1), width=8, base_width=128), (17, 16, 3)),
    "wide_resnet101": (WideResNet101Spec((1, 1), width=8), (17, 16, 3)),
}


def sibling_stack(name: str, copies: int = 2, **options: Any) -> BranchStack:
    """A stack of copies of a sibling, for 3 classes."""
    spec, input_shape = SIBLINGS[name]
    return build(spec=spec, copies=copies, **{"num_classes": 3, "input_shape": input_shape, **options})
