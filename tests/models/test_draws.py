import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.models import draws

MASK = 2**64 - 1


def fold(key: int, counter: int) -> int:
    """splitmix64's next number, spelt out in whole numbers."""
    bits = (key + (counter + 1) * 0x9E3779B97F4A7C15) & MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


def keys(seed: int = 0, step: int = 0, branch: int = 0, positions=range(64)) -> tf.Tensor:
    return draws.draw_keys(
        seed=seed, step=tf.constant(step, tf.int64), branch=branch, positions=tf.constant(list(positions), tf.int32)
    )


def numbers(*, layer: str = "dropout", elements: int = 1000, **options) -> np.ndarray:
    return draws.uniform(keys(**options), (elements,), layer=layer).numpy()


def test_the_hash_is_splitmix64():
    # The first number of its generator seeded with 1234567, as published with the algorithm's C code.
    assert fold(1234567, 0) == 6457827717110365317
    assert int(draws.fold(tf.constant(1234567, tf.uint64), 0)) == 6457827717110365317


@settings(deadline=None, max_examples=40)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40), st.integers(0, 63), st.integers(0, 2**31 - 1))
def test_a_draw_is_the_hash_of_its_place(seed, step, branch, position):
    shared = fold(fold(seed & MASK, step), branch)
    key = keys(seed, step, branch, [position])
    assert key.numpy().tolist() == [[shared, fold(shared, position)]]
    element = fold(fold(fold(shared, position), zlib.crc32(b"fc")), 5)
    assert draws.uniform(key, (7,), layer="fc").numpy()[0, 5] == (element >> 40) / 2**24


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 63), st.integers(1, 8))
def test_a_share_of_the_batch_draws_what_the_whole_would(start, size):
    share = numbers(positions=range(start, start + size), elements=3)
    np.testing.assert_array_equal(share, numbers(positions=range(72), elements=3)[start : start + size])


def test_xla_draws_the_same():
    def draw(step: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        key = draws.draw_keys(seed=7, step=step, branch=1, positions=positions)
        return draws.uniform(key, (4, 5, 6), layer="a")

    arguments = (tf.constant(3, tf.int64), tf.range(8))
    eager = draw(*arguments).numpy()
    assert eager.shape == (8, 4, 5, 6)
    for jit in (False, True):
        np.testing.assert_array_equal(tf.function(draw, jit_compile=jit)(*arguments), eager)


def test_numbers_are_uniform():
    sample = numbers().ravel()
    assert sample.min() >= 0
    assert sample.max() < 1
    counts, _ = np.histogram(sample, bins=64, range=(0, 1))
    expected = len(sample) / 64
    chi_square = np.sum((counts - expected) ** 2 / expected)
    assert 30 < chi_square < 110  # 63 degrees of freedom: mean 63, standard deviation 11


VARIANTS = {"seed": {"seed": 1}, "step": {"step": 1}, "branch": {"branch": 1}, "layer": {"layer": "dropout2"}}


@pytest.mark.parametrize("other", VARIANTS.values(), ids=VARIANTS)
def test_other_places_draw_independently(other):
    one, two = numbers().ravel(), numbers(**other).ravel()
    assert abs(np.corrcoef(one, two)[0, 1]) < 5 / np.sqrt(len(one))
    assert np.mean(one == two) < 1e-3


def test_positions_and_elements_draw_independently():
    sample = numbers(elements=1000)
    bound = 5 / np.sqrt(sample.size)
    for one, two in ((sample[1:], sample[:-1]), (sample[:, 1:], sample[:, :-1])):
        assert abs(np.corrcoef(one.ravel(), two.ravel())[0, 1]) < bound


def test_a_shared_draw_leaves_the_position_out():
    gates = draws.uniform(keys(), (), layer="gate", per_example=False).numpy()
    assert gates.shape == (64,)
    assert len(set(gates.tolist())) == 1
    other_step = draws.uniform(keys(step=1), (), layer="gate", per_example=False).numpy()
    assert gates[0] != other_step[0]


@pytest.mark.parametrize("jit", [None, False, True])
def test_scalars_of_several_layers_are_what_each_draws_alone(jit):
    layers = {"gate": False, "alpha": True, "beta": True}

    def draw(key: tf.Tensor) -> list[tf.Tensor]:
        return draws.uniform_scalars(key, layers=layers)

    together = (draw if jit is None else tf.function(draw, jit_compile=jit))(keys())
    for (layer, per_example), numbers in zip(layers.items(), together, strict=True):
        np.testing.assert_array_equal(numbers, draws.uniform(keys(), (), layer=layer, per_example=per_example))


def test_without_a_step_keys_come_from_the_global_generator():
    tf.random.set_seed(1)
    first, second = draws.random_draw_keys(5), draws.random_draw_keys(5)
    tf.random.set_seed(1)
    again = draws.random_draw_keys(5)
    assert first.dtype == tf.uint64
    assert first.shape == (5, 2)
    assert [len(set(column)) for column in first.numpy().T.tolist()] == [1, 5]  # the batch's, then each example's
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, again)
