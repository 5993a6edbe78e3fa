"""Predictions image by image, small enough to keep: what statistics and reports are made of."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from divco_tf.analysis.outputs import Outputs, load_by_split, save_by_split
from divco_tf.training.metrics import SMALLEST_PROBABILITY, disagreement


@dataclasses.dataclass(frozen=True)
class Judged:
    """What an ensemble of S branches made of each image of a split.

    Attributes:
      labels: int64 [N].
      classes: the ensemble's answers, int64 [N].
      confidence: its largest probability, float64 [N].
      log_likelihood: the logarithm of its probability of the right class, in nats, float64 [N].
      disagreement: Jensen-Shannon divergence between the branches, in nats, float64 [N].
      branch_classes: each branch's answer, int64 [N, S].
    """

    labels: np.ndarray
    classes: np.ndarray
    confidence: np.ndarray
    log_likelihood: np.ndarray
    disagreement: np.ndarray
    branch_classes: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Whether the ensemble is right, bool [N]."""
        return self.classes == self.labels

    @property
    def branch_correct(self) -> np.ndarray:
        """Whether each branch is right, bool [N, S]."""
        return self.branch_classes == self.labels[:, np.newaxis]


def judged(outputs: Outputs) -> Judged:
    """The answers in `outputs`, image by image."""
    import scipy.special

    probabilities, labels = outputs.probabilities.astype(np.float64), outputs.labels
    of_right_class = probabilities[np.arange(len(labels)), labels]
    branches = scipy.special.softmax(outputs.logits.astype(np.float64), axis=-1)
    return Judged(
        labels=labels,
        classes=probabilities.argmax(axis=1),
        confidence=probabilities.max(axis=1),
        log_likelihood=np.log(np.maximum(of_right_class, SMALLEST_PROBABILITY)),
        disagreement=np.maximum(disagreement(branches), 0),  # what rounding leaves of equal branches may be below
        branch_classes=outputs.logits.argmax(axis=2),
    )


def save_judged(path: pathlib.Path, found: Mapping[str, Judged]) -> None:
    """Writes the answers to some splits into one .npz file, whole or not at all; some ten bytes an image.

    Floats become float16, of 11 bits: 0.0005 of the value at most. Rows of results have been computed from more.
    """
    save_by_split(path, found, stored=_small)


def load_judged(path: str | pathlib.Path) -> dict[str, Judged]:
    """What `save_judged` wrote, by split.

    Raises:
      InputError: it is damaged, or something else.
    """
    return load_by_split(path, Judged, read=_wide)


def _small(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return values.astype(np.float16)
    return values.astype(np.min_scalar_type(values.max(initial=0)))


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
