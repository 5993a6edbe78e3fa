"""Prediction sets: the guarantee itself, over every choice of a test image, and scores by their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.analysis import conformal
from divco_tf.errors import InputError
from tests.analysis import random_predictions

SEEDS = st.integers(0, 10_000)
SCORES = st.sampled_from(sorted(conformal.SCORES))
MISCOVERAGES = st.sampled_from([0.05, 0.1, 0.3, 0.5])
quickly = settings(deadline=None, max_examples=30)


def mean_coverage(probabilities, labels, miscoverage, score):
    """The coverage of each image's set by the threshold of all others, on average."""
    hits = []
    for i in range(len(labels)):
        others = np.arange(len(labels)) != i
        threshold = conformal.fit_threshold(probabilities[others], labels[others], miscoverage=miscoverage, score=score)
        sets = conformal.prediction_sets(probabilities[[i]], threshold, score=score)
        hits.append(conformal.coverage(sets, labels[[i]]))
    return np.mean(hits)


@quickly
@given(seed=SEEDS, images=st.integers(2, 40), miscoverage=MISCOVERAGES, score=SCORES, decimals=st.sampled_from([1, 9]))
def test_coverage_is_guaranteed_whichever_image_is_tested(seed, images, miscoverage, score, decimals):
    # If every image of a set is as likely to be the test image, this mean is the probability of the guarantee.
    probabilities, labels = random_predictions.one_network(seed, images, 4, decimals=decimals)
    coverage = mean_coverage(probabilities, labels, miscoverage, score)
    assert coverage >= 1 - miscoverage - 1e-9
    if decimals == 9 and score == "lac":  # without equal scores it is not above the guarantee by more than 1 / images
        assert coverage <= 1 - miscoverage + 1 / images + 1e-9


def test_coverage_of_fresh_images_is_the_guarantee_on_average():
    # ceil(20 x 0.9) / 20 = 0.9 for 19 held-out images; the standard error of 400 draws of 200 images is 0.0037.
    coverages = []
    for seed in range(400):
        probabilities, labels = random_predictions.one_network(seed, 219, 4)
        threshold = conformal.fit_threshold(probabilities[:19], labels[:19])
        coverages.append(conformal.coverage(conformal.prediction_sets(probabilities[19:], threshold), labels[19:]))
    assert np.mean(coverages) == pytest.approx(0.9, abs=4 * 0.0037)


@quickly
@given(seed=SEEDS, decimals=st.sampled_from([1, 9]))
def test_adaptive_score_adds_up_what_is_as_probable_or_more(seed, decimals):
    probabilities, labels = random_predictions.one_network(seed, 15, 5, decimals=decimals)
    scores = np.array([[row[row >= p].sum() for p in row] for row in probabilities])
    np.testing.assert_allclose(conformal.SCORES["aps"](probabilities), scores, atol=1e-14)
    threshold = conformal.fit_threshold(probabilities, labels, miscoverage=0.5, score="aps")
    assert threshold == pytest.approx(sorted(scores[np.arange(15), labels])[7], abs=1e-14)  # the 8th: 16 x 0.5


def test_adaptive_sets_are_larger_for_difficult_images_and_rank_classes():
    probabilities = np.array([[0.9, 0.06, 0.04], [0.4, 0.35, 0.25]])
    sets = conformal.prediction_sets(probabilities, 0.92, score="aps")
    np.testing.assert_array_equal(sets, [[True, False, False], [True, True, False]])
    np.testing.assert_array_equal(
        conformal.prediction_sets(probabilities, 0.65), [[True, False, False], [True, True, False]]
    )


def test_threshold_has_the_correction_for_a_finite_number_of_images():
    # Scores 0.01, 0.02, ..., 0.99: the 93rd of 99 (100 x 0.93), the 58th (100 x 0.58, in floats 58.00000000000001).
    p = 1 - np.arange(1, 100) / 100
    probabilities = np.stack([p, 1 - p], axis=1)
    assert conformal.fit_threshold(probabilities, np.zeros(99, int), miscoverage=0.07) == pytest.approx(0.93)
    assert conformal.fit_threshold(probabilities, np.zeros(99, int), miscoverage=0.42) == pytest.approx(0.58)
    assert conformal.fit_threshold(probabilities, np.zeros(99, int), miscoverage=0.075) == pytest.approx(0.93)
    assert conformal.fit_threshold(probabilities, np.zeros(99, int), miscoverage=0.01) == pytest.approx(0.99)


def test_too_few_images_for_the_guarantee_give_sets_of_all_classes():
    probabilities, labels = random_predictions.one_network(0, 18, 4)
    threshold = conformal.fit_threshold(probabilities, labels, miscoverage=0.05)
    assert threshold == float("inf")
    assert conformal.mean_size(conformal.prediction_sets(probabilities, threshold)) == 4


def test_size_and_coverage_by_hand():
    sets = np.array([[True, True, False], [False, False, False], [False, True, False]])
    assert conformal.mean_size(sets) == 1
    assert conformal.coverage(sets, [1, 1, 0]) == pytest.approx(1 / 3)


PROBABILITIES, LABELS = np.full([2, 4], 0.25), np.array([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conformal.fit_threshold(PROBABILITIES, [0, 4]), "from 0 to 3"),
        (lambda: conformal.fit_threshold(PROBABILITIES * 9, LABELS), "outside 0..1"),
        (lambda: conformal.fit_threshold(PROBABILITIES, LABELS, miscoverage=1.0), "miscoverage is out of range"),
        (lambda: conformal.fit_threshold(PROBABILITIES, LABELS, score="raps"), "pass one of lac, aps"),
        (lambda: conformal.prediction_sets(PROBABILITIES[0], 0.5), r"\[N, K\]"),
        (lambda: conformal.prediction_sets(PROBABILITIES, float("nan")), "Received: nan"),
        (lambda: conformal.coverage(PROBABILITIES, LABELS), "Received: float64"),
        (lambda: conformal.coverage(PROBABILITIES > 0, [0]), r"labels int64 \[1\]"),
        (lambda: conformal.mean_size(np.zeros([0, 3], bool)), r"\[0, 3\]"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
