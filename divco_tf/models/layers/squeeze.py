"""Squeeze-and-excitation: each channel is weighed by what the whole image says (Hu et al., arXiv 1709.01507)."""

from collections.abc import Callable
from typing import Any

import keras

from divco_tf.models.layers import basic


def squeeze_excite(
    x: Any,
    hidden: int,
    *,
    names: tuple[str, str],
    activation: str = "relu",
    convolution: Callable[..., Any] | None = None,
) -> Any:
    """x * sigmoid(expand(activation(reduce(mean of x)))), [B, H, W, C] -> [B, H, W, C].

    Args:
      x: features.
      hidden: channels between the two 1x1 convolutions.
      names: of these two, reduce and expand.
      activation: in between; a name that Keras knows.
      convolution: called as `layers.conv`, for a family with initial values of its own.
    """
    convolution = convolution or basic.conv
    reduce, expand = names
    y = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{reduce}.pool")(x)
    y = convolution(y, hidden, 1, use_bias=True, name=reduce)
    y = keras.layers.Activation(activation, name=f"{reduce}.{activation}")(y)
    y = convolution(y, x.shape[-1], 1, use_bias=True, name=expand)
    y = keras.layers.Activation("sigmoid", name=f"{expand}.sigmoid")(y)
    return keras.layers.Multiply(name=f"{expand}.scale")([x, y])
