"""How good predictions are, beyond what training writes (`training.metrics`); `all_metrics` is both and diversity."""

import dataclasses
from typing import Annotated

import numpy as np

from divco_tf import fields
from divco_tf.analysis import calibration, diversity, predictions, selective
from divco_tf.errors import InputError
from divco_tf.training import metrics
from divco_tf.training.metrics import bins_of_equal_width, checked_predictions

_ShareAbove0 = Annotated[float, fields.Within(above=0, most=1)]


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, *, k: int = 5) -> float:
    """The share of images whose right class is among the k most probable ones; 1 where there are no more than k.

    Of classes that tie for the last places, each counts with the chance that it has if chance decides: the result does
    not depend on how classes are numbered. (`training.metrics.accuracy` takes the first.)

    Args:
      probabilities: `[N, K]`.
      labels: class numbers `[N]`.
      k: 1 or more.

    Raises:
      InputError: shapes, types or values that do not fit, or no image at all (so for every metric here).
    """
    k = fields.checked(k, fields.Positive, "k")
    probabilities, labels = checked_predictions(probabilities, labels)
    of_right_class = probabilities[np.arange(len(labels)), labels, np.newaxis]
    above = (probabilities > of_right_class).sum(axis=1)
    tied = (probabilities == of_right_class).sum(axis=1)
    return float(np.clip((k - above) / tied, 0, 1).mean())


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean over images of the squared distance to the right answer, summed over classes: 0..2 (Brier 1950).

    Args:
      probabilities: `[N, K]`, each row summing to 1.
      labels: class numbers `[N]`.
    """
    probabilities, labels = checked_predictions(probabilities, labels)
    return float(np.mean(np.sum((probabilities - _one_hot(probabilities, labels)) ** 2, axis=1)))


@dataclasses.dataclass(frozen=True)
class ReliabilityCurve:
    """How sure and how right an ensemble is, a number for each bin that holds images.

    Attributes:
      confidence: mean probability of the most probable class, float64 `[M]`, ascending.
      accuracy: float64 `[M]`.
      count: images, int `[M]`.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray

    @property
    def calibration_error(self) -> float:
        """The mean over images of the distance between their bin's confidence and accuracy, 0..1."""
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.count))


def reliability_curve(
    probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15, equal_mass: bool = False
) -> ReliabilityCurve:
    """Accuracy against confidence, as reliability diagrams show it (Guo et al. 2017, arXiv 1706.04599, section 2).

    Args:
      probabilities: `[N, K]`, each row summing to 1.
      labels: class numbers `[N]`.
      bins: how many at most; empty ones are left out.
      equal_mass: bins of equally many images instead of equal width. Images of the same confidence share a bin, so that
        the result does not depend on the order of images.
    """
    probabilities, labels = checked_predictions(probabilities, labels)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return reliability_of(confidence, correct, bins=bins, equal_mass=equal_mass)


def reliability_of(
    confidence: np.ndarray, correct: np.ndarray, *, bins: int = 15, equal_mass: bool = False
) -> ReliabilityCurve:
    """`reliability_curve` of answers whose probabilities were not kept.

    Args:
      confidence: the largest probability of each image `[N]`, 0..1.
      correct: whether each is answered rightly, bool `[N]`.
      bins, equal_mass: as there.
    """
    bins = fields.checked(bins, fields.Positive, "bins")
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct)
    fits = confidence.ndim == 1 and confidence.shape == correct.shape and confidence.size and correct.dtype == bool
    if not fits or not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise InputError(
            "Answers have the wrong shape or type, are no probabilities, or there are none. Received: confidence "
            f"{list(confidence.shape)}, correct {correct.dtype} {list(correct.shape)}; pass numbers 0..1 and bools [N]."
        )
    bin_of_image = _bins_of_equal_mass(confidence, bins) if equal_mass else bins_of_equal_width(confidence, bins)
    count = np.bincount(bin_of_image, minlength=bins)
    mean_confidence, accuracy = (
        np.bincount(bin_of_image, weights=values, minlength=bins)[count > 0] / count[count > 0]
        for values in (confidence, correct)
    )
    return ReliabilityCurve(mean_confidence, accuracy, count[count > 0])


def equal_mass_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> float:
    """`training.metrics.expected_calibration_error` with bins of equally many images (see `reliability_curve`), 0..1.

    Most confidences of a trained network are near 1, in few of the bins of equal width (Nixon et al. 2019, arXiv
    1904.01685).
    """
    return reliability_curve(probabilities, labels, bins=bins, equal_mass=True).calibration_error


