"""Layers whose defaults are the paper's: convolution, batch normalisation, pooling, shortcuts, the classifier.

Convolutions and norms are named by their module path in the authors' networks ("layer1.0.conv1"), so that weights
of either side are found by name (`models.torch_weights`).
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.layers.grouped import GroupedConv2D
from divco_tf.models.layers.stochastic import Dropout

# fan_out is not divided by groups in the reference; Keras's kernel shape gives the same number there.
FAN_OUT_NORMAL = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
FAN_IN_NORMAL = keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
FAN_IN_UNIFORM = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for kernels: uniform within +-1 / sqrt(fan_in)."""

SMALL_NORMAL = keras.initializers.RandomNormal(stddev=1e-3)

Names = tuple[str, str]
"""Of a convolution and the norm behind it."""


def fan_in_uniform(fan_in: int) -> keras.initializers.Initializer:
    """PyTorch's default for biases: uniform within +-1 / sqrt(fan_in).

    A bias's shape does not tell the fan-in, so `conv` and `classifier` take this function for `bias_initializer`.
    """
    return keras.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)


def conv(
    x: Any,
    filters: float,
    kernel_size: int,
    *,
    name: str,
    stride: int = 1,
    groups: int = 1,
    padding: str = "symmetric",
    use_bias: bool = False,
    kernel_initializer: Any = FAN_OUT_NORMAL,
    bias_initializer: Any = "zeros",
) -> Any:
    """Convolution, [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), filters].

    `filters` is rounded to a whole number from 1, so that the budget rule may choose fractions of a width.
    `padding` "symmetric" puts the same zeros on both sides, as PyTorch does; "same" is TensorFlow's, which pads more at
    the end where a stride makes the padding uneven. `bias_initializer` is one of Keras's, or `fan_in_uniform`.
    """
    fan_in = x.shape[-1] // groups * kernel_size**2
    x, padding = padded(x, kernel_size, stride=stride, padding=padding, name=name)
    options = {} if groups == 1 else {"groups": groups}
    return (keras.layers.Conv2D if groups == 1 else GroupedConv2D)(
        max(1, round(filters)),
        kernel_size,
        strides=stride,
        padding=padding,
        use_bias=use_bias,
        kernel_initializer=kernel_initializer,
        bias_initializer=fan_in_uniform(fan_in) if bias_initializer is fan_in_uniform else bias_initializer,
        name=name,
        **options,
    )(x)


def padded(x: Any, kernel_size: int, *, stride: int, padding: str, name: str) -> tuple[Any, str]:
    """(x, Keras's padding) of a convolution called `name` whose own is "symmetric" or "same".

    Raises:
      InputError: it is neither.
    """
    if padding not in ("symmetric", "same"):
        raise InputError(f"Unknown padding of {name}. Received: {padding!r}; pass 'symmetric' or 'same'.")
    if padding == "same" or stride == 1 or kernel_size == 1:  # without a stride, "same" is symmetric
        return x, "same"
    return keras.layers.ZeroPadding2D(kernel_size // 2, name=f"{name}.pad")(x), "valid"


def norm(x: Any, *, name: str, gamma: float = 1.0, momentum: float = 0.9, epsilon: float = 1e-5) -> Any:
    """Batch normalisation over [B, H, W]; `gamma` is the initial scale, `momentum` the old statistics' weight."""
    return BatchNormalization(
        momentum=momentum, epsilon=epsilon, gamma_initializer=keras.initializers.Constant(gamma), name=name
    )(x)


def relu(x: Any, *, name: str) -> Any:
    """max(x, 0)."""
    return keras.layers.ReLU(name=name)(x)


def norm_relu(x: Any, *, name: str) -> Any:
    """Batch normalisation called `name`, ReLU."""
    return relu(norm(x, name=name), name=f"{name}.relu")


def conv_norm(
    x: Any, filters: float, kernel_size: int, *, names: Names, stride: int = 1, groups: int = 1, gamma: float = 1.0
) -> Any:
    """Convolution, batch normalisation."""
    return norm(conv(x, filters, kernel_size, stride=stride, groups=groups, name=names[0]), gamma=gamma, name=names[1])


def conv_norm_relu(x: Any, filters: float, kernel_size: int, *, names: Names, stride: int = 1, groups: int = 1) -> Any:
    """Convolution, batch normalisation, ReLU."""
    return relu(conv_norm(x, filters, kernel_size, stride=stride, groups=groups, names=names), name=f"{names[1]}.relu")


def numbered(block: str, index: int) -> Names:
    """The names of a block's convolution and its norm in most networks: "layer1.0.conv1" and "layer1.0.bn1"."""
    return f"{block}.conv{index}", f"{block}.bn{index}"


def deep_stem(x: Any, widths: tuple[int, int, int], *, names: Sequence[Names]) -> Any:
    """ResNet-D's stem (He et al., arXiv 1812.01187): three 3x3 convolutions, the first strided."""
    for index, width in enumerate(widths):
        x = conv_norm_relu(x, width, 3, stride=2 if index == 0 else 1, names=names[index])
    return x


def max_pool(x: Any, *, name: str, ceil_mode: bool = False) -> Any:
    """3x3 maxima with stride 2, of what is nowhere negative (after a ReLU), so that zeros pad as -inf would.

    Padded by 1 on each side or, in PyTorch's ceil mode, only as far as the last window reaches out of the image.
    """
    padding = [(0, max(3 - side, 1 - side % 2)) if ceil_mode else (1, 1) for side in x.shape[1:3]]
    x = keras.layers.ZeroPadding2D(padding, name=f"{name}.pad")(x)
    return keras.layers.MaxPooling2D(3, 2, name=name)(x)


def shortcut(x: Any, filters: int, *, name: str, stride: int = 1, pool: bool = True) -> Any:
    """ResNet-D's shortcut (He et al., arXiv 1812.01187): 2x2 average pooling where it strides, 1x1 convolution, norm.

    "same" pooling averages the real pixels of a partial window only, which is PyTorch's ceil mode. Without `pool` a
    3x3 convolution strides (SENet-154).
    """
    first, kernel_size = 0, 1
    if stride > 1 and pool:
        x = keras.layers.AveragePooling2D(2, stride, padding="same", name=f"{name}.0")(x)
        first, stride = 1, 1
    elif stride > 1:
        kernel_size = 3
    return conv_norm(x, filters, kernel_size, stride=stride, names=(f"{name}.{first}", f"{name}.{first + 1}"))


def residual(x: Any, y: Any, *, stride: int, name: str, pool: bool = True) -> Any:
    """relu(x + y); x goes through a `shortcut` where its shape is not y's."""
    if x.shape != y.shape:
        x = shortcut(x, y.shape[-1], stride=stride, pool=pool, name=f"{name}.downsample")
    return relu(keras.layers.Add(name=f"{name}.add")([x, y]), name=f"{name}.relu")


def padded_residual(x: Any, y: Any, *, stride: int, name: str) -> Any:
    """x + y with a shortcut that has no weights (PyramidNet's): 2x2 average pooling where it strides, zero channels."""
    if stride > 1:
        x = keras.layers.AveragePooling2D(2, stride, padding="same", name=f"{name}.pool")(x)
    if missing := y.shape[-1] - x.shape[-1]:
        x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, missing)))
    return keras.layers.Add(name=f"{name}.add")([x, y])


