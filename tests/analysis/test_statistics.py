"""The comparison of two arms against scipy, statsmodels' figures, brute force, and tables simulated from its model."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.analysis import statistics
from divco_tf.errors import InputError
from tests.analysis.arms import right_predictions


def table(rng, seeds, images, *, seed_sd=0.0, image_sd=0.0, rest_sd=0.0, difference=0.0):
    """Differences [seeds, images] drawn from the model of seeds crossed with images."""
    of_seeds = seed_sd * rng.normal(size=(seeds, 1))
    of_images = image_sd * rng.normal(size=images)
    return difference + of_seeds + of_images + rest_sd * rng.normal(size=(seeds, images))


def compare(differences, **settings):
    return statistics.compare(differences, np.zeros_like(differences), **settings)


def test_the_difference_is_of_means():
    a, b = right_predictions(np.random.default_rng(0), seeds=3, images=50, arms=2)
    comparison = statistics.compare(a, b)
    assert comparison.difference == pytest.approx(a.mean() - b.mean(), abs=1e-15)
    assert (comparison.seeds, comparison.images) == (3, 50)
    assert comparison.low <= comparison.difference <= comparison.high


# statsmodels 0.15: anova_lm(ols("d ~ C(seed) + C(image)")), mean squares of seeds, images and the rest.
ANOVA = (
    [[0.61, 4.91, 2.05, -0.33, 1.53], [-3.79, -4.06, -3.16, -4.09, -3.03], [0.81, -0.23, 0.23, -0.06, 0.73]],
    (38.710206666666664, 1.2516766666666657, 1.5758066666666668),
)


def test_errors_are_those_of_the_analysis_of_variance():
    of_seeds, of_images, of_rest = ANOVA[1]
    comparison = compare(np.array(ANOVA[0]))
    assert comparison.seed_error**2 == pytest.approx(of_seeds / 15, rel=1e-12)
    assert of_images < of_rest and comparison.image_error == 0  # a negative estimate of a variance
    turned = compare(np.array(ANOVA[0]).T)  # now images are what varied most
    assert turned.seed_error**2 == pytest.approx(of_images / 15, rel=1e-12)
    assert turned.image_error**2 == pytest.approx((of_seeds - of_rest) / 15, rel=1e-12)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), seeds=st.integers(2, 7))
def test_seeds_without_image_effects_are_students_test_over_seeds(seed, seeds):
    differences = table(np.random.default_rng(seed), seeds, 20, seed_sd=1, difference=1)
    student = scipy.stats.ttest_1samp(differences.mean(axis=1), 0)
    comparison = compare(differences, resamples=1000)
    assert comparison.t_p == pytest.approx(student.pvalue, rel=1e-9)
    if seeds < 6:
        assert (comparison.low, comparison.high) == pytest.approx(tuple(student.confidence_interval(0.95)), rel=1e-9)


def test_one_seed_is_students_test_over_images():
    differences = table(np.random.default_rng(1), 1, 400, rest_sd=1, difference=0.1)
    comparison = compare(differences)
    student = scipy.stats.ttest_1samp(differences[0], 0)
    assert comparison.t_p == pytest.approx(student.pvalue, rel=1e-9)
    assert (comparison.low, comparison.high) == pytest.approx(tuple(student.confidence_interval(0.95)), abs=0.01)
    assert comparison.sign_flip_p == 1 and comparison.seed_error == 0 and math.isinf(comparison.smallest_difference)


@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_is_scipys_bca(skewed):
    rng = np.random.default_rng(2)
    sample = rng.exponential(size=40) if skewed else rng.normal(size=40)
    bootstrap = scipy.stats.bootstrap((sample,), np.mean, method="BCa", n_resamples=2000, rng=rng)
    influences = (sample - sample.mean()) / len(sample)
    interval = statistics._bca_interval(sample.mean(), bootstrap.bootstrap_distribution, influences, tail=0.025)
    np.testing.assert_allclose(interval, bootstrap.confidence_interval, rtol=1e-12)


def test_what_images_share_is_not_averaged_out_over_seeds():
    # All seeds are wrong about the same images: ten times as many seeds say nothing new about other images.
    image_effects = np.random.default_rng(3).normal(size=500)
    few, many = (compare(np.tile(image_effects, (seeds, 1))) for seeds in (6, 60))
    assert few.image_error == pytest.approx(scipy.stats.sem(image_effects))
    assert many.high - many.low == pytest.approx(few.high - few.low, rel=0.05)


def test_what_seeds_and_images_do_not_explain_is_counted_once():
    rng = np.random.default_rng(4)
    errors = [compare(table(rng, 8, 200, rest_sd=1), resamples=1000) for _ in range(100)]
    squares = np.mean([error.seed_error**2 + error.image_error**2 for error in errors])
    # Rows and columns resampled would have three times 1 / (8 * 200). Truncation at 0 adds a little.
    assert squares == pytest.approx(1 / 1600, rel=0.3)


@pytest.mark.parametrize(("seeds", "image_sd"), [(3, 2.0), (6, 0.0), (6, 5.0), (10, 2.0)])
def test_intervals_cover_the_planted_difference(seeds, image_sd):
    rng = np.random.default_rng(5)
    made = [
        compare(table(rng, seeds, 100, seed_sd=0.4, image_sd=image_sd, rest_sd=3, difference=7), resamples=1000)
        for _ in range(200)
    ]
    assert 0.9 <= np.mean([comparison.low <= 7 <= comparison.high for comparison in made]) <= 0.99


@pytest.mark.parametrize(("seeds", "image_sd"), [(6, 0.0), (6, 5.0), (8, 5.0), (10, 0.0)])
def test_the_smallest_difference_is_seen_four_times_in_five(seeds, image_sd):
    rng = np.random.default_rng(6)
    seed_error, image_error = math.sqrt(0.16 / seeds + 9 / seeds / 100), image_sd / 10
    smallest = statistics.smallest_difference(seed_error, image_error, seeds=seeds, images=100)
    seen = 0
    for _ in range(200):
        differences = table(rng, seeds, 100, seed_sd=0.4, image_sd=image_sd, rest_sd=3, difference=smallest)
        comparison = compare(differences, resamples=1000)
        seen += comparison.low > 0 and comparison.t_p <= 0.05 and comparison.sign_flip_p <= 0.05
    assert 0.7 <= seen / 200 <= 0.88


def test_the_smallest_difference_by_hand():
    # t of 19 degrees of freedom: 2.093 and 0.861 (tables); 20 seeds leave the sign-flip test as good as Student's.
    assert statistics.smallest_difference(0.5, 0, seeds=20, images=9) == pytest.approx(0.5 * (2.093 + 0.861), abs=1e-3)
    assert statistics.smallest_difference(0.5, 0, seeds=6, images=9) == pytest.approx(0.5 * 4.41)
    assert statistics.smallest_difference(0.5, 0, seeds=5, images=9) == math.inf
    # Normal quantiles where images make the error; of five comparisons the first of Holm's has 0.01.
    assert statistics.smallest_difference(0, 1, seeds=6, images=10**6) == pytest.approx(1.960 + 0.842, abs=1e-3)
    among_five = statistics.smallest_difference(0, 1, seeds=6, images=10**6, comparisons=5)
    assert among_five == pytest.approx(2.576 + 0.842, abs=1e-3)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_the_sign_flip_test_tries_every_flip(differences):
    observed = abs(sum(differences))
    flips = list(itertools.product([-1, 1], repeat=len(differences)))
    as_far = sum(abs(np.dot(signs, differences)) >= observed for signs in flips)
    assert statistics.sign_flip_p(differences) == pytest.approx(as_far / len(flips), rel=1e-12)


def test_six_seeds_are_the_fewest_that_reach_one_in_twenty():
    for seeds in range(1, 9):
        assert statistics.sign_flip_p(np.arange(1, seeds + 1)) == min(1, 2 / 2**seeds)
    assert statistics.sign_flip_p(np.ones(5)) > 0.05 >= statistics.sign_flip_p(np.ones(6))


def test_flips_of_many_seeds_are_drawn_at_random():
    differences = np.random.default_rng(7).normal(0.3, 1, size=40)
    student = scipy.stats.ttest_1samp(differences, 0).pvalue
    assert statistics.sign_flip_p(differences) == pytest.approx(student, abs=0.01)
    assert statistics.sign_flip_p(np.ones(40)) == pytest.approx(2 / (2**14 + 1))  # never 0


# statsmodels 0.15: multipletests(p, method="holm")[1].
HOLM = [
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
    ([0.02, 0.02, 0.5], [0.06, 0.06, 0.5]),
    ([0.001, 0.2, 0.9, 0.04, 0.0125, 0.6], [0.006, 0.6, 1.0, 0.16, 0.0625, 1.0]),
    ([0.3], [0.3]),
    ([], []),
]


@pytest.mark.parametrize(("p_values", "corrected"), HOLM)
def test_holms_correction_is_that_of_statsmodels(p_values, corrected):
    np.testing.assert_allclose(statistics.holm(p_values), corrected, rtol=1e-12)


@pytest.mark.parametrize("seeds", [1, 2, 6])
def test_arms_that_are_the_same_differ_by_nothing(seeds):
    a, _ = right_predictions(np.random.default_rng(8), seeds=seeds, images=30, arms=2)
    for scores in (a, np.ones_like(a), np.zeros_like(a)):
        comparison = statistics.compare(scores, scores)
        assert (comparison.difference, comparison.low, comparison.high) == (0, 0, 0)
        assert (comparison.t_p, comparison.sign_flip_p) == (1, 1)


@pytest.mark.parametrize("seeds", [1, 2, 6])
def test_a_difference_that_never_varies_is_a_point(seeds):
    # 0.3 - 0.1 in floating point, and a mean of it, are off by rounding, which is no spread.
    comparison = statistics.compare(np.full((seeds, 30), 0.3), np.full((seeds, 30), 0.1))
    assert comparison.low == comparison.high == comparison.difference == pytest.approx(0.2)
    assert comparison.t_p == 0
    assert comparison.sign_flip_p == pytest.approx(min(1, 2 / 2**seeds))
    assert comparison.smallest_difference == (0 if seeds == 6 else math.inf)


def test_turning_the_arms_round_turns_the_interval_round():
    a, b = right_predictions(np.random.default_rng(9), seeds=6, images=300, arms=2)
    there, back = statistics.compare(a, b), statistics.compare(b, a)
    assert there.difference == pytest.approx(-back.difference)
    assert there.t_p == pytest.approx(back.t_p) and there.sign_flip_p == back.sign_flip_p
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=0.003)


def test_the_seed_decides_the_interval_and_nothing_else():
    a, b = right_predictions(np.random.default_rng(10), seeds=6, images=300, arms=2)
    first, again, other = (statistics.compare(a, b, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert other != first == dataclasses.replace(other, low=first.low, high=first.high)
    assert other.low == pytest.approx(first.low, abs=0.003)


def test_scores_may_be_of_any_numeric_type():
    a, b = right_predictions(np.random.default_rng(11), seeds=6, images=300, arms=2)
    assert statistics.compare(a, b) == statistics.compare(a.astype(np.uint8), b.astype(np.float32))


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((2, 5)), np.zeros((2, 6)), r"\[2, 5\] and float64 \[2, 6\]"),
        (np.zeros(5), np.zeros(5), r"pass numbers \[seeds, N\]"),
        (np.zeros((0, 5)), np.zeros((0, 5)), r"\[0, 5\]"),
        (np.zeros((2, 1)), np.zeros((2, 1)), "two images at least"),
        (np.full((2, 5), "x"), np.zeros((2, 5)), "<U1"),
        (np.full((2, 5), -np.inf), np.zeros((2, 5)), "10 differences of 10"),
    ],
)
def test_scores_that_do_not_fit_are_refused_in_one_line(a, b, message):
    with pytest.raises(InputError, match=message) as error:
        statistics.compare(a, b)
    assert "\n" not in str(error.value) and "Received: " in str(error.value)


def test_other_bad_input_is_refused():
    with pytest.raises(InputError, match="Received: 10;"):
        statistics.compare(np.zeros((2, 5)), np.zeros((2, 5)), resamples=10)
    for bad in ([], [[1.0]], ["x"], [np.nan, 1.0]):
        with pytest.raises(InputError, match="Received: "):
            statistics.sign_flip_p(bad)
    for bad in ([[0.1]], [-0.1], [1.1], [np.nan]):
        with pytest.raises(InputError, match="no p-values"):
            statistics.holm(bad)
