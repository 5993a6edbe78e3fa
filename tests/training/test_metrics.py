"""Metrics against values worked out by hand, against scikit-learn, and against the losses."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.errors import InputError
from divco_tf.training import losses, metrics


def random_predictions(seed, *shape):
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=shape)
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=-1, keepdims=True), rng.integers(0, shape[-1], shape[0])


def test_accuracy_counts_right_predictions():
    probabilities = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    assert metrics.accuracy(probabilities, [0, 1, 1]) == pytest.approx(2 / 3)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_accuracy_and_likelihood_are_scikit_learns(seed):
    probabilities, labels = random_predictions(seed, 20, 4)
    predicted = probabilities.argmax(axis=1)
    assert metrics.accuracy(probabilities, labels) == pytest.approx(sklearn.metrics.accuracy_score(labels, predicted))
    expected = sklearn.metrics.log_loss(labels, probabilities, labels=range(4))
    assert metrics.negative_log_likelihood(probabilities, labels) == pytest.approx(expected)


def test_likelihood_of_an_impossible_class_is_finite():
    for dtype in (np.float16, np.float32, np.float64):
        nll = metrics.negative_log_likelihood(np.array([[1, 0]], dtype), [1])
        assert nll == pytest.approx(87.34, abs=0.01)


def test_calibration_error_by_hand():
    # Bins of width 0.5: one image in (0, 0.5], three in (0.5, 1].
    probabilities = np.array([[0.4, 0.3, 0.3], [0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.1, 0.7, 0.2]])
    labels = np.array([0, 0, 1, 1])
    expected = 1 / 4 * abs(1 - 0.4) + 3 / 4 * abs(2 / 3 - (0.9 + 0.8 + 0.7) / 3)
    assert metrics.expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(expected)


def test_bins_are_closed_on_the_right():
    # 0.5 belongs to the first of two bins, where it is alone and wrong.
    probabilities, labels = np.array([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]]), np.array([1, 0])
    assert metrics.expected_calibration_error(probabilities, labels, bins=2) == pytest.approx((0.5 + 0.25) / 2)


def test_calibration_error_is_zero_for_right_certainty_and_one_for_wrong_certainty():
    certain = np.eye(3)
    assert metrics.expected_calibration_error(certain, [0, 1, 2]) == 0
    assert metrics.expected_calibration_error(certain, [1, 2, 0]) == 1


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), bins=st.integers(1, 30))
def test_calibration_error_lies_between_the_overall_gap_and_one(seed, bins):
    probabilities, labels = random_predictions(seed, 50, 3)
    gap = abs(metrics.accuracy(probabilities, labels) - probabilities.max(axis=1).mean())
    error = metrics.expected_calibration_error(probabilities, labels, bins=bins)
    assert gap - 1e-12 <= error <= 1
    if bins == 1:
        assert error == pytest.approx(gap)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), branches=st.integers(1, 4))
def test_disagreement_is_the_cotraining_divergence(seed, branches):
    probabilities, _ = random_predictions(seed, 6, branches, 5)
    np.testing.assert_allclose(
        metrics.disagreement(probabilities), losses.jensen_shannon(np.log(probabilities)), atol=1e-12
    )


def test_disagreement_of_certain_branches_is_log_s():
    np.testing.assert_allclose(metrics.disagreement(np.eye(4)[np.newaxis]), [np.log(4)])


@pytest.mark.parametrize(
    "metric", [metrics.accuracy, metrics.negative_log_likelihood, metrics.expected_calibration_error]
)
@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros([0, 3]), np.zeros(0, int), "at least one image"),
        (np.full([2, 2, 2], 0.5), [0, 1], r"\[2, 2, 2\]"),
        (np.full([2, 2], 0.5), [0, 1, 1], r"labels int64 \[3\]"),
        (np.full([2, 2], 0.5), [[1, 0], [0, 1]], "one class number"),
        (np.full([2, 2], 0.5), [0.0, 1.0], "labels float64"),
        (np.full([2, 2], 0.5), [0, 2], "from 0 to 1"),
        (np.full([2, 2], 0.5), [-1, 0], "labels -1 to 0"),
        ([[3.0, -1.0]], [0], "outside 0..1"),
        ([[np.nan, 0.5]], [0], "outside 0..1"),
    ],
)
def test_bad_input_is_refused_in_one_line(metric, probabilities, labels, message):
    with pytest.raises(InputError, match=message) as error:
        metric(probabilities, labels)
    assert "\n" not in str(error.value)


def test_bad_bins_and_branches_are_refused():
    with pytest.raises(InputError, match="Received: 0"):
        metrics.expected_calibration_error([[0.5, 0.5]], [0], bins=0)
    with pytest.raises(InputError, match=r"\[N, S, K\]"):
        metrics.disagreement(np.full([2, 2], 0.5))