def classwise_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> float:
    """The mean over classes of the calibration error of each class's probability, over all images: 0..1.

    Bins are of equal width. Kull et al. 2019 (arXiv 1910.12656), there "classwise-ECE".

    Args:
      probabilities: `[N, K]`, each row summing to 1.
      labels: class numbers `[N]`.
      bins: how many a class.
    """
    bins = fields.checked(bins, fields.Positive, "bins")
    probabilities, labels = checked_predictions(probabilities, labels)
    num_classes = probabilities.shape[1]
    bin_of_class = bins_of_equal_width(probabilities, bins) + bins * np.arange(num_classes)
    gaps = np.bincount(bin_of_class.ravel(), weights=(_one_hot(probabilities, labels) - probabilities).ravel())
    return float(np.abs(gaps).sum() / probabilities.size)


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many images of class i (row) are taken for class j (column), int64 `[K, K]`."""
    import sklearn.metrics

    probabilities, labels = checked_predictions(probabilities, labels)
    classes = np.arange(probabilities.shape[1])
    return sklearn.metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=classes)


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """The chance that an image of the training distribution scores higher than one of another; ties count half.

    Args:
      inside: scores of images of the distribution `[N]`, higher meaning surer: `predictions.confidence`, for instance.
      outside: scores of other images `[M]`.

    Returns:
      0..1, and 0.5 for a score that tells nothing.
    """
    import sklearn.metrics

    return float(sklearn.metrics.roc_auc_score(*_detection(inside, outside)))


def false_positive_rate(inside: np.ndarray, outside: np.ndarray, *, true_positive_rate: float = 0.95) -> float:
    """The share of other images taken for images of the distribution when so many of those are (FPR at 95 % TPR).

    The threshold is the highest score that at least `true_positive_rate` of `inside` reach (Liang et al. 2018, arXiv
    1706.02690).

    Args:
      inside, outside: as for `auroc`.
      true_positive_rate: above 0, at most 1.
    """
    import sklearn.metrics

    share = fields.checked(true_positive_rate, _ShareAbove0, "true_positive_rate")
    false, true, _ = sklearn.metrics.roc_curve(*_detection(inside, outside), drop_intermediate=False)
    return float(false[np.argmax(true >= share)])


def all_metrics(branches: np.ndarray, ensemble: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> dict[str, float]:
    """Everything that is known of predictions on one set of images, by the names of the functions that say it.

    Of pairs of branches it is the mean, and the calibrated log-likelihood is the ensemble's (pool, then calibrate).

    Args:
      branches: their logits or log-probabilities, floats `[N, S, K]`.
      ensemble: its probabilities `[N, K]`, each row summing to 1.
      labels: class numbers `[N]`, two images or more.
      bins: of the calibration errors.

    Returns:
      Python floats, all finite. The diversity of a single branch is none: see `diversity`.

    Raises:
      InputError: shapes, types or values that do not fit, or no image at all.
    """
    ensemble, labels = checked_predictions(ensemble, labels)
    branches = np.exp(predictions.log_probabilities(branches, rank=3, shape="[N, S, K]"))
    predictions.check_same_images(ensemble, branches)
    wrong = ensemble.argmax(axis=1) != labels
    confidence = predictions.confidence(ensemble)
    of_ensemble = {
        "accuracy": metrics.accuracy(ensemble, labels),
        "top_5_accuracy": top_k_accuracy(ensemble, labels, k=5),
        "negative_log_likelihood": metrics.negative_log_likelihood(ensemble, labels),
        "calibrated_log_likelihood": calibration.calibrated_log_likelihood(predictions.logarithms(ensemble), labels),
        "brier_score": brier_score(ensemble, labels),
        "expected_calibration_error": metrics.expected_calibration_error(ensemble, labels, bins=bins),
        "equal_mass_calibration_error": equal_mass_calibration_error(ensemble, labels, bins=bins),
        "classwise_calibration_error": classwise_calibration_error(ensemble, labels, bins=bins),
        "aurc": selective.aurc(confidence, wrong),
        "excess_aurc": selective.excess_aurc(confidence, wrong),
        "coverage_at_risk_0.05": selective.coverage_at_risk(confidence, wrong, risk=0.05),
    }
    return of_ensemble | _branch_metrics(branches, ensemble, labels)


def _branch_metrics(branches: np.ndarray, ensemble: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    each = branches.swapaxes(0, 1)
    accuracies = [metrics.accuracy(of_one, labels) for of_one in each]
    gain = diversity.ambiguity(branches, labels, ensemble=ensemble)
    pairs = {
        "pairwise_disagreement": diversity.pairwise_disagreement(branches),
        "pairwise_divergence": diversity.pairwise_divergence(branches),
        "q_statistic": diversity.q_statistic(branches, labels),
        "error_correlation": diversity.error_correlation(branches, labels),
    }
    return {
        "mean_branch_accuracy": float(np.mean(accuracies)),
        "best_branch_accuracy": max(accuracies),
        "worst_branch_accuracy": min(accuracies),
        "mean_branch_negative_log_likelihood": float(
            np.mean([metrics.negative_log_likelihood(of_one, labels) for of_one in each])
        ),
        "disagreement": float(np.maximum(metrics.disagreement(branches), 0).mean()),
        **{name: diversity.mean_over_pairs(matrix) for name, matrix in pairs.items()},
        "ambiguity_error": gain.error,
        "ambiguity_negative_log_likelihood": gain.negative_log_likelihood,
        "collapsed": float(diversity.collapsed(branches, labels)),
    }


def _one_hot(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return labels[:, np.newaxis] == np.arange(probabilities.shape[1])


def _bins_of_equal_mass(values: np.ndarray, bins: int) -> np.ndarray:
    """In which bin, from 0, each value lies, by its place among the sorted ones; equal values by their middle place."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count + 1) / 2
    return np.floor(middle * bins / len(values)).astype(int)[group]


def _detection(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each image is of the distribution, and its score, as scikit-learn takes them."""
    scores = [np.asarray(values) for values in (inside, outside)]
    for values in scores:
        if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise InputError(
                "Scores have the wrong shape or type, are not finite, or there are none. Received: "
                f"{values.dtype} {list(values.shape)}; pass finite numbers [N] for both."
            )
    return np.repeat([1, 0], [len(values) for values in scores]), np.concatenate(scores).astype(np.float64)
