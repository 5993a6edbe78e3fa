"""The families: importing one registers its backbones."""

# ruff: noqa: F401
from divco_tf.models.backbones import (
    densenet,
    efficientnet,
    efficientnet_cifar,
    keras_applications,
    keras_cv,
    pyramidnet,
    resnest,
    resnet,
    resnet_cifar,
    senet,
    senet_cifar,
    shake_shake,
    wide_resnet_cifar,
)
