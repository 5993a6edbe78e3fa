"""How different the branches of an ensemble are, and what the ensemble gains from it.

Branches are probabilities `[N, S, K]`. What is measured between two branches comes as a symmetric matrix `[S, S]`,
whose diagonal is a branch beside itself; `mean_over_pairs` makes one number of it, for a single branch that of the
branch beside itself: no diversity.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from divco_tf import fields
from divco_tf.analysis.predictions import check_same_images
from divco_tf.errors import InputError
from divco_tf.training import metrics
from divco_tf.training.metrics import checked_predictions, checked_probabilities


def pairwise_disagreement(branch_probabilities: np.ndarray) -> np.ndarray:
    """The share of images to which two branches give different classes, 0..1.

    Args:
      branch_probabilities: `[N, S, K]`.

    Returns:
      float64 `[S, S]`, 0 on the diagonal.

    Raises:
      InputError: shapes, types or values that do not fit, or no image at all (so for every function here).
    """
    classes = checked_probabilities(branch_probabilities, rank=3, shape="[N, S, K]").argmax(axis=2)
    return np.stack([(classes != of_one[:, np.newaxis]).mean(axis=0) for of_one in classes.T])


def pairwise_divergence(branch_probabilities: np.ndarray) -> np.ndarray:
    """The mean over images of the Jensen-Shannon divergence between two branches, in nats: 0 to log 2.

    `training.metrics.disagreement` is that of all branches together.

    Args:
      branch_probabilities: `[N, S, K]`, each row summing to 1.

    Returns:
      float64 `[S, S]`, 0 on the diagonal.
    """
    branches = checked_probabilities(branch_probabilities, rank=3, shape="[N, S, K]")
    divergence = np.zeros([branches.shape[1]] * 2)
    for i, j in zip(*np.triu_indices(len(divergence), k=1), strict=True):
        divergence[i, j] = divergence[j, i] = metrics.disagreement(branches[:, [i, j]]).mean()
    return np.maximum(divergence, 0)  # what rounding leaves of equal branches may be below


def q_statistic(branch_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Yule's Q of two branches being right, -1..1 (Kuncheva and Whitaker 2003, Machine Learning 51).

    (N11 N00 - N01 N10) / (N11 N00 + N01 N10), where N11 counts the images that both have right and N00 those that
    neither has. 1: they err on the same images, 0: independently, -1: never both. Where a branch is right on all
    images or on none, this is 0/0, and counts as 0, or as 1 if the other branch is right on the same images.

    Args:
      branch_probabilities: `[N, S, K]`.
      labels: class numbers `[N]`.

    Returns:
      float64 `[S, S]`, 1 on the diagonal.
    """
    both, neither, one, other = _contingency(_correct(branch_probabilities, labels))
    return _association(both * neither - one * other, both * neither + one * other, differing=one + other)


