"""A small sibling of each family, for tests that train: the spec of a branch of few layers, and a view's shape."""

from typing import Any

from divco_tf.models.backbones.densenet import DenseNetSpec
from divco_tf.models.backbones.pyramidnet import PyramidNetSpec
from divco_tf.models.backbones.resnet_cifar import CifarResNetSpec
from divco_tf.models.backbones.shake_shake import ShakeShakeSpec
from divco_tf.models.backbones.wide_resnet_cifar import WideResNetSpec
from divco_tf.models.branch_stack import BranchStack, build
from tests.models.siblings_efficientnet import EFFICIENTNET_SIBLINGS
from tests.models.siblings_resnest import RESNEST_SIBLINGS
from tests.models.siblings_resnet import RESNET_SIBLINGS

SIBLINGS: dict[str, tuple[Any, tuple[int, int, int]]] = {
    "densenet": (DenseNetSpec(depth=10, growth=4, shake_drop=0.5), (8, 8, 3)),
    "pyramidnet": (PyramidNetSpec(depth=11, widening=20.0), (9, 8, 3)),
    "resnet_cifar": (CifarResNetSpec(depth=11, width=4, dropout=0.1), (8, 8, 3)),
    "shake_shake": (ShakeShakeSpec(depth=8, width=16), (9, 8, 3)),
    "wide_resnet_cifar": (WideResNetSpec(depth=10, widen_factor=1, dropout=0.1), (8, 8, 3)),
    **EFFICIENTNET_SIBLINGS,
    **RESNEST_SIBLINGS,
    **RESNET_SIBLINGS,
}


def sibling_stack(name: str, copies: int = 2, **options: Any) -> BranchStack:
    """A stack of copies of a sibling, for 3 classes."""
    spec, input_shape = SIBLINGS[name]
    return build(spec=spec, copies=copies, **{"num_classes": 3, "input_shape": input_shape, **options})
