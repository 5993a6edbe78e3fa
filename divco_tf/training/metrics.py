"""What a trained ensemble is judged by: numpy functions of probabilities, over a whole set of images at once."""

import numpy as np

from divco_tf.errors import InputError

SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""What a probability of 0 counts as in logarithms."""


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose most probable class is the right one.

    Args:
      probabilities: `[N, K]`.
      labels: class numbers `[N]`.

    Raises:
      InputError: shapes, types or values that do not fit, or no image at all (so for every metric here).
    """
    probabilities, labels = checked_predictions(probabilities, labels)
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def negative_log_likelihood(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p(right class), in nats.

    A probability of 0 counts as the smallest normal float32, 1.2e-38 (87.3 nats): the result stays finite,
    and the same whether probabilities underflowed before they came here or not.

    Args:
      probabilities: `[N, K]`, each row summing to 1.
      labels: class numbers `[N]`.
    """
    return float(np.mean(log_losses(probabilities, labels)))


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each image's part of `negative_log_likelihood`, float64 `[N]`."""
    probabilities, labels = checked_predictions(probabilities, labels)
    of_right_class = probabilities[np.arange(len(labels)), labels]
    return -np.log(np.maximum(of_right_class, SMALLEST_PROBABILITY))


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy (ECE; Guo et al. 2017, arXiv 1706.04599, section 2).

    Images are put into `bins` bins of equal width by the probability of their most probable class, bin m
    holding ((m - 1) / bins, m / bins]; the result is the mean over images of |accuracy - mean confidence|
    of their bin.

    Args:
      probabilities: `[N, K]`, each row summing to 1.
      labels: class numbers `[N]`.
      bins: how many; the paper and most others take 15.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise InputError(f"The number of bins is no positive whole number. Received: {bins!r}; pass 15, for instance.")
    probabilities, labels = checked_predictions(probabilities, labels)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    gaps = np.bincount(bins_of_equal_width(confidence, bins), weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def disagreement(branch_probabilities: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence between the branches' predictions, in nats: 0 (all agree) to log(S).

    Args:
      branch_probabilities: `[N, S, K]`, each row summing to 1.

    Returns:
      float64 `[N]`.
    """
    branches = checked_probabilities(branch_probabilities, rank=3, shape="[N, S, K]")
    return entropy(branches.mean(axis=1)) - entropy(branches).mean(axis=1)


def bins_of_equal_width(values: np.ndarray, bins: int) -> np.ndarray:
    """In which bin, from 0, each value lies; bin m holds (m / bins, (m + 1) / bins], the first 0 too."""
    return np.clip(np.ceil(values * bins).astype(int) - 1, 0, bins - 1)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Of each distribution along the last axis, in nats."""
    # 0 log 0 = 0
    return -np.sum(probabilities * np.log(np.where(probabilities > 0, probabilities, 1)), axis=-1)


def checked_predictions(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities `[N, K]` in float64 and class numbers `[N]`, as arrays.

    Raises:
      InputError: shapes, types or values that do not fit, or no image at all.
    """
    probabilities = checked_probabilities(probabilities, rank=2, shape="[N, K]")
    labels = np.asarray(labels)
    if labels.shape != probabilities.shape[:1] or labels.dtype.kind not in "iu":
        raise InputError(
            f"Labels do not fit the probabilities. Received: labels {labels.dtype} {list(labels.shape)}, "
            f"probabilities {list(probabilities.shape)}; pass one class number (an integer) an image."
        )
    num_classes = probabilities.shape[1]
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(
            f"A label is no class of the probabilities. Received: labels {labels.min()} to {labels.max()}, "
            f"{num_classes} classes; pass labels from 0 to {num_classes - 1}."
        )
    return probabilities, labels


def checked_probabilities(probabilities: np.ndarray, *, rank: int, shape: str) -> np.ndarray:
    """Probabilities of so many axes in float64; `shape` is for the message.

    Raises:
      InputError: another number of axes, no image, no numbers, or values outside 0..1.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != rank or probabilities.size == 0 or probabilities.dtype.kind not in "fiu":
        raise InputError(
            f"Probabilities have the wrong shape or type, or there are none. Received: {probabilities.dtype} "
            f"{list(probabilities.shape)}; pass floats {shape}, at least one image."
        )
    probabilities = probabilities.astype(np.float64)
    # The margin is for the rounding of float16. What is not within it (logits, NaN) is no probability.
    if not np.all((probabilities >= 0) & (probabilities <= 1 + 1e-3)):
        raise InputError(
            f"Probabilities lie outside 0..1. Received: values from {probabilities.min()} to {probabilities.max()}; "
            "pass probabilities (the softmax of logits)."
        )
    return probabilities
