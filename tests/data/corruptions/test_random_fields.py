import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.corruptions.random_fields import normals, plasma, uniforms
from divco_tf.data.draws import fold

KEYS = np.array([3, 2**64 - 1, 77], np.uint64)


def drawn(key, stream, place) -> float:
    """A number by Python's integers."""
    return (fold(int(key), stream, place) >> 11) * 2.0**-53


@settings(deadline=None, max_examples=20)
@given(key=st.integers(0, 2**64 - 1), stream=st.integers(0, 20), length=st.integers(1, 9))
def test_numbers_are_hashes_of_key_stream_and_place(key, stream, length):
    keys = np.array([5, key], np.uint64)
    expected = [drawn(key, stream, place) for place in range(length)]
    np.testing.assert_array_equal(uniforms(keys, (length,), stream=stream)[1], expected)
    pairs = [(drawn(key, stream, 2 * k), drawn(key, stream, 2 * k + 1)) for k in range((length + 1) // 2)]
    polar = [(math.sqrt(-2 * math.log(1 - u)), 2 * math.pi * v) for u, v in pairs]
    expected = np.ravel([(r * math.cos(angle), r * math.sin(angle)) for r, angle in polar])[:length]
    np.testing.assert_allclose(normals(keys, (length,), stream=stream)[1], expected, rtol=1e-5, atol=1e-6)


def test_numbers_have_their_distributions():
    assert scipy.stats.kstest(uniforms(KEYS, (100, 100)).ravel(), "uniform").pvalue > 0.01
    assert scipy.stats.kstest(normals(KEYS, (100, 100)).ravel(), "norm").pvalue > 0.01


def test_streams_and_keys_draw_apart():
    fields = [*uniforms(KEYS, (20_000,)), *uniforms(KEYS, (20_000,), stream=1)]
    assert np.abs(np.corrcoef(fields) - np.eye(6)).max() < 0.03  # four standard deviations


def plasma_by_definition(key, side, decay, stream):
    """Diamond-square with whole arrays that are rolled, as in the paper's program."""
    height, step, roughness = np.zeros((side, side)), side, 1.0
    chance = np.array([[2 * drawn(key, stream, y * side + x) - 1 for x in range(side)] for y in range(side)])
    while step >= 2:
        half = step // 2
        corners, centres = np.s_[::step, ::step], np.s_[half::step, half::step]
        along = height[corners] + np.roll(height[corners], -1, axis=0)
        height[centres] = (along + np.roll(along, -1, axis=1)) / 4 + roughness * chance[centres]
        for axis, edges in enumerate((np.s_[::step, half::step], np.s_[half::step, ::step])):
            middles = height[centres] + np.roll(height[centres], 1, axis=axis)
            ends = height[corners] + np.roll(height[corners], -1, axis=1 - axis)
            height[edges] = (middles + ends) / 4 + roughness * chance[edges]
        step, roughness = half, roughness / decay**2
    return (height - height.min()) / np.ptp(height)


@pytest.mark.parametrize("side", [2, 8, 32])
@pytest.mark.parametrize("decay", [3.0, 1.75])
def test_plasma_is_diamond_square(side, decay):
    clouds = plasma(KEYS, side, side, decay=decay, stream=2)
    for key, cloud in zip(KEYS, clouds, strict=True):
        np.testing.assert_allclose(cloud, plasma_by_definition(key, side, decay, 2), atol=1e-12)
        assert (cloud.min(), cloud.max()) == (0, 1)


def test_plasma_of_other_sides_is_a_part_of_the_next_power_of_two():
    np.testing.assert_array_equal(plasma(KEYS, 9, 13, decay=2.0), plasma(KEYS, 16, 16, decay=2.0)[:, :9, :13])
