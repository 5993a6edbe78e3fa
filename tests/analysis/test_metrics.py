"""Metrics against scikit-learn, against their definitions spelt out in loops, and by hand."""

import itertools
import json
import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.analysis import metrics
from divco_tf.errors import InputError
from divco_tf.training import metrics as training_metrics
from tests.analysis import random_predictions

SEEDS = st.integers(0, 10_000)
quickly = settings(deadline=None, max_examples=30)


@quickly
@given(seed=SEEDS, k=st.integers(1, 7))
def test_top_k_accuracy_is_scikit_learns(seed, k):
    probabilities, labels = random_predictions.one_network(seed, 20, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that all six are among the best six
        expected = sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=k, labels=range(6))
    assert metrics.top_k_accuracy(probabilities, labels, k=k) == pytest.approx(expected, abs=1e-15)


@quickly
@given(seed=SEEDS, k=st.integers(1, 4))
def test_classes_that_tie_count_as_if_chance_decided(seed, k):
    probabilities, labels = random_predictions.one_network(seed, 5, 4, decimals=1)
    hits = []
    for order in itertools.permutations(range(4)):  # among equal ones, whoever comes first in this order is taken
        best = [sorted(range(4), key=lambda c: (-row[c], order[c]))[:k] for row in probabilities]
        hits.append(np.mean([label in row for label, row in zip(labels, best, strict=True)]))
    assert metrics.top_k_accuracy(probabilities, labels, k=k) == pytest.approx(np.mean(hits))


@quickly
@given(seed=SEEDS)
def test_brier_score_is_scikit_learns(seed):
    probabilities, labels = random_predictions.one_network(seed, 20, 4)
    expected = sklearn.metrics.brier_score_loss(labels, probabilities, labels=range(4), scale_by_half=False)
    assert metrics.brier_score(probabilities, labels) == pytest.approx(expected, abs=1e-14)


def test_brier_score_reaches_from_0_to_2():
    assert metrics.brier_score(np.eye(3), [0, 1, 2]) == 0
    assert metrics.brier_score(np.eye(3), [1, 2, 0]) == 2


def test_reliability_curve_by_hand():
    probabilities = np.array([[0.4, 0.3, 0.3], [0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.1, 0.7, 0.2]])
    curve = metrics.reliability_curve(probabilities, [0, 0, 1, 1], bins=4)
    np.testing.assert_allclose(curve.confidence, [0.4, 0.7, 0.85])
    np.testing.assert_allclose(curve.accuracy, [1, 1, 0.5])
    np.testing.assert_array_equal(curve.count, [1, 1, 2])


