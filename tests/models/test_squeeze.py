import keras
import numpy as np
import pytest

from divco_tf.models import layers

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((3, 4, 5, 6)).astype(np.float32)
ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0), "silu": lambda x: x / (1 + np.exp(-x))}


def gated(hidden: int = 2, **options) -> keras.Model:
    image = keras.Input(IMAGES.shape[1:])
    model = keras.Model(image, layers.squeeze_excite(image, hidden, names=("se.fc1", "se.fc2"), **options))
    for variable in model.variables:
        variable.assign(RNG.standard_normal(variable.shape))
    return model


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_each_channel_is_weighed_by_the_whole_image(activation):
    model = gated(activation=activation)
    reduce, reduce_bias, expand, expand_bias = (variable.numpy() for variable in model.variables)
    hidden = ACTIVATIONS[activation](IMAGES.mean((1, 2)) @ reduce[0, 0] + reduce_bias)
    gate = 1 / (1 + np.exp(-(hidden @ expand[0, 0] + expand_bias)))
    np.testing.assert_allclose(model(IMAGES), IMAGES * gate[:, None, None], rtol=2e-5, atol=2e-6)


def test_weights_are_named_as_told():
    assert [variable.path for variable in gated().variables] == [
        "se.fc1/kernel",
        "se.fc1/bias",
        "se.fc2/kernel",
        "se.fc2/bias",
    ]


def test_a_family_brings_its_own_convolution():
    def convolution(x, filters, kernel_size, **options):
        return layers.conv(x, filters, kernel_size, kernel_initializer="ones", **options)

    image = keras.Input((4, 4, 3))
    outputs = layers.squeeze_excite(image, 1, names=("a", "b"), convolution=convolution)
    for kernel in keras.Model(image, outputs).trainable_variables[::2]:
        np.testing.assert_array_equal(kernel, np.ones(kernel.shape))