def error_correlation(branch_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Pearson's correlation of two branches being wrong, -1..1 (phi; rho in Kuncheva and Whitaker 2003).

    Where a branch is right on all images or on none, this is 0/0, and counts as in `q_statistic`.

    Args:
      branch_probabilities: `[N, S, K]`.
      labels: class numbers `[N]`.

    Returns:
      float64 `[S, S]`, 1 on the diagonal.
    """
    both, neither, one, other = _contingency(_correct(branch_probabilities, labels))
    spread = np.sqrt((both + one) * (neither + other)) * np.sqrt((both + other) * (neither + one))
    return _association(both * neither - one * other, spread, differing=one + other)


def mean_over_pairs(matrix: np.ndarray) -> float:
    """The mean of what lies off the diagonal of `[S, S]`; for a single branch its one number."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise InputError(f"The matrix is none of pairs. Received: {list(matrix.shape)}; pass [S, S].")
    pairs = matrix[~np.eye(len(matrix), dtype=bool)] if len(matrix) > 1 else matrix
    return float(pairs.mean())


@dataclasses.dataclass(frozen=True)
class Ambiguity:
    """What averaging gains: the mean of the branches minus the ensemble, 0 for a single branch.

    The decomposition of Krogh and Vedelsby (1995), ensemble = mean member - ambiguity, for two losses. A class's are
    over the images of that class, 0 if there are none.

    Attributes:
      error: of error rates, -1..1; below 0 where the ensemble errs more than its branches do on average.
      error_by_class: float64 `[K]`.
      negative_log_likelihood: of NLLs, in nats, the Jensen gap of Abe et al. 2022 (arXiv 2202.06985): never below 0
        for an ensemble that averages probabilities or logits, unless a branch gives a right class less than the
        smallest probability that `training.metrics.negative_log_likelihood` knows.
      negative_log_likelihood_by_class: float64 `[K]`.
    """

    error: float
    error_by_class: np.ndarray
    negative_log_likelihood: float
    negative_log_likelihood_by_class: np.ndarray


def ambiguity(branch_probabilities: np.ndarray, labels: np.ndarray, *, ensemble: np.ndarray | None = None) -> Ambiguity:
    """How much better the ensemble is than its branches are on average.

    Args:
      branch_probabilities: `[N, S, K]`, each row summing to 1.
      labels: class numbers `[N]`.
      ensemble: its probabilities `[N, K]`; None: the mean of the branches'.
    """
    branches = checked_probabilities(branch_probabilities, rank=3, shape="[N, S, K]")
    ensemble, labels = checked_predictions(branches.mean(axis=1) if ensemble is None else ensemble, labels)
    check_same_images(ensemble, branches)
    wrong = 1.0 - _correct(branches, labels).mean(axis=1) - (ensemble.argmax(axis=1) != labels)
    nats = np.mean([metrics.log_losses(of_one, labels) for of_one in branches.swapaxes(0, 1)], axis=0)
    nats = nats - metrics.log_losses(ensemble, labels)
    of_class = np.bincount(labels, minlength=ensemble.shape[1])
    by_class = [
        np.bincount(labels, weights=gains, minlength=len(of_class)) / np.maximum(of_class, 1) for gains in (wrong, nats)
    ]
    return Ambiguity(float(wrong.mean()), by_class[0], float(nats.mean()), by_class[1])


def linear_cka(features: Sequence[np.ndarray]) -> np.ndarray:
    """Linear centred kernel alignment of features, 0..1 (Kornblith et al. 2019, arXiv 1905.00414, section 3).

    It does not change when a branch's features are rotated, shifted or scaled as a whole. It is biased upwards
    unless there are many more images than features.

    Args:
      features: of each branch, floats `[N, D]` of the same N images; D may differ. `[S, N, D]` does as well.

    Returns:
      float64 `[S, S]`, 1 on the diagonal; 0 beside a branch whose features are the same for all images.
    """
    features = [_centred(of_one) for of_one in features]
    images = {len(of_one) for of_one in features}
    if len(images) != 1:
        raise InputError(
            f"Features are not of the same images. Received: {sorted(images)} images; pass [N, D] for each branch."
        )
    similarity = np.eye(len(features))
    norms = [_product_norm(of_one, of_one) for of_one in features]
    for i, j in zip(*np.triu_indices(len(features), k=1), strict=True):
        norm = np.sqrt(norms[i] * norms[j])
        similarity[i, j] = similarity[j, i] = _product_norm(features[i], features[j]) / norm if norm else 0.0
    return similarity


def collapsed(branch_probabilities: np.ndarray, labels: np.ndarray, *, threshold: float = 0.1) -> bool:
    """Whether the branches have become one network: they differ little, measured by how much they err and doubt.

    Both must hold: mean pairwise disagreement is at most `threshold` times the branches' mean error, and mean
    pairwise Jensen-Shannon divergence at most `threshold` times the branches' mean entropy. Disagreement over error is
    the diversity of Fort et al. 2019 (arXiv 1912.02757): 0 for equal networks, near 1 for networks
    from independent initial values. Divergence decides where nobody errs.

    Args:
      branch_probabilities: `[N, S, K]`, each row summing to 1.
      labels: class numbers `[N]`.
      threshold: 0..1.

    Returns:
      False for a single branch.
    """
    threshold = fields.checked(threshold, fields.Share, "threshold")
    branches = checked_probabilities(branch_probabilities, rank=3, shape="[N, S, K]")
    error = 1.0 - _correct(branches, labels).mean()
    disagreement = mean_over_pairs(pairwise_disagreement(branches))
    divergence = mean_over_pairs(pairwise_divergence(branches))
    alike = disagreement <= threshold * error and divergence <= threshold * metrics.entropy(branches).mean()
    return bool(branches.shape[1] > 1 and alike)


def _correct(branch_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Which branches are right on which images, float64 [N, S] of 0 and 1."""
    branches = checked_probabilities(branch_probabilities, rank=3, shape="[N, S, K]")
    _, labels = checked_predictions(branches[:, 0], labels)
    return (branches.argmax(axis=2) == labels[:, np.newaxis]).astype(np.float64)


def _contingency(correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """N11, N00, N10 and N01 of each pair, [S, S] each; whole numbers in float64, so that products do not overflow."""
    wrong = 1 - correct
    return correct.T @ correct, wrong.T @ wrong, correct.T @ wrong, wrong.T @ correct


def _association(numerator: np.ndarray, denominator: np.ndarray, *, differing: np.ndarray) -> np.ndarray:
    """Their quotient; 1 where no image differs, and 0 where the quotient is not defined otherwise."""
    quotient = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
    return np.where(differing == 0, 1.0, quotient)


def _centred(features: np.ndarray) -> np.ndarray:
    """Features [N, D] of mean 0 and norm 1, whatever their scale; zeros if those of all images are the same."""
    features = np.asarray(features)
    if features.ndim != 2 or features.size == 0 or features.dtype.kind not in "fiu" or not np.isfinite(features).all():
        raise InputError(
            "Features have the wrong shape or type, are not finite, or there are none. Received: "
            f"{features.dtype} {list(features.shape)}; pass finite floats [N, D] for each branch."
        )
    features = features.astype(np.float64)
    features /= np.abs(features).max() or 1  # squares neither overflow nor vanish
    features = np.where(np.ptp(features, axis=0) > 0, features - features.mean(axis=0), 0)
    return features / (np.linalg.norm(features) or 1)


def _product_norm(a: np.ndarray, b: np.ndarray) -> float:
    """||a' b||^2 of Frobenius, for [N, D] and [N, E], by whichever of both forms is the smaller."""
    if len(a) < min(a.shape[1], b.shape[1]):
        return float(np.sum((a @ a.T) * (b @ b.T)))
    return float(np.sum((a.T @ b) ** 2))
