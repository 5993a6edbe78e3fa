import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.models import layers

RNG = np.random.default_rng(0)
IMAGES = (2 * RNG.standard_normal((4, 5, 6, 3)) + 1).astype(np.float32)
OUTER = RNG.standard_normal(IMAGES.shape).astype(np.float32)


def norms(dtype: str = "float32", **options) -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """Ours and Keras's, with the same values."""
    pair = []
    for kind in (layers.BatchNormalization, keras.layers.BatchNormalization):
        layer = kind(momentum=0.9, epsilon=1e-5, dtype=dtype, **options)
        layer.build(IMAGES.shape)
        rng = np.random.default_rng(1)
        for variable in layer.variables:
            variable.assign(0.5 + rng.random(variable.shape))
        pair.append(layer)
    return tuple(pair)


def outputs_and_gradients(layer, images, *, training: bool, jit: bool = False) -> list[np.ndarray]:
    """Outputs and the gradients of images and weights, for a fixed gradient of the outputs."""

    def compute(images: tf.Tensor) -> list[tf.Tensor]:
        weights = [variable.value for variable in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=training)
            loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * OUTER)
        return [outputs, *tape.gradient(loss, [images, *weights])]

    function = tf.function(compute, jit_compile=True) if jit else compute
    return [np.asarray(tf.cast(value, tf.float32)) for value in function(tf.cast(images, layer.compute_dtype))]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}], ids=str)
