"""Grouped convolution that trains on CPU."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("divco_tf")
class GroupedConv2D(keras.layers.Conv2D):
    """Keras's grouped Conv2D without its XLA: TensorFlow has no gradient of the grouped op on CPU otherwise.

    Channels are split into contiguous groups, as PyTorch does.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C], [h, w, C / groups, filters] -> [B, H', W', filters]."""
        pairs = zip(tf.split(inputs, self.groups, axis=-1), tf.split(kernel, self.groups, axis=-1), strict=True)
        outputs = [tf.nn.conv2d(x, k, list(self.strides), self.padding.upper()) for x, k in pairs]
        return tf.concat(outputs, axis=-1)
