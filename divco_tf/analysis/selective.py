"""Selective prediction: what is left of the error when the least sure images are not answered.

Risk is the mean loss of the images that are answered, coverage their share. Losses are 0 and 1 (wrong) where risk is an
error rate, and may be any others. Images of the same confidence are answered together or in any order; where an order
is needed they count as their mean, so nothing here depends on the order in which images come.
"""

import dataclasses

import numpy as np

from divco_tf import fields
from divco_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class RiskCoverageCurve:
    """The risk at each coverage, from the surest image alone to all N.

    Attributes:
      coverage: 1/N, 2/N, ..., 1, float64 `[N]`.
      risk: float64 `[N]`; among images of the same confidence that which is expected if chance decides.
      threshold: the lowest confidence that is answered, float64 `[N]`.
    """

    coverage: np.ndarray
    risk: np.ndarray
    threshold: np.ndarray


def risk_coverage_curve(confidence: np.ndarray, losses: np.ndarray) -> RiskCoverageCurve:
    """The curve of Geifman and El-Yaniv 2017 (arXiv 1705.08500), the surest images first.

    Args:
      confidence: `[N]`, higher meaning surer: `predictions.confidence`, for instance, or less disagreement.
      losses: `[N]`, 0 or more: whether each image is wrong, for instance.

    Raises:
      InputError: shapes, types or values that do not fit, or no image at all (so for every function here).
    """
    confidence, losses = _checked(confidence, losses)
    values, group, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    mean_loss = np.bincount(group, weights=losses) / count
    answered = np.arange(1, len(losses) + 1)
    risk = np.cumsum(np.repeat(mean_loss, count)) / answered
    return RiskCoverageCurve(answered / len(losses), risk, np.repeat(-values, count))


def aurc(confidence: np.ndarray, losses: np.ndarray) -> float:
    """The area under the risk-coverage curve: the mean of the risk over the N coverages 1/N, ..., 1.

    That is the definition of Geifman et al. 2019 (arXiv 1805.08206). 0 is best; images in random order have
    their mean loss.
    """
    return float(risk_coverage_curve(confidence, losses).risk.mean())


def excess_aurc(confidence: np.ndarray, losses: np.ndarray) -> float:
    """`aurc` above that of the best order, in which the images of least loss come first (E-AURC of arXiv 1805.08206).

    The best order's is computed, not approximated. 0 is best, whatever the error rate.
    """
    confidence, losses = _checked(confidence, losses)
    return max(0.0, aurc(confidence, losses) - aurc(-losses, losses))  # equal areas may differ by rounding


def coverage_at_risk(confidence: np.ndarray, losses: np.ndarray, *, risk: float = 0.05) -> float:
    """The largest share of images that a threshold on confidence lets through at no more than this risk.

    Images of the same confidence come through together. 0 if even the surest images are riskier.

    Args:
      confidence, losses: as for `risk_coverage_curve`.
      risk: 0 or more.
    """
    risk = fields.checked(risk, fields.AtLeast0, "risk")
    curve = risk_coverage_curve(confidence, losses)
    complete = np.append(np.diff(curve.threshold) != 0, True)
    allowed = complete & (curve.risk <= risk + 1e-12)  # 1e-12: a risk of 1/20 is not above 0.05
    return float(curve.coverage[allowed].max(initial=0.0))


def _checked(confidence: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    confidence, losses = np.asarray(confidence), np.asarray(losses)
    if confidence.shape != losses.shape or losses.ndim != 1 or losses.size == 0:
        raise InputError(
            f"Confidence and losses do not fit each other, or there are none. Received: {list(confidence.shape)} and "
            f"{list(losses.shape)}; pass [N] and [N], at least one image."
        )
    if confidence.dtype.kind not in "fiu" or losses.dtype.kind not in "fiub":
        raise InputError(
            f"Confidence and losses are no numbers. Received: {confidence.dtype} and {losses.dtype}; pass floats."
        )
    confidence, losses = confidence.astype(np.float64), losses.astype(np.float64)
    if not (np.isfinite(confidence).all() and np.isfinite(losses).all() and losses.min() >= 0):
        raise InputError(
            f"Confidence or losses are not finite, or losses are below 0. Received: confidence from {confidence.min()} "
            f"to {confidence.max()}, losses from {losses.min()} to {losses.max()}; pass finite numbers."
        )
    return confidence, losses