def classifier(
    x: Any,
    num_classes: int,
    *,
    name: str = "fc",
    dropout: float = 0.0,
    draw: Any = None,
    kernel_initializer: Any = SMALL_NORMAL,
    bias_initializer: Any = "zeros",
) -> Any:
    """Global average pooling, dropout, a linear layer in float32: [B, H, W, C] -> logits [B, num_classes].

    `bias_initializer` is one of Keras's, or `fan_in_uniform`.
    """
    if bias_initializer is fan_in_uniform:
        bias_initializer = fan_in_uniform(x.shape[-1])
    x = keras.layers.GlobalAveragePooling2D(name="avgpool", dtype="float32")(x)
    if dropout:
        x = Dropout(dropout, name="dropout", dtype="float32")(x, draw=draw)
    return keras.layers.Dense(
        num_classes,
        kernel_initializer=kernel_initializer,
        bias_initializer=bias_initializer,
        dtype="float32",
        name=name,
    )(x)


@keras.saving.register_keras_serializable("divco_tf")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer through TensorFlow's fused op, which Keras 3 spells out in many small ones.

    `divco-benchmark step` measures what that saves. The op's batch variance is the unbiased one, which is also what
    PyTorch puts into the running variance.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Normalises [B, H, W, C]; anything else goes Keras's way."""
        ours = inputs.shape.rank == 4 and self.axis in (-1, 3) and mask is None
        if not ours or inputs.dtype not in (tf.float32, tf.float16, tf.bfloat16):
            return super().call(inputs, training=training, mask=mask)
        if self.synchronized and training and self.trainable:
            return self._synchronised(inputs)
        update = bool(training) and self.trainable
        mean, variance = tf.cast(self.moving_mean, tf.float32), tf.cast(self.moving_variance, tf.float32)
        outputs, new_mean, new_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.cast(self.gamma, tf.float32) if self.scale else tf.ones_like(mean),
            offset=tf.cast(self.beta, tf.float32) if self.center else tf.zeros_like(mean),
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            exponential_avg_factor=1.0 - self.momentum,
            is_training=update,
        )
        if update:
            self.moving_mean.assign(new_mean)
            self.moving_variance.assign(new_variance)
        return outputs

    def _synchronised(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalises by the statistics of all replicas' examples together, and keeps the unbiased variance as above.

        Deviations are summed from the common mean: a sum of squares would lose digits where that is large.
        """
        context, values = tf.distribute.get_replica_context(), tf.cast(inputs, tf.float32)
        count = tf.cast(tf.size(values) // values.shape[-1], tf.float32)

        def summed(*parts: tf.Tensor) -> Any:
            return context.all_reduce(tf.distribute.ReduceOp.SUM, list(parts))

        total, count = summed(tf.reduce_sum(values, axis=[0, 1, 2]), count)
        mean = total / count
        (squares,) = summed(tf.reduce_sum(tf.math.squared_difference(values, mean), axis=[0, 1, 2]))
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, squares / tf.maximum(count - 1, 1))):
            moving.assign(moving * self.momentum + tf.cast(new, moving.dtype) * (1.0 - self.momentum))
        scale = tf.cast(self.gamma, tf.float32) if self.scale else None
        offset = tf.cast(self.beta, tf.float32) if self.center else None
        outputs = tf.nn.batch_normalization(values, mean, squares / count, offset, scale, self.epsilon)
        return tf.cast(outputs, inputs.dtype)
