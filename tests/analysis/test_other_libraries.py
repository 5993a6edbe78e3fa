"""What other libraries make of the same predictions: values that they gave once, kept here.

torchmetrics 1.9.0, torch-uncertainty 0.13.0, netcal 1.4.0, DESlib 0.3.7, MAPIE 1.6.0 and TorchCP 1.2.1; some compute in
float32. None of them is needed by us.
"""

import numpy as np
import pytest

from divco_tf.analysis import calibration, conformal, diversity, metrics, predictions, selective
from divco_tf.training import metrics as training_metrics

FLOAT32 = 1e-7


def waves(images=150, branches=3, classes=5):
    """Predictions that no random generator makes: log-probabilities [N, S, K], and labels [N]."""
    labels = np.arange(images) * 7 % classes
    right = labels[:, np.newaxis, np.newaxis] == np.arange(classes)
    noise = np.sin(np.arange(images * branches * classes, dtype=np.float64) ** 2).reshape(images, branches, classes)
    logits = 2 * noise + (1.2 + 2 * np.sin(np.arange(images))[:, np.newaxis, np.newaxis]) * right
    return logits - np.log(np.exp(logits).sum(axis=2, keepdims=True)), labels


LOGS, LABELS = waves()
BRANCHES = np.exp(LOGS)
ENSEMBLE = BRANCHES.mean(axis=1)
CONFIDENCE, WRONG = predictions.confidence(ENSEMBLE), ENSEMBLE.argmax(axis=1) != LABELS
OTHER = predictions.confidence(calibration.apply_temperature(LOGS[::-1][:90], 1 / 0.6))
HELD_OUT, HELD_OUT_LABELS = LOGS[::3], LABELS[::3]


def test_torchmetrics_agrees():
    assert metrics.top_k_accuracy(ENSEMBLE, LABELS, k=2) == pytest.approx(0.6800000071525574, abs=FLOAT32)
    error = training_metrics.expected_calibration_error(ENSEMBLE, LABELS)
    assert error == pytest.approx(0.20474553108215332, abs=FLOAT32)
    assert metrics.auroc(CONFIDENCE, OTHER) == pytest.approx(0.6393333673477173, abs=FLOAT32)
    confusion = [[17, 5, 1, 4, 3], [3, 18, 4, 2, 3], [5, 1, 17, 3, 4], [5, 6, 2, 14, 3], [4, 3, 2, 2, 19]]
    np.testing.assert_array_equal(metrics.confusion_matrix(ENSEMBLE, LABELS), confusion)


def test_torch_uncertainty_agrees():
    assert metrics.brier_score(ENSEMBLE, LABELS) == pytest.approx(0.5631972613911364, abs=1e-14)
    nll = training_metrics.negative_log_likelihood(ENSEMBLE, LABELS)
    assert nll == pytest.approx(1.1816173537384917, abs=1e-14)
    assert metrics.classwise_calibration_error(ENSEMBLE, LABELS) == pytest.approx(0.08972792198309895, abs=1e-14)
    assert metrics.equal_mass_calibration_error(ENSEMBLE, LABELS) == pytest.approx(0.20767588913440704, abs=FLOAT32)
    assert metrics.false_positive_rate(CONFIDENCE, OTHER) == pytest.approx(0.8777777552604675, abs=FLOAT32)
    assert selective.coverage_at_risk(CONFIDENCE, WRONG) == pytest.approx(0.35333332419395447, abs=FLOAT32)
    assert training_metrics.disagreement(BRANCHES).mean() == pytest.approx(0.2708135678775778, abs=1e-14)
    disagreement = diversity.mean_over_pairs(diversity.pairwise_disagreement(BRANCHES))
    assert disagreement == pytest.approx(0.6333332824707031, abs=FLOAT32)


def test_torch_uncertainty_takes_the_area_under_the_same_curve_by_trapezoids():
    # Between coverages 1/N and 1, divided by their distance, where ours is the mean over all N.
    curve = selective.risk_coverage_curve(CONFIDENCE, WRONG)
    area = np.trapezoid(curve.risk, curve.coverage) / (1 - 1 / len(LABELS))
    assert area == pytest.approx(0.17255070002928674, abs=1e-8)
    assert selective.aurc(CONFIDENCE, WRONG) == pytest.approx(area, abs=1 / len(LABELS))


def test_netcal_agrees():
    error = training_metrics.expected_calibration_error(ENSEMBLE, LABELS)
    assert error == pytest.approx(0.20474552989284814, abs=1e-14)
    assert metrics.equal_mass_calibration_error(ENSEMBLE, LABELS) == pytest.approx(0.20767586245102732, abs=1e-14)
    assert metrics.classwise_calibration_error(ENSEMBLE, LABELS) == pytest.approx(0.08972792198309894, abs=1e-14)


def test_deslib_agrees():
    pairs = np.triu_indices(3, k=1)
    q, correlation = (measure(BRANCHES, LABELS) for measure in (diversity.q_statistic, diversity.error_correlation))
    np.testing.assert_allclose(q[pairs], [0.5010309278350515, 0.38888888888888895, 0.6046213093709885], atol=1e-14)
    expected = [0.2640487121236242, 0.19776487903909304, 0.33547008547008544]
    np.testing.assert_allclose(correlation[pairs], expected, atol=1e-14)


def test_pytorchs_lbfgs_finds_the_same_temperatures():
    ensemble = np.log(np.exp(HELD_OUT).mean(axis=1))
    fitted = calibration.fit_temperature(ensemble, HELD_OUT_LABELS)
    assert fitted == pytest.approx(0.6940026804228073, abs=1e-7)
    assert calibration.fit_temperature(HELD_OUT, HELD_OUT_LABELS) == pytest.approx(0.8187257876763724, abs=1e-7)


def test_mapie_and_torchcp_agree():
    held_out = np.exp(HELD_OUT).mean(axis=1)
    threshold = conformal.fit_threshold(held_out, HELD_OUT_LABELS)
    assert threshold == pytest.approx(0.8810724662970063, abs=1e-14)  # MAPIE
    sets = conformal.prediction_sets(ENSEMBLE, threshold)
    assert conformal.mean_size(sets) == pytest.approx(3.0933333333333333)
    assert conformal.coverage(sets, LABELS) == pytest.approx(0.86)
    assert conformal.SCORES["aps"](ENSEMBLE).mean() == pytest.approx(
        0.7898136158714958, abs=1e-14
    )  # TorchCP, not randomised
