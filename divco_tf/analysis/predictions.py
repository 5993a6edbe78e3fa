"""Predictions as this room takes them: checked, and in float64 whatever they were stored in."""

import numpy as np

from divco_tf.errors import InputError
from divco_tf.training.metrics import SMALLEST_PROBABILITY, checked_probabilities


def log_probabilities(logits: np.ndarray, *, rank: int, shape: str) -> np.ndarray:
    """Logits, or log-probabilities (to which this does nothing), as log-probabilities in float64; finite.

    Args:
      logits: floats, the classes along the last axis.
      rank: how many axes there have to be.
      shape: the same for the message, "[N, S, K]".

    Raises:
      InputError: another number of axes, no image, no floats, or values that are not finite.
    """
    import scipy.special

    logits = np.asarray(logits)
    if logits.ndim != rank or logits.size == 0 or logits.dtype.kind != "f":
        raise InputError(
            f"Logits have the wrong shape or type, or there are none. Received: {logits.dtype} {list(logits.shape)}; "
            f"pass floats {shape}, at least one image."
        )
    if not np.isfinite(logits).all():
        images = np.flatnonzero(~np.isfinite(logits).all(axis=tuple(range(1, rank))))
        raise InputError(
            f"Logits are not finite. Received: infinities or NaN in {len(images)} of {len(logits)} images, first in "
            f"image {images[0]}; pass logits or log-probabilities, where no probability is 0."
        )
    return scipy.special.log_softmax(logits.astype(np.float64), axis=-1)


def logarithms(probabilities: np.ndarray) -> np.ndarray:
    """The log-probabilities of an ensemble `[N, K]`, float64; 0 counts as `SMALLEST_PROBABILITY`."""
    return np.log(np.maximum(checked_probabilities(probabilities, rank=2, shape="[N, K]"), SMALLEST_PROBABILITY))


def check_same_images(ensemble: np.ndarray, branches: np.ndarray) -> None:
    """Refuses branches `[N, S, K]` that are not those of the ensemble `[N, K]`.

    Raises:
      InputError: another number of images or of classes.
    """
    if (len(branches), branches.shape[2]) != ensemble.shape:
        raise InputError(
            f"The branches do not fit the ensemble. Received: branches {list(branches.shape)}, ensemble "
            f"{list(ensemble.shape)}; pass [N, S, K] and [N, K] of the same images and classes."
        )


def confidence(probabilities: np.ndarray) -> np.ndarray:
    """The largest probability of each image, `[N, K]` -> float64 `[N]`.

    The usual score for rejecting images and for telling images of another distribution (Hendrycks and Gimpel 2017,
    arXiv 1610.02136): higher is surer.
    """
    return checked_probabilities(probabilities, rank=2, shape="[N, K]").max(axis=1)
