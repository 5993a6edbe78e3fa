"""Mixup."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data import mixing
from divco_tf.errors import InputError


def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    views = np.random.default_rng(0).normal(size=(size, 4, 3, 3, 3)).astype(np.float32)
    return views, np.eye(size, dtype=np.float32)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(-(2**63), 2**64), step=st.integers(0, 2**40), alpha=st.floats(0.05, 5))
def test_one_share_and_one_permutation_for_all_views_and_labels(seed, step, alpha):
    views, labels = batch(5)
    share, partners = mixing.draw_mixup(seed=seed, step=step, batch_size=5, alpha=alpha)
    mixed_views, mixed_labels = mixing.mixup(views, labels, seed=seed, step=step, alpha=alpha)
    assert 0 <= share <= 1 and sorted(partners) == list(range(5))
    np.testing.assert_allclose(mixed_views, share * views + (1 - share) * views[partners], atol=1e-6)
    np.testing.assert_allclose(mixed_labels, share * labels + (1 - share) * labels[partners], atol=1e-6)
    np.testing.assert_allclose(mixed_labels.sum(axis=1), 1, atol=1e-6)


def test_the_share_follows_the_beta_distribution():
    shares = [mixing.draw_mixup(seed=0, step=step, batch_size=2, alpha=0.2)[0] for step in range(2000)]
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.4), abs=0.01)


def test_alpha_zero_changes_nothing_and_a_negative_one_is_refused():
    views, labels = batch(3)
    same_views, same_labels = mixing.mixup(views, labels, seed=0, step=0, alpha=0)
    assert same_views is views and same_labels is labels
    with pytest.raises(InputError, match=r"Received: -0\.2"):
        mixing.mixup(views, labels, seed=0, step=0, alpha=-0.2)


def test_steps_and_seeds_draw_apart():
    draws = {mixing.draw_mixup(seed=seed, step=step, batch_size=4, alpha=0.2)[0] for seed in (0, 1) for step in (0, 1)}
    assert len(draws) == 4
