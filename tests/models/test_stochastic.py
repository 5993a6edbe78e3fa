"""Stochastic layers: distributions, gradients, evaluation, and that a draw belongs to its example."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.errors import InputError
from divco_tf.models import draws, layers
from tests import tiny

RATE = 0.3
DROPPING = {
    "Dropout": lambda **options: layers.Dropout(RATE, **options),
    "ChannelDropout": lambda **options: layers.ChannelDropout(RATE, **options),
    "DropPath": lambda **options: layers.DropPath(RATE, **options),
    "DropBlock": lambda **options: layers.DropBlock(RATE, 3, **options),
}
SHAKING = {
    "ShakeDrop": lambda **options: layers.ShakeDrop(RATE, **options),
    "ShakeShake": lambda **options: layers.ShakeShake(**options),
}
LAYERS = DROPPING | SHAKING
STEP = 12  # at which the gate of a ShakeDrop named "ShakeDrop" is shut, so that its noise is seen
SHAPE = (6, 5, 4, 3)
RNG = np.random.default_rng(0)
ONE, OTHER, UPSTREAM = (RNG.standard_normal(SHAPE) for _ in range(3))


def keys(size: int = SHAPE[0], *, step: int = STEP, start: int = 0) -> tf.Tensor:
    positions = tf.range(start, start + size)
    return draws.draw_keys(seed=3, step=tf.constant(step), branch=0, positions=positions)


def arguments(kind: str, *values: np.ndarray, dtype: str = "float32") -> list | tf.Tensor:
    """What a layer of this kind takes: two tensors or one."""
    tensors = [tf.constant(value, dtype) for value in values]
    return tensors if kind == "ShakeShake" else tensors[0]


def outputs_and_gradients(kind: str, *, batch: slice = slice(None), jit: bool = False, dtype: str = "float32") -> list:
    """In training: outputs and the gradient of each input, for a loss with the gradient `UPSTREAM`."""
    layer = LAYERS[kind](name=kind, dtype=dtype)
    upstream = tf.constant(UPSTREAM[batch], layer.compute_dtype)

    @tf.function(jit_compile=jit, autograph=False)
    def compute(inputs, draw):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, draw=draw, training=True)
        return [outputs, *tf.nest.flatten(tape.gradient(outputs, inputs, output_gradients=upstream))]

    inputs = arguments(kind, ONE[batch], OTHER[batch], dtype=layer.compute_dtype)
    values = compute(inputs, keys(len(UPSTREAM[batch]), start=batch.start or 0))
    assert {value.dtype for value in values} == {tf.as_dtype(layer.compute_dtype)}
    return [tf.cast(value, tf.float64).numpy() for value in values]


@pytest.mark.parametrize("kind", LAYERS)
def test_a_share_of_the_batch_gets_what_the_whole_would(kind):
    whole, share = outputs_and_gradients(kind), outputs_and_gradients(kind, batch=slice(2, 5))
    for ours, theirs in zip(share, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs[2:5])


@pytest.mark.parametrize("kind", LAYERS)
def test_xla_draws_and_differentiates_alike(kind):
    for ours, plain in zip(outputs_and_gradients(kind, jit=True), outputs_and_gradients(kind), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("kind", LAYERS)
def test_low_precision_has_the_same_noise(kind, precision):
    for ours, full in zip(outputs_and_gradients(kind, dtype=precision), outputs_and_gradients(kind), strict=True):
        np.testing.assert_allclose(ours, full, rtol=0.03, atol=0.03)


@pytest.mark.parametrize("other", [{"first_step": 100}, {"name": "other"}, {"start": 6}], ids=str)
@pytest.mark.parametrize("kind", LAYERS)
def test_other_steps_layers_and_positions_draw_otherwise(kind, other):
    def answers(name: str = "layer", first_step: int = 0, start: int = 0) -> np.ndarray:
        layer, inputs = LAYERS[kind](name=name), arguments(kind, ONE, OTHER)
        steps = range(first_step, first_step + 8)  # some of ShakeDrop's leave all as it is
        return np.stack([layer(inputs, draw=keys(step=step, start=start), training=True) for step in steps])

    assert not np.allclose(answers(**other), answers())


@pytest.mark.parametrize("kind", LAYERS)
def test_any_batch_size_comes_through_one_trace(kind):
    layer = LAYERS[kind](name=kind)
    spec = tf.TensorSpec([None, *SHAPE[1:]])
    function = tf.function(
        lambda one, other, draw: layer([one, other] if kind == "ShakeShake" else one, draw=draw, training=True),
        input_signature=[spec, spec, tf.TensorSpec([None, 2], tf.uint64)],
        autograph=False,
    )
    for size in (1, 6):
        one, other = (tf.constant(value[:size], tf.float32) for value in (ONE, OTHER))
        expected = layer(arguments(kind, ONE[:size], OTHER[:size]), draw=keys(size), training=True)
        np.testing.assert_allclose(function(one, other, keys(size)), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_without_keys_the_global_generator_draws(kind):
    def answers():
        tf.random.set_seed(1)
        layer = LAYERS[kind](name=kind)
        return [layer(arguments(kind, ONE, OTHER), training=True).numpy() for _ in range(20)]

    first, again = answers(), answers()
    np.testing.assert_array_equal(first, again)
    assert any(not np.array_equal(value, first[0]) for value in first)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_saves_and_loads(kind, tmp_path):
    image = keras.Input(SHAPE[1:])
    layer = LAYERS[kind](name="layer")
    keras.Model(image, layer([image, image] if kind == "ShakeShake" else image)).save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras").get_layer("layer")
    assert type(loaded) is type(layer)
    assert loaded.get_config() == layer.get_config()


@pytest.mark.parametrize("kind", DROPPING)
def test_evaluation_and_rate_0_change_nothing(kind):
    inputs = tf.constant(ONE, tf.float32)
    assert LAYERS[kind]()(inputs, draw=keys(), training=False) is inputs
    layer = LAYERS[kind]()
    layer.rate = 0.0
    assert layer(inputs, draw=keys(), training=True) is inputs


@pytest.mark.parametrize("kind", DROPPING)
def test_gradients_at_fixed_noise_are_the_numerical_ones(kind):
    layer = LAYERS[kind](name=kind, dtype="float64")
    _, gradient = outputs_and_gradients(kind, dtype="float64")

    @tf.function
    def loss(inputs: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(UPSTREAM * layer(inputs, draw=keys(), training=True))

    np.testing.assert_allclose(gradient, numerical_gradient(loss, ONE), atol=1e-6)
    assert np.any(gradient)


def numerical_gradient(loss: Callable, at: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """By central differences."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        shift = np.zeros_like(at)
        shift[index] = step
        high, low = (float(loss(tf.constant(value))) for value in (at + shift, at - shift))
        gradient[index] = (high - low) / (2 * step)
    return gradient


