"""Draws of a batch, from hashes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from divco_tf.data.draws import Draws, fold
from divco_tf.data.views.kernels import random_numbers

words = st.integers(0, 2**64 - 1)


@settings(deadline=None)
@given(key=words, counter=words)
def test_the_hash_is_that_of_the_kernels(key, counter):
    assert fold(key, counter) == random_numbers.fold(np.uint64(key), np.uint64(counter))
    assert (fold(key, counter) >> 11) / 2**53 == random_numbers.uniform(np.uint64(key), np.uint64(counter))


def test_counters_follow_each_other_and_wrap_around():
    assert fold(3, 2, 1) == fold(fold(3, 2), 1) == 15497091587649578756
    assert fold(3, -1) == fold(3, 2**64 - 1) != fold(3, 0)
    assert fold(3) == 3


def test_draws_are_the_same_for_ever():
    """A change would change what every run with mixing draws. To 12 digits: logarithms are the system's."""
    draws = Draws(5)
    assert [draws.uniform(), draws.uniform()] == [0.386768045983934, 0.7523070158382239]
    assert [Draws(5).beta(alpha) for alpha in (0.2, 1.0, 3.0)] == pytest.approx(
        [0.9999999809799408, 0.5469068820581664, 0.5239417055369214], rel=1e-12
    )


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.9, 1.0, 2.5, 40.0])
def test_a_beta_variate_is_distributed_so(alpha):
    drawn = [Draws(fold(1, key)).beta(alpha) for key in range(4000)]
    assert stats.kstest(drawn, stats.beta(alpha, alpha).cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [5e-324, 1e-9, 1e300])
def test_extreme_alphas_give_shares(alpha):
    drawn = np.array([Draws(fold(2, key)).beta(alpha) for key in range(200)])
    if alpha > 1:
        np.testing.assert_allclose(drawn, 0.5)
    else:  # one of the two or the other
        assert set(np.round(drawn, 6)) == {0.0, 1.0} and abs(drawn.mean() - 0.5) < 4 * 0.5 / np.sqrt(200)


def test_normal_numbers_are_normal():
    draws = Draws(7)
    assert stats.kstest([draws.normal() for _ in range(4000)], "norm").pvalue > 1e-3
