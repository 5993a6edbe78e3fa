"""Grouped convolution that trains on every device, with XLA and without."""

import functools

import keras
import numpy as np
import tensorflow as tf

from divco_tf import compat

SUPER_GROUP_CHANNELS = 16
"""Narrower groups are merged: the fastest width on CPU, by `divco-benchmark grouped`."""


@keras.saving.register_keras_serializable("divco_tf")
class GroupedConv2D(keras.layers.Conv2D):
    """Keras's grouped Conv2D without the XLA that Keras 3 puts around it, whose CPU gradient is 100 times slower.

    Channels are split into contiguous groups, as PyTorch does. An inference function that was traced on one device
    runs on the others, without XLA.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C], [h, w, C / groups, filters] -> [B, H', W', filters]."""
        options = {"strides": list(self.strides), "padding": self.padding.upper(), "dilations": self.dilation_rate}
        if grouped_op_trains(inputs.dtype):
            return tf.nn.conv2d(inputs, kernel, **options)
        return super_grouped_conv2d(inputs, kernel, groups=self.groups, **options)


def super_grouped_conv2d(
    inputs: tf.Tensor, kernel: tf.Tensor, *, groups: int, merged: int | None = None, **options: object
) -> tf.Tensor:
    """Grouped convolution by dense ones, whose gradients every device has.

    Neighbouring groups are merged into a super-group: one dense convolution whose kernel is block-diagonal.

    Args:
      inputs: [B, H, W, C].
      kernel: [h, w, C / groups, filters].
      groups: number of contiguous groups of channels.
      merged: groups a super-group, a divisor of `groups`; default: as many as SUPER_GROUP_CHANNELS holds.
      **options: strides, padding, dilations of `tf.nn.conv2d`.

    Returns:
      [B, H', W', filters].
    """
    depth, width = kernel.shape[2], kernel.shape[3] // groups
    if merged is None:
        limit = max(1, SUPER_GROUP_CHANNELS // max(depth, width))
        merged = max(count for count in range(1, limit + 1) if groups % count == 0)
    if merged > 1:
        row, column = np.arange(merged * depth)[:, None], np.arange(kernel.shape[3])[None]
        block = row // depth == column // width % merged
        kernel = tf.where(block, tf.tile(kernel, [1, 1, merged, 1]), tf.zeros([], kernel.dtype))
    parts = groups // merged
    pairs = zip(tf.split(inputs, parts, axis=-1), tf.split(kernel, parts, axis=-1), strict=True)
    return tf.concat([tf.nn.conv2d(x, k, **options) for x, k in pairs], axis=-1)


def grouped_op_trains(dtype: tf.DType) -> bool:
    """Whether tf.nn.conv2d of a grouped kernel has a gradient, and a fast one, where the code is traced."""
    if _on_accelerator():
        return True
    return not compat.in_xla_context() and _cpu_has_gradient(tf.as_dtype(dtype).name)


def _on_accelerator() -> bool:
    accelerated = any(tf.config.list_logical_devices(kind) for kind in ("GPU", "TPU"))
    return accelerated and "CPU:" not in tf.zeros([]).device  # empty in a graph that no tf.device surrounds


@functools.cache
def _cpu_has_gradient(dtype: str) -> bool:
    """Tries it: TensorFlow's own op has none on CPU ("Gradients for grouped convolutions are not supported", 2.21).

    oneDNN's has, in float32 and bfloat16; it is part of most builds, and TF_ENABLE_ONEDNN_OPTS=0 turns it off.
    """
    with tf.init_scope(), tf.device("CPU:0"):
        images, kernel = tf.zeros([1, 2, 2, 4], dtype), tf.zeros([1, 1, 2, 2], dtype)
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=[1, 2, 2, 4],
                filter=kernel,
                out_backprop=images[..., :2],
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
            tf.raw_ops.Conv2DBackpropFilter(
                input=images,
                filter_sizes=[1, 1, 2, 2],
                out_backprop=images[..., :2],
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
        except tf.errors.OpError:
            return False
    return True