def kept(layer: keras.layers.Layer, shape: tuple, **options) -> np.ndarray:
    """What training makes of ones."""
    return layer(tf.ones(shape), draw=keys(shape[0], **options), training=True).numpy()


def check_share(dropped: np.ndarray, rate: float) -> None:
    """Independent draws, five standard errors."""
    assert abs(np.mean(dropped) - rate) < 5 * np.sqrt(rate * (1 - rate) / dropped.size)


@pytest.mark.parametrize("rate", [0.0125, 0.3, 0.9])
def test_dropout_zeroes_elements_at_its_rate_and_keeps_the_mean(rate):
    mask = kept(layers.Dropout(rate), (256, 20, 20))
    check_share(mask == 0, rate)
    np.testing.assert_allclose(mask[mask > 0], 1 / (1 - rate), rtol=1e-6)


@pytest.mark.parametrize("rate", [0.0125, 0.3, 0.9])
def test_channel_dropout_zeroes_channels_of_examples(rate):
    mask = kept(layers.ChannelDropout(rate), (256, 3, 2, 40))
    assert np.all(mask == mask[:, :1, :1])
    check_share(mask[:, 0, 0] == 0, rate)
    np.testing.assert_allclose(mask[mask > 0], 1 / (1 - rate), rtol=1e-6)
    assert abs(np.corrcoef(mask[:, 0, 0, :-1].ravel(), mask[:, 0, 0, 1:].ravel())[0, 1]) < 5 / np.sqrt(256 * 39)


