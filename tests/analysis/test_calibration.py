"""Temperatures against another minimiser, against closed forms, and where the best would be 0 or infinite."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.analysis import calibration
from divco_tf.errors import InputError
from divco_tf.training import metrics
from tests.analysis import random_predictions

SEEDS = st.integers(0, 10_000)
quickly = settings(deadline=None, max_examples=20)
LOWEST, HIGHEST = calibration.TEMPERATURES


def mean_loss(logits, labels, temperature):
    """The negative log-likelihood of branches [N, S, K] at a temperature."""
    logs = scipy.special.log_softmax(logits / temperature, axis=2)[np.arange(len(labels)), :, labels]
    return -np.mean(scipy.special.logsumexp(logs, axis=1) - np.log(logits.shape[1]))


@quickly
@given(seed=SEEDS, scale=st.sampled_from([0.05, 1.0, 30.0]))
def test_temperature_of_an_ensemble_is_the_root_of_the_losses_derivative(seed, scale):
    logs, labels = random_predictions.branches(seed, 100, 1, 4)
    logits = scale * logs[:, 0]

    def derivative(inverse):  # of the loss in 1/T: the mean of the logits' expectation minus the right class's logit
        expected = np.sum(scipy.special.softmax(inverse * logits, axis=1) * logits, axis=1)
        return np.mean(expected - logits[np.arange(100), labels])

    inverse = scipy.optimize.brentq(derivative, 1 / HIGHEST, 1 / LOWEST, xtol=1e-14)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(1 / inverse, rel=1e-6)


@quickly
@given(seed=SEEDS, num_branches=st.integers(1, 4), scale=st.sampled_from([0.1, 1.0, 10.0]))
def test_no_temperature_of_a_fine_grid_does_better(seed, num_branches, scale):
    logs, labels = random_predictions.branches(seed, 60, num_branches, 4)
    logits = scale * logs
    found = calibration.fit_temperature(logits, labels)
    assert LOWEST <= found <= HIGHEST
    best = min(mean_loss(logits, labels, temperature) for temperature in np.geomspace(LOWEST, HIGHEST, 601))
    assert mean_loss(logits, labels, found) <= best + 1e-12


@quickly
@given(seed=SEEDS, factor=st.sampled_from([0.2, 3.0]), num_branches=st.integers(1, 3))
def test_temperature_scales_with_the_logits_and_probabilities_do_not(seed, factor, num_branches):
    logits, labels = random_predictions.branches(seed, 60, num_branches, 4)
    temperature = calibration.fit_temperature(logits, labels)
    scaled = calibration.fit_temperature(factor * logits, labels)
    assert scaled == pytest.approx(factor * temperature, rel=1e-5)
    np.testing.assert_allclose(
        calibration.apply_temperature(factor * logits, scaled),
        calibration.apply_temperature(logits, temperature),
        atol=1e-6,
    )


def test_temperature_of_two_classes_in_closed_form():
    # Logits (x, 0), right in a share q of images: softmax(x / T) = q at T = x / log(q / (1 - q)).
    logits = np.tile([2.0, 0.0], [10, 1])
    labels = np.array([0] * 8 + [1] * 2)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(2 / np.log(0.8 / 0.2), rel=1e-7)


def test_temperature_is_bounded_where_all_or_too_few_images_are_right():
    logits = 0.01 * np.eye(3)
    assert calibration.fit_temperature(logits, [0, 1, 2]) == pytest.approx(LOWEST)
    assert calibration.fit_temperature(logits, [1, 2, 0]) == pytest.approx(HIGHEST)
    # Where every temperature is as good, none is applied.
    assert calibration.fit_temperature(np.zeros([3, 3]), [0, 1, 2]) == 1
    assert calibration.fit_temperature(1e6 * np.eye(3), [0, 1, 2]) == 1


@pytest.mark.parametrize("num_branches", [1, 3])
@pytest.mark.parametrize("scale", [1e-30, 1e4, 1e30])
def test_extreme_logits_give_a_temperature_within_the_bounds_and_probabilities(scale, num_branches):
    logs, labels = random_predictions.branches(0, 50, num_branches, 4)
    logits = (scale * logs).astype(np.float32)
    with np.errstate(over="raise", invalid="raise"):
        temperature = calibration.fit_temperature(logits, labels)
        probabilities = calibration.apply_temperature(logits, temperature)
        likelihood = calibration.calibrated_log_likelihood(logits, labels)
    assert LOWEST <= temperature <= HIGHEST
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert np.isfinite(likelihood)


def test_branches_are_averaged_after_their_temperature():
    logits, _ = random_predictions.branches(0, 20, 3, 4)
    expected = scipy.special.softmax(logits / 1.7, axis=2).mean(axis=1)
    np.testing.assert_allclose(calibration.apply_temperature(logits, 1.7), expected, atol=1e-15)
    np.testing.assert_allclose(
        calibration.apply_temperature(logits[:, 0], 1.7), scipy.special.softmax(logits[:, 0] / 1.7, axis=1), atol=1e-15
    )


def test_pooling_before_or_after_is_the_same_for_one_branch_only():
    logits, labels = random_predictions.branches(1, 200, 3, 4, common=0)
    pooled = np.log(calibration.apply_temperature(logits, 1.0))
    assert calibration.fit_temperature(logits[:, :1], labels) == calibration.fit_temperature(logits[:, 0], labels)
    # Averages are less sure than their branches, so an ensemble needs a lower temperature than its branches.
    assert calibration.fit_temperature(pooled, labels) < calibration.fit_temperature(logits[:, 0], labels)
    assert calibration.fit_temperature(logits, labels) != pytest.approx(
        calibration.fit_temperature(pooled, labels), rel=1e-3
    )


@pytest.mark.parametrize("images", [40, 41])
def test_calibrated_likelihood_is_that_of_each_half_at_the_others_temperature(images):
    logs, labels = random_predictions.branches(2, images, 1, 4)
    logits = 3 * logs[:, 0]
    order = np.random.RandomState(7).permutation(images)
    first, second = order[: (images + 1) // 2], order[(images + 1) // 2 :]
    total = 0.0
    for fitted, judged in [(first, second), (second, first)]:
        best = scipy.optimize.minimize_scalar(
            lambda log: mean_loss(logits[fitted, np.newaxis], labels[fitted], np.exp(log)),  # noqa: B023
            bounds=(-5, 5),
            method="bounded",
            options={"xatol": 1e-9},
        )
        total -= len(judged) * mean_loss(logits[judged, np.newaxis], labels[judged], np.exp(best.x))
    likelihood = calibration.calibrated_log_likelihood(logits, labels, repeats=1, seed=7)
    assert likelihood == pytest.approx(total / images, abs=1e-7)


def test_calibrated_likelihood_does_not_depend_on_the_networks_own_temperature_and_repeats_itself():
    logits, labels = random_predictions.branches(3, 100, 2, 4)
    likelihood = calibration.calibrated_log_likelihood(logits, labels)
    assert calibration.calibrated_log_likelihood(5 * logits, labels) == pytest.approx(likelihood, abs=1e-6)
    assert calibration.calibrated_log_likelihood(logits, labels) == likelihood
    assert calibration.calibrated_log_likelihood(logits, labels, seed=1) != likelihood


def test_calibrated_likelihood_is_not_that_of_a_temperature_fitted_to_the_same_images():
    logits, labels = random_predictions.branches(4, 20, 1, 10)
    own = calibration.apply_temperature(logits, calibration.fit_temperature(logits, labels))
    likelihood = calibration.calibrated_log_likelihood(logits, labels, repeats=50)
    assert likelihood < -metrics.negative_log_likelihood(own, labels)


def test_deep_ensemble_equivalent_is_found_by_linear_interpolation():
    curve = [-1.0, -0.8, -0.7]
    for likelihood, told in [(-0.9, "1.50"), (-0.8, "2.00"), (-0.775, "2.25"), (-0.7, "3.00"), (-1.0, "1.00")]:
        equivalent = calibration.deep_ensemble_equivalent(likelihood, curve)
        assert (str(equivalent), equivalent.relation) == (told, "=")


def test_deep_ensemble_equivalent_outside_the_curve_is_a_bound():
    assert str(calibration.deep_ensemble_equivalent(-1.1, [-1.0, -0.8])) == "< 1"
    assert str(calibration.deep_ensemble_equivalent(-0.7, [-1.0, -0.8])) == "> 2"


def test_deep_ensemble_equivalent_is_the_smallest_where_the_curve_falls_back():
    assert calibration.deep_ensemble_equivalent(-0.9, [-1.0, -0.8, -0.95, -0.7]).members == pytest.approx(1.5)
    assert str(calibration.deep_ensemble_equivalent(-0.75, [-1.0, -0.8, -0.95])) == "> 3"


LOGITS, LABELS = np.zeros([2, 3, 4]), np.array([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: calibration.fit_temperature(LOGITS[0, 0], LABELS), r"pass floats \[N, K\] or \[N, S, K\]"),
        (lambda: calibration.fit_temperature(LOGITS[:0], LABELS[:0]), "at least one image"),
        (lambda: calibration.fit_temperature(LOGITS, [0, 4]), "from 0 to 3"),
        (lambda: calibration.fit_temperature(LOGITS, [0]), r"labels int64 \[1\]"),
        (lambda: calibration.fit_temperature(LOGITS + [np.inf, 0, 0, 0], LABELS), "in 2 of 2 images"),  # noqa: RUF005
        (lambda: calibration.fit_temperature(LOGITS.astype(int), LABELS), "Received: int64"),
        (lambda: calibration.apply_temperature(LOGITS, 0.0), "temperature is out of range"),
        (lambda: calibration.apply_temperature(LOGITS, float("nan")), "temperature"),
        (lambda: calibration.calibrated_log_likelihood(LOGITS[:1], LABELS[:1]), "Received: 1 image"),
        (lambda: calibration.calibrated_log_likelihood(LOGITS, LABELS, repeats=0), "repeats is out of range"),
        (lambda: calibration.calibrated_log_likelihood(LOGITS, LABELS, seed=-1), "seed is out of range"),
        (lambda: calibration.deep_ensemble_equivalent(-1.0, []), r"Received: float64 \[0\]"),
        (lambda: calibration.deep_ensemble_equivalent(-1.0, [-1.0, np.nan]), "pass finite"),
        (lambda: calibration.deep_ensemble_equivalent("a", [-1.0]), "log_likelihood has another type"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