def test_fused_normalisation_is_kerass(training, jit, options):
    ours, keras_own = norms(**options)
    expected = outputs_and_gradients(keras_own, IMAGES, training=training)
    for value, reference in zip(outputs_and_gradients(ours, IMAGES, training=training, jit=jit), expected, strict=True):
        np.testing.assert_allclose(value, reference, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_the_running_variance_is_the_unbiased_one(jit):
    ours, _ = norms()
    mean, variance = (variable.numpy() for variable in (ours.moving_mean, ours.moving_variance))
    tf.function(lambda images: ours(images, training=True), jit_compile=jit)(IMAGES)
    pixels = IMAGES.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(ours.moving_mean, 0.9 * mean + 0.1 * pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, 0.9 * variance + 0.1 * pixels.var(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("trainable", [False, True])
def test_statistics_move_in_training_of_a_trainable_layer_only(trainable):
    ours, keras_own = norms()
    ours.trainable = keras_own.trainable = trainable
    before = ours.moving_mean.numpy()
    ours(IMAGES, training=False)
    np.testing.assert_array_equal(ours.moving_mean, before)
    np.testing.assert_allclose(ours(IMAGES, training=True), keras_own(IMAGES, training=True), rtol=1e-5, atol=1e-5)
    assert np.array_equal(ours.moving_mean, before) == (not trainable)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("training", [False, True])
def test_low_precision_keeps_statistics_in_float32(precision, training):
    ours, keras_own = norms(precision)
    values = outputs_and_gradients(ours, IMAGES, training=training)
    expected = outputs_and_gradients(norms()[0], IMAGES, training=training)
    for value, reference in zip(values, expected, strict=True):
        np.testing.assert_allclose(value, reference, rtol=0.05, atol=0.1)
    keras_own(tf.cast(IMAGES, keras_own.compute_dtype), training=training)
    assert ours(IMAGES, training=training).dtype == ours.compute_dtype
    assert ours.moving_variance.dtype == "float32"


@pytest.mark.parametrize(
    ("options", "images"),
    [
        ({"axis": 1}, IMAGES),
        ({"dtype": "float64"}, IMAGES.astype(np.float64)),
        ({}, IMAGES[:, 0, 0]),
    ],
    ids=["another axis", "float64", "rank 2"],
)
def test_what_the_fused_op_cannot_do_goes_kerass_way(options, images, monkeypatch):
    monkeypatch.setattr(keras.layers.BatchNormalization, "call", lambda self, inputs, **_: inputs + 1)
    np.testing.assert_array_equal(layers.BatchNormalization(**options)(images, training=False), images + 1)


@pytest.mark.parametrize("training", [False, True])
def test_synchronised_alone_is_the_fused_one(training):
    ours, theirs = layers.BatchNormalization(synchronized=True), layers.BatchNormalization()
    np.testing.assert_allclose(ours(IMAGES, training=training), theirs(IMAGES, training=training), atol=1e-5)
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=1e-6)
        assert np.any(getattr(ours, name) != (0 if name == "moving_mean" else 1)) == training


def test_normalisation_saves_and_loads(tmp_path):
    image = keras.Input((5, 6, 3))
    model = keras.Model(image, layers.norm(image, name="norm"))
    model.layers[-1].moving_mean.assign([1.0, 2.0, 3.0])
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert isinstance(loaded.layers[-1], layers.BatchNormalization)
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_convolution_pads_both_sides_alike(stride, side, kernel_size):
    image = keras.Input((side, side, 2))
    model = keras.Model(image, layers.conv(image, 3, kernel_size, stride=stride, name="conv"))
    images = RNG.standard_normal((1, side, side, 2)).astype(np.float32)
    pad = kernel_size // 2
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    expected = tf.nn.conv2d(padded, model.get_layer("conv").kernel.value, stride, "VALID")
    np.testing.assert_allclose(model(images), expected, rtol=1e-5, atol=1e-5)
    assert model.output.shape == (None, -(-side // stride), -(-side // stride), 3)


def test_a_shortcut_pools_real_pixels_only():
    image = keras.Input((3, 3, 1))
    model = keras.Model(image, layers.shortcut(image, 1, stride=2, name="s"))
    model.get_layer("s.1").kernel.assign(np.ones((1, 1, 1, 1)))
    pooled = model(np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)).numpy()[0, ..., 0]
    np.testing.assert_allclose(pooled, [[2, 3.5], [6.5, 8]], rtol=1e-4)


def test_a_shortcut_without_a_pool_is_a_strided_3x3_convolution():
    image = keras.Input((5, 6, 2))
    model = keras.Model(image, layers.shortcut(image, 3, stride=2, pool=False, name="s"))
    assert model.get_layer("s.0").kernel.shape == (3, 3, 2, 3)
    assert model.output.shape == (None, 3, 3, 3)
    stays = keras.Model(image, layers.shortcut(image, 3, pool=False, name="t"))
    assert stays.get_layer("t.0").kernel.shape == (1, 1, 2, 3)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("side", range(1, 10))
def test_a_max_pool_sees_the_windows_of_pytorch(side, ceil_mode):
    image = keras.Input((side, side + 1, 1))
    model = keras.Model(image, layers.max_pool(image, ceil_mode=ceil_mode, name="pool"))
    images = RNG.random((side, side + 1)).astype(np.float32)
    margin = 0 if ceil_mode else 1
    padded = np.pad(images, ((margin, 3), (margin, 3)), constant_values=-np.inf)
    # PyTorch's formula; where it says 0 windows, we take the image for one.
    up = 1 if ceil_mode else 0
    rows, columns = (max((size + 2 * margin - 3 + up) // 2 + 1, 1) for size in images.shape)
    windows = [[padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] for j in range(columns)] for i in range(rows)]
    np.testing.assert_array_equal(
        model(images[None, ..., None])[0, ..., 0], [[window.max() for window in row] for row in windows]
    )


def test_stages_double_their_width_and_halve_the_image():
    assert list(layers.stages((2, 1, 2), 16)) == [
        ("layer1.0", 16, 1),
        ("layer1.1", 16, 1),
        ("layer2.0", 32, 2),
        ("layer3.0", 64, 2),
        ("layer3.1", 64, 1),
    ]


def test_a_bottleneck_is_regularised_after_each_norm():
    image = keras.Input((4, 4, 6))
    seen = []

    def drop(features, name):
        seen.append((name, features.shape[1:]))
        return features

    outputs = layers.bottleneck(image, (2, 4, 8), stride=2, groups=2, gamma=0.0, drop=drop, name="b")
    assert seen == [("b.bn1", (4, 4, 2)), ("b.bn2", (2, 2, 4)), ("b.bn3", (2, 2, 8))]
    model = keras.Model(image, outputs)
    assert model.get_layer("b.conv2").kernel.shape == (3, 3, 1, 4)
    np.testing.assert_array_equal(model(np.ones((1, 4, 4, 6))), np.zeros((1, 2, 2, 8)))


def test_a_residual_takes_a_shortcut_where_shapes_differ():
    image = keras.Input((4, 4, 8))
    same = keras.Model(image, layers.residual(image, image, stride=1, name="a"))
    assert [layer.name for layer in same.layers[1:]] == ["a.add", "a.relu"]
    other = layers.conv(image, 16, 1, name="b.conv")
    assert "b.downsample.0" in [
        layer.name for layer in keras.Model(image, layers.residual(image, other, stride=1, name="b")).layers
    ]


def test_the_classifier_is_float32_whatever_comes_in():
    image = keras.Input((4, 4, 8), dtype="bfloat16")
    model = keras.Model(image, layers.classifier(image, 5, dropout=0.1))
    assert model.output.dtype == "float32"
    assert [layer.name for layer in model.layers[1:]] == ["avgpool", "dropout", "fc"]