@pytest.mark.parametrize("rate", [0.0125, 0.3, 0.9])
def test_drop_path_zeroes_examples(rate):
    mask = kept(layers.DropPath(rate), (10_000, 2, 2, 3))
    assert np.all(mask == mask[:, :1, :1, :1])
    check_share(mask[:, 0, 0, 0] == 0, rate)
    np.testing.assert_allclose(mask[mask > 0], 1 / (1 - rate), rtol=1e-6)


def windows(side: int, size: int) -> list[slice]:
    """Per pixel of a row, what a block centred there covers; the extra pixel of an even one is before the centre."""
    return [slice(max(pixel - side // 2, 0), pixel + (side - 1) // 2 + 1) for pixel in range(size)]


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 8), st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 0.9), st.integers(0, 1000))
def test_drop_block_zeroes_whole_squares_of_its_size(block_size, height, width, rate, step):
    mask = kept(layers.DropBlock(rate, block_size), (2, height, width, 3), step=step)
    side = min(block_size, height, width)
    for zero in np.moveaxis(mask == 0, 3, 1).reshape(-1, height, width):
        covered = np.zeros_like(zero)
        for rows in windows(side, height):
            for columns in windows(side, width):
                if np.all(zero[rows, columns]):
                    covered[rows, columns] = True
        np.testing.assert_array_equal(covered, zero)
    for example in mask:
        assert np.all(example == 0) or np.mean(example) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(("block_size", "rate"), [(1, 0.3), (2, 0.1), (3, 0.1), (4, 0.1), (5, 0.3)])
def test_drop_block_zeroes_at_its_rate(block_size, rate):
    height, width, channels, examples = 8, 7, 64, 256
    layer = layers.DropBlock(rate, block_size)
    zero = kept(layer, (examples, height, width, channels)) == 0
    gamma = layer.seed_rate(height, width)
    assert gamma == pytest.approx(rate * height * width / (block_size**2 * (9 - block_size) * (8 - block_size)))
    # A pixel is zero unless each of the pixels whose block reaches it is no centre.
    reach = [
        [sum(window.start <= pixel < window.stop for window in windows(block_size, size)) for pixel in range(size)]
        for size in (height, width)
    ]
    expected = 1 - (1 - gamma) ** np.outer(*reach)
    error = np.sqrt(expected * (1 - expected) / (examples * channels))
    assert np.all(np.abs(zero.mean(axis=(0, 3)) - expected) < 5 * error)


