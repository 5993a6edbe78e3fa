"""Temperature scaling, and likelihoods that are compared after it.

Logits (or log-probabilities) of an ensemble are `[N, K]`, those of its branches `[N, S, K]`. An ensemble's are
calibrated as they are: pool, then calibrate, which Rahaman and Thiery 2021 (arXiv 2007.08792) recommend. Branches get
one temperature in common before their probabilities are averaged: calibrate, then pool.
"""

import dataclasses

import numpy as np

from divco_tf import fields
from divco_tf.analysis.predictions import log_probabilities
from divco_tf.errors import InputError
from divco_tf.training.metrics import checked_predictions, log_losses

TEMPERATURES = (1e-3, 1e3)
"""The lowest and the highest temperature: with none, the best would be 0 where every image is right, or infinite."""


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T with the least negative log-likelihood of softmax(logits / T).

    Temperature scaling of Guo et al. 2017 (arXiv 1706.04599, section 4.2). For an ensemble the loss is convex in 1/T.
    For branches it need not be: of several minima, the one near the best of 13 temperatures is taken. Of temperatures
    that do equally well, to the last bit, the one nearest to 1 is taken.

    Args:
      logits: floats, `[N, K]` or `[N, S, K]`, of images that were not trained on.
      labels: class numbers `[N]`.

    Returns:
      Within `TEMPERATURES`; exact to about 1e-7 of it.

    Raises:
      InputError: shapes, types or values that do not fit, or no image at all (so for every function here).
    """
    import scipy.optimize

    logs, labels = _checked(logits, labels)
    below_top = logs - logs.max(axis=2, keepdims=True)
    of_right_class = below_top[np.arange(len(labels)), :, labels]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        logs_of_right_class = inverse * of_right_class - np.log(np.exp(inverse * below_top).sum(axis=2))
        return float(-np.logaddexp.reduce(logs_of_right_class, axis=1).mean())

    grid, step = np.linspace(*np.log(TEMPERATURES), 13, retstep=True)
    best = min(sorted(grid, key=abs), key=loss)
    bounds = np.clip([best - step, best + step], *np.log(TEMPERATURES))
    found = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return float(np.exp(found.x if found.fun < loss(best) else best))


def apply_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / temperature), for branches their mean.

    Args:
      logits: floats, `[N, K]` or `[N, S, K]`.
      temperature: above 0.

    Returns:
      The ensemble's probabilities, float64 `[N, K]`.
    """
    temperature = fields.checked(temperature, fields.Above0, "temperature")
    logs = _log_probabilities(logits)
    return np.exp(log_probabilities(logs / temperature, rank=3, shape="[N, S, K]")).mean(axis=1)


def calibrated_log_likelihood(logits: np.ndarray, labels: np.ndarray, *, repeats: int = 5, seed: int = 0) -> float:
    """The mean log-likelihood of images at the temperature that is best for others: 0 or less, in nats.

    Test-time cross-validation of Ashukha et al. 2020 (arXiv 2002.06470): the images are divided in two
    halves at random, each is judged at the temperature of the other, and that is repeated. Likelihoods at no common
    temperature rank methods by their calibration, which a temperature would mend.

    Args:
      logits: floats, `[N, K]` or `[N, S, K]`, two images or more.
      labels: class numbers `[N]`.
      repeats: how many divisions the result is the mean of.
      seed: of the divisions, which are the same for every method then.
    """
    repeats = fields.checked(repeats, fields.Positive, "repeats")
    seed = fields.checked(seed, fields.Whole, "seed")
    logs, labels = _checked(logits, labels)
    if len(labels) < 2:
        raise InputError("There are no two halves of the images. Received: 1 image; pass two or more.")
    # RandomState: its stream is the one that numpy promises not to change (NEP 19).
    random = np.random.RandomState(seed)
    total = 0.0
    for _ in range(repeats):
        halves = np.array_split(random.permutation(len(labels)), 2)
        for fitted, judged in (halves, halves[::-1]):
            temperature = fit_temperature(logs[fitted], labels[fitted])
            total -= log_losses(apply_temperature(logs[judged], temperature), labels[judged]).sum()
    return float(total / (repeats * len(labels)))


@dataclasses.dataclass(frozen=True)
class DeepEnsembleEquivalent:
    """How many independently trained networks do as well.

    Attributes:
      members: their number, interpolated.
      relation: "=", or "<" and ">" where the number is a bound: fewer than one network, more than were measured.
    """

    members: float
    relation: str

    def __str__(self) -> str:
        return f"{self.members:.2f}" if self.relation == "=" else f"{self.relation} {self.members:g}"


def deep_ensemble_equivalent(log_likelihood: float, curve: np.ndarray) -> DeepEnsembleEquivalent:
    """The size of the independent ensemble that reaches a calibrated log-likelihood (arXiv 2002.06470).

    The smallest number, a fraction by linear interpolation, at which the curve comes up to it.

    Args:
      log_likelihood: `calibrated_log_likelihood` of the method that is judged.
      curve: the same of ensembles of 1, ..., M independent networks, on the same images.
    """
    log_likelihood = fields.checked(log_likelihood, float, "log_likelihood")
    curve = np.asarray(curve)
    if curve.ndim != 1 or curve.size == 0 or curve.dtype.kind not in "fiu" or not np.isfinite(curve).all():
        raise InputError(
            f"The curve is none. Received: {curve.dtype} {list(curve.shape)}; pass finite log-likelihoods of 1, ..., M "
            "networks."
        )
    reached = np.flatnonzero(curve >= log_likelihood)
    if not reached.size:
        return DeepEnsembleEquivalent(float(len(curve)), ">")
    last = int(reached[0])
    if last == 0:
        return DeepEnsembleEquivalent(1.0, "=" if curve[0] == log_likelihood else "<")
    before, after = curve[last - 1 : last + 1]
    return DeepEnsembleEquivalent(float(last + (log_likelihood - before) / (after - before)), "=")


def _checked(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logs = _log_probabilities(logits)
    _, labels = checked_predictions(np.exp(logs[:, 0]), labels)
    return logs, labels


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Of branches [N, S, K]; an ensemble is its one branch."""
    logits = np.asarray(logits)
    if logits.ndim == 2:
        return log_probabilities(logits, rank=2, shape="[N, K]")[:, np.newaxis]
    return log_probabilities(logits, rank=3, shape="[N, K] or [N, S, K]")