@quickly
@given(seed=SEEDS, bins=st.integers(1, 30))
def test_reliability_curve_has_the_calibration_error_of_training(seed, bins):
    probabilities, labels = random_predictions.one_network(seed, 40, 3)
    curve = metrics.reliability_curve(probabilities, labels, bins=bins)
    expected = training_metrics.expected_calibration_error(probabilities, labels, bins=bins)
    assert curve.calibration_error == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_reliability_needs_only_how_sure_and_how_right_answers_are(equal_mass):
    probabilities, labels = random_predictions.one_network(0, 40, 3)
    expected = metrics.reliability_curve(probabilities, labels, bins=7, equal_mass=equal_mass)
    correct = probabilities.argmax(axis=1) == labels
    found = metrics.reliability_of(probabilities.max(axis=1), correct, bins=7, equal_mass=equal_mass)
    for name in ("confidence", "accuracy", "count"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@quickly
@given(seed=SEEDS, per_bin=st.integers(1, 5), bins=st.integers(1, 6))
def test_equal_mass_calibration_error_is_that_of_a_sorted_list_cut_in_equal_parts(seed, per_bin, bins):
    probabilities, labels = random_predictions.one_network(seed, per_bin * bins, 3)
    ranked = sorted((max(row), row.argmax() == label) for row, label in zip(probabilities, labels, strict=True))
    gaps = []
    for first in range(0, len(ranked), per_bin):
        part = ranked[first : first + per_bin]
        gaps.append(abs(sum(right for _, right in part) - sum(confidence for confidence, _ in part)))
    error = metrics.equal_mass_calibration_error(probabilities, labels, bins=bins)
    assert error == pytest.approx(sum(gaps) / len(ranked), abs=1e-14)


@quickly
@given(seed=SEEDS, images=st.integers(1, 50), bins=st.integers(1, 50))
def test_bins_of_equal_mass_differ_by_one_image_at_most(seed, images, bins):
    probabilities, labels = random_predictions.one_network(seed, images, 3)
    count = metrics.reliability_curve(probabilities, labels, bins=bins, equal_mass=True).count
    assert np.ptp(count) <= 1
    assert len(count) == min(images, bins)


def test_images_of_equal_confidence_share_the_bin_of_their_middle_place():
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
    curve = metrics.reliability_curve(probabilities, [0, 0, 0, 1], bins=2, equal_mass=True)
    np.testing.assert_array_equal(curve.count, [1, 3])


@quickly
@given(seed=SEEDS, bins=st.integers(1, 20))
def test_equal_mass_calibration_error_does_not_depend_on_the_order_of_images(seed, bins):
    probabilities, labels = random_predictions.one_network(seed, 30, 3, decimals=1)
    order = np.random.default_rng(seed).permutation(30)
    error = metrics.equal_mass_calibration_error(probabilities, labels, bins=bins)
    assert metrics.equal_mass_calibration_error(probabilities[order], labels[order], bins=bins) == pytest.approx(error)


@quickly
@given(seed=SEEDS, bins=st.integers(1, 20))
def test_classwise_calibration_error_is_its_definition(seed, bins):
    probabilities, labels = random_predictions.one_network(seed, 25, 4)
    total = 0.0
    for k in range(4):
        for m in range(bins):
            inside = [i for i, p in enumerate(probabilities[:, k]) if m / bins < p <= (m + 1) / bins]
            if inside:
                share = sum(labels[i] == k for i in inside) / len(inside)
                total += len(inside) / 25 * abs(share - sum(probabilities[i, k] for i in inside) / len(inside))
    error = metrics.classwise_calibration_error(probabilities, labels, bins=bins)
    assert error == pytest.approx(total / 4, abs=1e-14)


def test_confusion_matrix_has_true_classes_in_rows_and_every_class():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    np.testing.assert_array_equal(metrics.confusion_matrix(probabilities, [0, 1, 1]), [[1, 0, 0], [1, 1, 0], [0, 0, 0]])


@quickly
@given(seed=SEEDS, decimals=st.sampled_from([1, 6]))
def test_auroc_is_the_chance_of_the_right_order(seed, decimals):
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(1, 1, 12).round(decimals), rng.normal(0, 1, 9).round(decimals)
    wins = [(a > b) + 0.5 * (a == b) for a, b in itertools.product(inside, outside)]
    assert metrics.auroc(inside, outside) == pytest.approx(np.mean(wins), abs=1e-14)


@quickly
@given(seed=SEEDS, decimals=st.sampled_from([1, 6]), images=st.integers(1, 60), rate=st.sampled_from([0.5, 0.95, 1]))
def test_false_positive_rate_is_that_of_the_highest_sufficient_threshold(seed, decimals, images, rate):
    rng = np.random.default_rng(seed)
    inside, outside = rng.normal(1, 1, images).round(decimals), rng.normal(0, 1, 9).round(decimals)
    threshold = max(t for t in inside if sum(inside >= t) >= rate * images - 1e-9)
    expected = np.mean(outside >= threshold)
    assert metrics.false_positive_rate(inside, outside, true_positive_rate=rate) == pytest.approx(expected)


def test_higher_scores_mean_that_an_image_is_of_the_distribution():
    assert metrics.auroc([3, 4], [1, 2]) == 1
    assert metrics.false_positive_rate([3, 4], [1, 2]) == 0
    assert metrics.auroc([1, 2], [3, 4]) == 0
    assert metrics.false_positive_rate([1, 2], [3, 4]) == 1
    assert metrics.auroc([1, 1], [1, 1]) == 0.5
    assert metrics.false_positive_rate(np.arange(20), np.arange(20)) == 0.95


@pytest.mark.parametrize("num_branches", [1, 3])
@pytest.mark.parametrize("num_classes", [2, 7])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_all_metrics_are_finite_floats_that_json_takes(num_branches, num_classes, dtype):
    branches, labels = random_predictions.branches(0, 50, num_branches, num_classes)
    ensemble = np.exp(branches).mean(axis=1)
    figures = metrics.all_metrics(branches.astype(dtype), ensemble.astype(dtype), labels)
    assert all(type(figure) is float for figure in figures.values())
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    exact = metrics.all_metrics(branches, ensemble, labels)
    tolerance = {np.float16: 2e-3, np.float32: 1e-6, np.float64: 0}[dtype]
    continuous = [name for name in exact if name.endswith(("likelihood", "score", "disagreement", "divergence"))]
    assert {name: figures[name] for name in continuous} == pytest.approx(
        {name: exact[name] for name in continuous}, abs=tolerance
    )


def test_all_metrics_of_logits_are_those_of_their_log_probabilities():
    branches, labels = random_predictions.branches(1, 40, 3, 5)
    ensemble = np.exp(branches).mean(axis=1)
    shifted = branches + np.random.default_rng(0).normal(size=(40, 3, 1))
    expected = metrics.all_metrics(branches, ensemble, labels)
    assert metrics.all_metrics(shifted, ensemble, labels) == pytest.approx(expected, abs=1e-12)


def test_all_metrics_of_one_branch_say_that_there_is_no_diversity():
    branches, labels = random_predictions.branches(2, 40, 1, 5)
    figures = metrics.all_metrics(branches, np.exp(branches[:, 0]), labels)
    none = ["disagreement", "pairwise_disagreement", "pairwise_divergence", "ambiguity_error", "collapsed"]
    assert {figures[name] for name in none} == {0}
    assert figures["ambiguity_negative_log_likelihood"] == pytest.approx(0, abs=1e-15)
    assert figures["q_statistic"] == figures["error_correlation"] == 1
    assert figures["mean_branch_accuracy"] == figures["best_branch_accuracy"] == figures["accuracy"]


def test_all_metrics_of_an_ensemble_that_excludes_classes_are_finite():
    branches, labels = random_predictions.branches(4, 40, 2, 5)
    figures = metrics.all_metrics(branches, np.eye(5)[branches[:, 0].argmax(axis=1)], labels)
    assert np.isfinite(list(figures.values())).all()


def test_all_metrics_judge_the_ensemble_that_they_are_given():
    # The ensemble of mean logits is another than that of mean probabilities.
    branches, labels = random_predictions.branches(3, 60, 4, 5)
    ensemble = np.exp(branches.mean(axis=1))
    ensemble /= ensemble.sum(axis=1, keepdims=True)
    figures = metrics.all_metrics(branches, ensemble, labels)
    assert figures["accuracy"] == training_metrics.accuracy(ensemble, labels)
    assert figures["mean_branch_accuracy"] + figures["ambiguity_error"] == pytest.approx(figures["accuracy"])
    gain = figures["mean_branch_negative_log_likelihood"] - figures["negative_log_likelihood"]
    assert figures["ambiguity_negative_log_likelihood"] == pytest.approx(gain)


OF_PROBABILITIES = [
    metrics.top_k_accuracy,
    metrics.brier_score,
    metrics.reliability_curve,
    metrics.equal_mass_calibration_error,
    metrics.classwise_calibration_error,
    metrics.confusion_matrix,
]


@pytest.mark.parametrize("metric", OF_PROBABILITIES)
def test_bad_predictions_are_refused_in_one_line(metric):
    for probabilities, labels, message in [
        (np.zeros([0, 3]), np.zeros(0, int), "at least one image"),
        (np.full([2, 2], 0.5), [0, 2], "from 0 to 1"),
        ([[3.0, -1.0]], [0], "outside 0..1"),
    ]:
        with pytest.raises(InputError, match=message) as error:
            metric(probabilities, labels)
        assert "\n" not in str(error.value)


BRANCHES, ENSEMBLE, LABELS = np.zeros([2, 3, 4]), np.full([2, 4], 0.25), np.array([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.top_k_accuracy(ENSEMBLE, LABELS, k=0), "k is out of range. Received: 0"),
        (lambda: metrics.reliability_curve(ENSEMBLE, LABELS, bins=0), "bins is out of range"),
        (lambda: metrics.reliability_of([0.5], [True], bins=0), "bins is out of range"),
        (lambda: metrics.reliability_of([0.5, 0.5], [True]), r"confidence \[2\], correct bool \[1\]"),
        (lambda: metrics.reliability_of([], np.zeros(0, bool)), "there are none"),
        (lambda: metrics.reliability_of([0.5], [1]), "correct int64"),
        (lambda: metrics.reliability_of([1.5], [True]), "no probabilities"),
        (lambda: metrics.equal_mass_calibration_error(ENSEMBLE, LABELS, bins=1.5), "bins has another type"),
        (lambda: metrics.classwise_calibration_error(ENSEMBLE, LABELS, bins=-1), "bins is out of range"),
        (lambda: metrics.auroc([], [0.5]), r"Received: float64 \[0\]"),
        (lambda: metrics.auroc([[0.5]], [0.5]), r"\[1, 1\]"),
        (lambda: metrics.auroc([0.5], [np.nan]), "not finite"),
        (lambda: metrics.false_positive_rate([0.5], ["a"]), "Received: <U1"),
        (lambda: metrics.false_positive_rate([0.5], [0.5], true_positive_rate=0), "above 0 and at most 1"),
        (lambda: metrics.all_metrics(BRANCHES[0], ENSEMBLE, LABELS), r"pass floats \[N, S, K\]"),
        (lambda: metrics.all_metrics(BRANCHES[:1], ENSEMBLE, LABELS), "branches do not fit"),
        (lambda: metrics.all_metrics(BRANCHES[:, :, :3], ENSEMBLE, LABELS), "branches do not fit"),
        (lambda: metrics.all_metrics(BRANCHES.astype(int), ENSEMBLE, LABELS), "Received: int64"),
        (lambda: metrics.all_metrics(np.log(BRANCHES), ENSEMBLE, LABELS), "in 2 of 2 images, first in image 0"),
        (lambda: metrics.all_metrics(BRANCHES, ENSEMBLE * 9, LABELS), "outside 0..1"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
