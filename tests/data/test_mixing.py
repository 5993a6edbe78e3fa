"""Mixup and CutMix."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from divco_tf.data.mixing import Mixing, Mixture
from divco_tf.errors import InputError

STEPS = range(400)


def batch(size: int, height: int = 3, width: int = 3) -> tuple[np.ndarray, np.ndarray]:
    views = np.random.default_rng(0).normal(size=(size, 4, height, width, 3)).astype(np.float32)
    return views, np.eye(size, dtype=np.float32)


def draw_mixup(*, seed: int, step: int, batch_size: int, alpha: float) -> tuple[float, np.ndarray]:
    mixture = Mixing(mixup_alpha=alpha).draw(seed=seed, step=step, batch_size=batch_size)
    return mixture.share, mixture.partners


def mixup(views, labels, *, seed: int, step: int, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    mixture = Mixing(mixup_alpha=alpha).draw(seed=seed, step=step, batch_size=len(views))
    return (views, labels) if mixture is None else mixture.apply(views, labels)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(-(2**63), 2**64), step=st.integers(0, 2**40), alpha=st.floats(0.05, 5))
def test_one_share_and_one_permutation_for_all_views_and_labels(seed, step, alpha):
    views, labels = batch(5)
    share, partners = draw_mixup(seed=seed, step=step, batch_size=5, alpha=alpha)
    mixed_views, mixed_labels = mixup(views, labels, seed=seed, step=step, alpha=alpha)
    assert 0 <= share <= 1 and sorted(partners) == list(range(5))
    np.testing.assert_allclose(mixed_views, share * views + (1 - share) * views[partners], atol=1e-6)
    np.testing.assert_allclose(mixed_labels, share * labels + (1 - share) * labels[partners], atol=1e-6)
    np.testing.assert_allclose(mixed_labels.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("kind", ["mixup_alpha", "cutmix_alpha"])
def test_the_share_follows_the_beta_distribution(kind):
    shares = [Mixing(**{kind: 0.2}).draw(seed=0, step=step, batch_size=2).share for step in range(2000)]
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1)).
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert np.var(shares) == pytest.approx(1 / (4 * 1.4), abs=0.01)


def test_a_step_draws_the_same_for_ever():
    """A change would change what every configuration with mixing trains."""
    mixture = Mixing(0.2, 1.0).draw(seed=3, step=7, batch_size=6)
    assert mixture.share == pytest.approx(0.6375736536730116, rel=1e-12) and mixture.centre is None
    assert mixture.partners.tolist() == [3, 1, 2, 4, 0, 5]
    cut = Mixing(cutmix_alpha=1.0, block=3).draw(seed=3, step=7, batch_size=6)
    assert cut.share == pytest.approx(0.5923109642499851, rel=1e-12)
    assert cut.centre == (0.21895760959818988, 0.04221749634651539)
    assert cut.partners.tolist() == [2, 0, 1, 4, 3, 5]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_every_order_of_partners_is_as_frequent(size):
    """From one step to the next, and in the second block as in the first."""
    draws = [Mixing(0.2, block=size).draw(seed=0, step=step, batch_size=2 * size).partners for step in range(1200)]
    for block in (slice(size), slice(size, None)):
        found = Counter(tuple(partners[block] % size) for partners in draws)
        assert len(found) == math.factorial(size) and stats.chisquare(list(found.values())).pvalue > 1e-3


def test_a_block_of_the_whole_batch_draws_as_none_does():
    whole, block = (Mixing(0.3, 0.7, size).draw(seed=1, step=2, batch_size=8) for size in (None, 8))
    assert whole.share == block.share and whole.centre == block.centre
    np.testing.assert_array_equal(whole.partners, block.partners)


def test_alpha_zero_changes_nothing():
    views, labels = batch(3)
    same_views, same_labels = mixup(views, labels, seed=0, step=0, alpha=0)
    assert same_views is views and same_labels is labels
    assert not Mixing() and Mixing().draw(seed=0, step=0, batch_size=3) is None
    assert Mixing(mixup_alpha=0.1) and Mixing(cutmix_alpha=0.1)


@pytest.mark.parametrize("kind", [{"mixup_alpha": 0.2}, {"cutmix_alpha": 1.0}])
def test_steps_and_seeds_draw_apart(kind):
    draws = [Mixing(**kind).draw(seed=seed, step=step, batch_size=64) for seed in (0, 1) for step in (0, 1)]
    assert len({mixture.share for mixture in draws}) == len({tuple(mixture.partners) for mixture in draws}) == 4
    assert len({mixture.centre for mixture in draws}) == (4 if "cutmix_alpha" in kind else 1)


@settings(deadline=None, max_examples=50)
@given(step=st.integers(0, 10**6), height=st.integers(1, 9), width=st.integers(1, 9), alpha=st.floats(0.1, 5))
def test_cutmix_pastes_one_box_in_all_views_and_labels_have_its_true_area(step, height, width, alpha):
    size = 4
    own = np.broadcast_to(np.arange(size, dtype=np.float32)[:, None, None, None, None], (size, 2, height, width, 3))
    labels = np.eye(size, dtype=np.float32)
    mixture = Mixing(cutmix_alpha=alpha).draw(seed=0, step=step, batch_size=size)
    mixed, mixed_labels = mixture.apply(own, labels)
    top, bottom, left, right = mixture.box(height, width)
    inside = np.zeros((height, width), bool)
    inside[top:bottom, left:right] = True
    for position, partner in enumerate(mixture.partners):
        expected = np.where(inside, np.float32(partner), np.float32(position))[None, :, :, None]
        np.testing.assert_array_equal(mixed[position], np.broadcast_to(expected, mixed.shape[1:]))
        counted = np.mean(mixed[position] == position)  # 1 for an example that is its own partner
        assert mixed_labels[position, position] == pytest.approx(counted, abs=1e-6)
    assert np.array_equal(own[:, 0, 0, 0, 0], np.arange(size)) and np.array_equal(labels, np.eye(size))


def test_the_box_has_the_drawn_area_and_its_centre_is_anywhere():
    boxes = np.zeros((20, 20))
    for step in range(4000):
        mixture = Mixing(cutmix_alpha=1.0).draw(seed=0, step=step, batch_size=2)
        boxes[int(mixture.centre[0] * 20), int(mixture.centre[1] * 20)] += 1
    chi_square = ((boxes - 10) ** 2 / 10).sum()  # 399 degrees of freedom, standard deviation 28
    assert 300 < chi_square < 500
    for share in (0.0, 0.19, 0.5, 1.0):
        top, bottom, left, right = Mixture(share, np.arange(2), (0.5, 0.5)).box(1000, 500)
        assert (bottom - top) * (right - left) / 500_000 == pytest.approx(1 - share, abs=0.005)
    assert Mixture(0.75, np.arange(2), (0.0, 0.999)).box(8, 8) == (0, 2, 5, 8)  # a box of 4 x 4, clipped


def test_with_both_a_step_is_the_one_or_the_other_half_the_time():
    draws = [Mixing(mixup_alpha=0.2, cutmix_alpha=1.0).draw(seed=0, step=step, batch_size=2) for step in STEPS]
    cut = [mixture.share for mixture in draws if mixture.centre is not None]
    blended = [mixture.share for mixture in draws if mixture.centre is None]
    assert len(cut) == pytest.approx(len(STEPS) / 2, abs=4 * np.sqrt(len(STEPS)) / 2)
    # Each with its own alpha: Beta(1, 1) has the variance 0.083, Beta(0.2, 0.2) 0.179.
    assert np.var(cut) == pytest.approx(1 / 12, abs=0.02) and np.var(blended) == pytest.approx(0.179, abs=0.03)


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    kinds=st.sampled_from([(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)]),
    block=st.sampled_from([None, 1, 2, 3, 4, 6, 12]),
    step=st.integers(0, 1000),
)
def test_a_slice_mixed_of_its_positions_is_bit_by_bit_the_slice_of_the_whole_batch(data, kinds, block, step):
    views, labels = batch(12, height=5, width=4)
    start = data.draw(st.integers(0, 11))
    stop = data.draw(st.integers(start + 1, 12))
    mixture = Mixing(*kinds, block).draw(seed=9, step=step, batch_size=12)
    whole = mixture.apply(views, labels)
    positions = mixture.positions(start, stop)
    part = mixture.apply(views[positions], labels[positions], start=start, stop=stop)
    for mixed, expected in zip(part, whole, strict=True):
        np.testing.assert_array_equal(mixed, expected[start:stop])


@settings(deadline=None, max_examples=30)
@given(step=st.integers(0, 10**6), block=st.sampled_from([1, 2, 4, 8, 16]), slices=st.sampled_from([1, 2, 4]))
def test_slices_of_whole_blocks_need_nothing_else(step, block, slices):
    mixture = Mixing(mixup_alpha=0.2, block=min(block, 16 // slices)).draw(seed=0, step=step, batch_size=16)
    assert sorted(mixture.partners) == list(range(16))
    for start in range(0, 16, 16 // slices):
        stop = start + 16 // slices
        np.testing.assert_array_equal(mixture.positions(start, stop), np.arange(start, stop))


def test_blocks_are_permuted_apart():
    mixture = Mixing(mixup_alpha=0.2, block=16).draw(seed=0, step=0, batch_size=64)
    assert len({tuple(block) for block in mixture.partners.reshape(4, 16) % 16}) == 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Mixing(mixup_alpha=-0.2), r"mixup_alpha .*Received: -0\.2"),
        (lambda: Mixing(cutmix_alpha=float("nan")), "cutmix_alpha .*Received: nan"),
        (lambda: Mixing(cutmix_alpha=float("inf")), "Received: inf"),
        (lambda: Mixing(mixup_alpha="0.2"), r"mixup_alpha .*Received: '0\.2'"),
        (lambda: Mixing(mixup_alpha=True), "mixup_alpha .*Received: True"),
        (lambda: Mixing(block=0), "Received: block=0"),
        (lambda: Mixing(block=2.0), r"block .*Received: 2\.0"),
        (lambda: Mixing(0.2, block=5).draw(seed=0, step=0, batch_size=12), "block=5 for a batch of 12; 4, or"),
        (lambda: Mixing(block=24).check_batch(12), "block=24 for a batch of 12; 12, or"),
        (lambda: Mixture(0.5, np.array([1, 0, 3, 2])).apply(*batch(4), start=0, stop=2), "Received: 4 views, 4 labels"),
        (lambda: Mixture(0.5, np.array([1, 0])).positions(1, 3), "Received: 1 to 3 of 2"),
        (lambda: Mixture(0.5, np.array([1, 0])).positions(1, 1), "Received: 1 to 1 of 2"),
        (lambda: mixup(*batch(3), seed=0, step=0, alpha=-0.2), r"Received: -0\.2"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)
