"""Split-conformal prediction sets: as many classes for an image as it takes to hold the right one often enough.

A threshold is fitted on held-out images. If these and the test images are exchangeable, then a test image's set holds
its class with probability 1 - miscoverage or more, whatever the network; on average over draws of both, not for each
class.
"""

from typing import Annotated

import numpy as np

from divco_tf import fields
from divco_tf.errors import InputError
from divco_tf.training.metrics import checked_predictions, checked_probabilities


def _lac(probabilities: np.ndarray) -> np.ndarray:
    return 1 - probabilities


def _aps(probabilities: np.ndarray) -> np.ndarray:
    """The probability of all classes that are as probable or more; so equal classes stand or fall together."""
    order = np.argsort(-probabilities, axis=1)
    ranked = np.take_along_axis(probabilities, order, axis=1)
    total = np.cumsum(ranked, axis=1)
    # The last of equal ones has the sum of all: from the right, the next sum at which the probability falls.
    last = np.append(ranked[:, :-1] > ranked[:, 1:], np.ones([len(ranked), 1], dtype=bool), axis=1)
    total = np.minimum.accumulate(np.where(last, total, np.inf)[:, ::-1], axis=1)[:, ::-1]
    scores = np.empty_like(total)
    np.put_along_axis(scores, order, total, axis=1)
    return scores


SCORES = {"lac": _lac, "aps": _aps}
"""How unusual each class of an image is, probabilities `[N, K]` -> `[N, K]`.

"lac" is 1 - p (Sadinle et al. 2019, arXiv 1609.00451), with the smallest sets on average. "aps" adds up p from the
most probable class on (Romano et al. 2020, arXiv 2006.02544, without randomisation): more classes for difficult images.
"""


def fit_threshold(
    probabilities: np.ndarray, labels: np.ndarray, *, miscoverage: float = 0.1, score: str = "lac"
) -> float:
    """The score that 1 - miscoverage of held-out images do not exceed, with the correction for their finite number.

    It is the ceil((N + 1) (1 - miscoverage))-th smallest of the N right classes' scores.

    Args:
      probabilities: `[N, K]`, of images that were not trained on.
      labels: class numbers `[N]`.
      miscoverage: above 0 and below 1; how often a set may miss the right class.
      score: a name in `SCORES`.

    Returns:
      Infinite where N is too small for the guarantee (below 1 / miscoverage - 1): every set then holds every class.

    Raises:
      InputError: shapes, types or values that do not fit, or no image at all (so for every function here).
    """
    miscoverage = fields.checked(miscoverage, Annotated[float, fields.Within(above=0, below=1)], "miscoverage")
    probabilities, labels = checked_predictions(probabilities, labels)
    scores = np.sort(_scores(probabilities, score)[np.arange(len(labels)), labels])
    rank = int(np.ceil((len(labels) + 1) * (1 - miscoverage) - 1e-9))  # 1e-9: 100 x (1 - 0.42) is 58, not more
    return float(scores[rank - 1]) if rank <= len(scores) else float("inf")


def prediction_sets(probabilities: np.ndarray, threshold: float, *, score: str = "lac") -> np.ndarray:
    """Which classes each image's set holds, bool `[N, K]`; a set may be empty.

    Args:
      probabilities: `[N, K]`.
      threshold: of `fit_threshold` with the same score.
      score: a name in `SCORES`.
    """
    probabilities = checked_probabilities(probabilities, rank=2, shape="[N, K]")
    if np.isnan(threshold):
        raise InputError("The threshold is no number. Received: nan; pass that of fit_threshold.")
    return _scores(probabilities, score) <= threshold


def coverage(sets: np.ndarray, labels: np.ndarray) -> float:
    """The share of sets that hold the right class, 0..1.

    Args:
      sets: bool `[N, K]`.
      labels: class numbers `[N]`.
    """
    sets = _checked_sets(sets)
    _, labels = checked_predictions(sets.astype(np.float64), labels)
    return float(sets[np.arange(len(labels)), labels].mean())


def mean_size(sets: np.ndarray) -> float:
    """How many classes a set of bool `[N, K]` holds on average, 0..K."""
    return float(_checked_sets(sets).sum(axis=1).mean())


def _scores(probabilities: np.ndarray, score: str) -> np.ndarray:
    return SCORES[fields.checked(score, Annotated[str, fields.OneOf(tuple(SCORES))], "score")](probabilities)


def _checked_sets(sets: np.ndarray) -> np.ndarray:
    sets = np.asarray(sets)
    if sets.ndim != 2 or sets.size == 0 or sets.dtype != bool:
        raise InputError(
            f"The sets have the wrong shape or type, or there are none. Received: {sets.dtype} {list(sets.shape)}; "
            "pass those of prediction_sets, bool [N, K]."
        )
    return sets