def shaken(batches: int, size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """ShakeDrop's factors of outputs and of gradients, both [batches, size]."""
    rng = np.random.default_rng(1)
    batch = rng.integers(0, 2**63, batches, dtype=np.uint64).repeat(size)
    draw = np.stack([batch, rng.integers(0, 2**63, batches * size, dtype=np.uint64)], axis=1)
    inputs = tf.ones([batches * size, 1, 1, 1])
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layers.ShakeDrop(RATE, name="layer")(inputs, draw=tf.constant(draw), training=True)
    return tuple(value.numpy().reshape(batches, size) for value in (outputs, tape.gradient(outputs, inputs)))


def test_shake_drops_gate_is_the_whole_batchs():
    factors = np.concatenate(shaken(4000), axis=1)
    open_gate = np.all(factors == 1, axis=1)
    assert not np.any(factors[~open_gate] == 1)
    check_share(~open_gate, RATE)
    tf.random.set_seed(2)  # without keys too
    drawn = [layers.ShakeDrop(0.5)(tf.ones([20, 1]), training=True).numpy() for _ in range(20)]
    assert {len(set(batch.ravel().tolist())) for batch in drawn} == {1, 20}


def check_uniform(numbers: np.ndarray, low: float, high: float) -> None:
    """Deciles, five standard errors."""
    counts, _ = np.histogram(numbers, bins=10, range=(low, high))
    assert counts.sum() == len(numbers)
    assert np.all(np.abs(counts - len(numbers) / 10) < 5 * np.sqrt(len(numbers) * 0.09))


def test_shake_drop_draws_alpha_and_beta_for_each_example():
    alpha, beta = shaken(4000)
    shut = alpha[:, 0] != 1
    alpha, beta = alpha[shut], beta[shut]
    check_uniform(alpha.ravel(), -1, 1)
    check_uniform(beta.ravel(), 0, 1)
    pairs = [(alpha, beta), (alpha[:, 1:], alpha[:, :-1]), (beta[:, 1:], beta[:, :-1])]
    for one, other in pairs:
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 / np.sqrt(one.size)


def test_shake_drop_in_evaluation_is_its_mean_in_training():
    evaluated = layers.ShakeDrop(RATE)(tf.ones([5, 1]), draw=keys(5), training=False)
    np.testing.assert_allclose(evaluated, np.full((5, 1), 1 - RATE), rtol=1e-6)
    outputs, _ = shaken(10_000, size=1)
    assert abs(np.mean(outputs) - (1 - RATE)) < 5 * np.std(outputs) / np.sqrt(outputs.size)


def test_shake_shake_mixes_by_alpha_and_shares_the_gradient_by_beta():
    size = 10_000
    pair = [tf.ones([size, 1, 1]), tf.zeros([size, 1, 1])]
    with tf.GradientTape() as tape:
        tape.watch(pair)
        outputs = layers.ShakeShake(name="layer")(pair, draw=keys(size), training=True)
    alpha = outputs.numpy().ravel()
    beta, rest = (gradient.numpy().ravel() for gradient in tape.gradient(outputs, pair))
    np.testing.assert_allclose(beta + rest, 1, rtol=1e-6)
    check_uniform(alpha, 0, 1)
    check_uniform(beta, 0, 1)
    assert abs(np.corrcoef(alpha, beta)[0, 1]) < 5 / np.sqrt(size)


def test_shake_shake_in_evaluation_is_the_mean():
    outputs = layers.ShakeShake()(arguments("ShakeShake", ONE, OTHER), training=False)
    np.testing.assert_allclose(outputs, (ONE + OTHER) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", SHAKING)
def test_a_shaken_gradient_is_the_numerical_one_of_its_own_mixture(kind):
    """The outputs go by alpha, changes of the inputs by beta: loss(alpha x + beta dx) is what is differentiated."""
    numbers = {
        of: draws.uniform(keys(), (1, 1, 1), layer=f"{kind}.{of}").numpy().astype(np.float64)
        for of in ("alpha", "beta")
    }
    alpha, beta = numbers["alpha"], numbers["beta"]
    if kind == "ShakeDrop":
        alpha = 2 * alpha - 1
        forward, backward = [alpha], [beta]
    else:
        forward, backward = [alpha, 1 - alpha], [beta, 1 - beta]
    values = (ONE, OTHER)[: len(forward)]
    layer = LAYERS[kind](name=kind, dtype="float64")
    inputs = arguments(kind, *values, dtype="float64")
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, draw=keys(), training=True)
        loss = tf.reduce_sum(UPSTREAM * tf.sin(outputs))
    gradients = tf.nest.flatten(tape.gradient(loss, inputs))
    mixed = sum(factor * value for factor, value in zip(forward, values, strict=True))
    np.testing.assert_allclose(outputs, mixed, rtol=1e-6)
    for gradient, factor in zip(gradients, backward, strict=True):
        numerical = numerical_gradient(lambda d, f=factor: np.sum(UPSTREAM * np.sin(mixed + f * d)), 0 * ONE)
        np.testing.assert_allclose(gradient, numerical, atol=1e-6)


@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, float("nan"), "0.5", None])
@pytest.mark.parametrize("kind", [layers.Dropout, layers.ChannelDropout, layers.DropPath, layers.ShakeDrop])
def test_a_rate_is_a_probability_below_1(kind, rate):
    with pytest.raises(InputError) as error:
        kind(rate)
    assert tiny.one_line(error.value, says=f"rate of {kind.__name__} is no probability below 1")


@pytest.mark.parametrize("block_size", [0, -1, 1.5, "3"])
def test_a_block_has_a_side_of_whole_pixels(block_size):
    with pytest.raises(InputError) as error:
        layers.DropBlock(0.1, block_size)
    assert tiny.one_line(error.value, says=f"Received: {block_size!r}; pass 1, 2")
