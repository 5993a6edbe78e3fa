"""A plain convolutional network as a package of its own."""

import dataclasses

import divco_tf
from divco_tf.models.divide import by_sqrt_split


def narrower(width, split_factor):
    return max(1, round(width / split_factor**0.5))


@dataclasses.dataclass(frozen=True)
class PlainCNNSpec:
    width: int = divco_tf.divided(narrower, width=1, default=32)
    dropout: float = divco_tf.divided(by_sqrt_split, regulariser=True, default=0.1)


@divco_tf.register_backbone("plain_cnn", PlainCNNSpec())
def plain_cnn(spec, image, *, draw, num_classes):
    import keras  # here, so that listing the backbones needs no TensorFlow

    from divco_tf.models import layers

    x = image
    for stage, stride in enumerate((1, 2, 2)):
        x = keras.layers.Conv2D(spec.width * 2**stage, 3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.relu(layers.BatchNormalization()(x), name=f"relu{stage}")
    return layers.classifier(x, num_classes, dropout=spec.dropout, draw=draw)
