"""The PyTorch twin of a functional Keras network, for comparing speed only: the same layers in the same order."""

from typing import Any

import keras
import torch
from torch import nn

from divco_tf import compat
from divco_tf.models.layers import Dropout


class TorchTwin(nn.Module):
    """Runs a functional Keras model's graph with PyTorch modules, channels last, [B, C, H, W] -> logits [B, K].

    Args:
      model: made of convolutions, batch norms, ReLUs, additions, zero padding, pooling, dropout and linear layers.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self._steps = []
        self.parts = nn.ModuleList()
        for node in compat.nodes_of(model):
            layer, inputs = node.operation, [id(tensor) for tensor in node.input_tensors]
            part = _part(layer)
            if isinstance(part, nn.Module):
                self.parts.append(part)
            self._steps.append((part, inputs, [id(tensor) for tensor in node.outputs]))
        self._image, self._logits = id(model.inputs[0]), id(model.outputs[0])

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of images."""
        values = {self._image: image}
        for part, inputs, outputs in self._steps:
            if inputs:
                values[outputs[0]] = part(*(values[key] for key in inputs))
        return values[self._logits]


def _part(layer: Any) -> Any:
    if isinstance(layer, keras.layers.InputLayer):
        return None
    if isinstance(layer, keras.layers.Conv2D):
        inputs, kernel = layer.kernel.shape[-2] * layer.groups, layer.kernel_size[0]
        padding = kernel // 2 if layer.padding == "same" else 0
        bias = layer.use_bias
        return nn.Conv2d(inputs, layer.filters, kernel, layer.strides[0], padding, groups=layer.groups, bias=bias)
    if isinstance(layer, keras.layers.BatchNormalization):
        return nn.BatchNorm2d(layer.gamma.shape[0], eps=layer.epsilon, momentum=1 - layer.momentum)
    if isinstance(layer, keras.layers.Dense):
        return nn.Linear(*layer.kernel.shape)
    if isinstance(layer, keras.layers.ReLU):
        return nn.ReLU(inplace=False)
    if isinstance(layer, keras.layers.Add):
        return torch.add
    if isinstance(layer, keras.layers.ZeroPadding2D):
        (top, bottom), (left, right) = layer.padding
        return nn.ZeroPad2d((left, right, top, bottom))
    if isinstance(layer, keras.layers.MaxPooling2D):
        return nn.MaxPool2d(layer.pool_size[0], layer.strides[0])
    if isinstance(layer, Dropout):
        return nn.Dropout(layer.rate)
    if isinstance(layer, keras.layers.AveragePooling2D):
        return nn.AvgPool2d(layer.pool_size[0], layer.strides[0], ceil_mode=True)
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return lambda x: x.mean((2, 3))
    raise NotImplementedError(f"PyTorch twin of {type(layer).__name__}")
