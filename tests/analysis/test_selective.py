"""Risk and coverage against loops over thresholds and over orders, and by their limits."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.analysis import selective
from divco_tf.errors import InputError

SEEDS = st.integers(0, 10_000)
quickly = settings(deadline=None, max_examples=30)


def random_images(seed, images, *, decimals=6):
    rng = np.random.default_rng(seed)
    confidence = rng.random(images).round(decimals)
    return confidence, (rng.random(images) > confidence).astype(int)


def area(losses):
    """The mean risk of images in this order."""
    return np.mean([sum(losses[: n + 1]) / (n + 1) for n in range(len(losses))])


def test_curve_by_hand():
    curve = selective.risk_coverage_curve([0.9, 0.2, 0.5, 0.5], [0, 1, 1, 0])
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.risk, [0, 0.5 / 2, 1 / 3, 2 / 4])
    np.testing.assert_allclose(curve.threshold, [0.9, 0.5, 0.5, 0.2])


@quickly
@given(seed=SEEDS, images=st.integers(1, 30))
def test_aurc_is_the_mean_risk_in_order_of_confidence(seed, images):
    confidence, losses = random_images(seed, images)
    ordered = [loss for _, loss in sorted(zip(confidence, losses, strict=True), reverse=True)]
    assert selective.aurc(confidence, losses) == pytest.approx(area(ordered), abs=1e-14)


@quickly
@given(seed=SEEDS)
def test_images_of_equal_confidence_count_as_the_mean_over_their_orders(seed):
    confidence, losses = random_images(seed, 6, decimals=0)
    orders = [order for order in itertools.permutations(range(6)) if np.all(np.diff(confidence[list(order)]) <= 0)]
    expected = np.mean([area(losses[list(order)]) for order in orders])
    assert selective.aurc(confidence, losses) == pytest.approx(expected, abs=1e-14)


@quickly
@given(seed=SEEDS, images=st.integers(1, 30), risk=st.sampled_from([0, 0.05, 0.3]))
def test_nothing_depends_on_the_order_of_images(seed, images, risk):
    confidence, losses = random_images(seed, images, decimals=1)
    order = np.random.default_rng(seed).permutation(images)
    for measure in (
        selective.aurc,
        selective.excess_aurc,
        lambda *curve: selective.coverage_at_risk(*curve, risk=risk),
    ):
        assert measure(confidence[order], losses[order]) == pytest.approx(measure(confidence, losses), abs=1e-14)


@quickly
@given(seed=SEEDS, images=st.integers(1, 7))
def test_excess_is_above_the_best_of_all_orders(seed, images):
    confidence, losses = random_images(seed, images)
    best = min(area(order) for order in itertools.permutations(losses))
    expected = selective.aurc(confidence, losses) - best
    assert selective.excess_aurc(confidence, losses) == pytest.approx(expected, abs=1e-14)


def test_aurc_of_the_best_order_approaches_its_closed_form():
    # r + (1 - r) log(1 - r) for an error rate r (arXiv 1805.08206).
    losses = np.repeat([0, 1], [70_000, 30_000])
    assert selective.aurc(-losses, losses) == pytest.approx(0.3 + 0.7 * np.log(0.7), abs=1e-5)
    assert selective.excess_aurc(-losses, losses) == 0


def test_confidence_that_tells_nothing_has_the_error_rate_for_its_area():
    losses = np.array([0, 1, 1, 0, 1])
    assert selective.aurc(np.ones(5), losses) == pytest.approx(0.6)


@quickly
@given(seed=SEEDS, decimals=st.sampled_from([1, 6]), risk=st.sampled_from([0, 0.05, 0.2, 0.5]))
def test_coverage_at_risk_is_that_of_the_best_threshold(seed, decimals, risk):
    confidence, losses = random_images(seed, 20, decimals=decimals)
    coverages = [0.0]
    for threshold in confidence:
        answered = losses[confidence >= threshold]
        if answered.sum() <= risk * len(answered) + 1e-9:
            coverages.append(len(answered) / 20)
    assert selective.coverage_at_risk(confidence, losses, risk=risk) == max(coverages)


def test_a_risk_that_is_just_reached_is_allowed():
    losses = np.arange(20) == 19
    assert selective.coverage_at_risk(-np.arange(20), losses, risk=0.05) == 1
    seven_of_ten = np.arange(10) < 7  # 0.7 ten times adds up to 7.000000000000001
    assert selective.coverage_at_risk(np.ones(10), seven_of_ten, risk=0.7) == 1


def test_images_of_equal_confidence_come_through_together_or_not_at_all():
    confidence, losses = np.array([0.9, 0.5, 0.5]), np.array([0, 0, 1])
    assert selective.coverage_at_risk(confidence, losses, risk=0.3) == pytest.approx(1 / 3)
    assert selective.coverage_at_risk(confidence, losses, risk=0.34) == 1
    assert selective.coverage_at_risk(-losses, losses, risk=0) == pytest.approx(2 / 3)
    assert selective.coverage_at_risk(losses, losses, risk=0) == 0


@pytest.mark.parametrize(
    ("confidence", "losses", "message"),
    [
        ([], [], "at least one image"),
        ([0.5], [0, 1], r"\[1\] and \[2\]"),
        ([[0.5]], [[0]], r"\[1, 1\]"),
        (["a"], [0], "no numbers"),
        ([np.nan], [0], "not finite"),
        ([0.5], [np.inf], "not finite"),
        ([0.5], [-1.0], "losses from -1.0"),
    ],
)
def test_bad_input_is_refused_in_one_line(confidence, losses, message):
    for measure in (
        selective.risk_coverage_curve,
        selective.aurc,
        selective.excess_aurc,
        selective.coverage_at_risk,
    ):
        with pytest.raises(InputError, match=message) as error:
            measure(confidence, losses)
        assert "\n" not in str(error.value)


def test_a_risk_below_0_is_refused():
    with pytest.raises(InputError, match="risk is out of range"):
        selective.coverage_at_risk([0.5], [0], risk=-1)
