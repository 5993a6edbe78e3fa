"""Predictions image by image, small enough to keep: what statistics and reports are made of."""

import dataclasses
import pathlib

import numpy as np

from divco_tf import files
from divco_tf.analysis.outputs import Outputs
from divco_tf.errors import InputError
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


def save_judged(path: pathlib.Path, found: dict[str, Judged]) -> None:
    """Writes the answers to some splits into one .npz file, whole or not at all; some ten bytes an image.

    Floats become float16, of 11 bits: 0.0005 of the value at most. Rows of results have been computed from more.
    """
    arrays = {
        f"{split}_{field.name}": _small(getattr(each, field.name))
        for split, each in found.items()
        for field in dataclasses.fields(Judged)
    }
    files.write_npz(path, arrays)


def load_judged(path: str | pathlib.Path) -> dict[str, Judged]:
    """What `save_judged` wrote, by split.

    Raises:
      InputError: it is damaged, or something else.
    """
    names = [field.name for field in dataclasses.fields(Judged)]
    try:
        with np.load(path, allow_pickle=False) as found:
            splits = [name.removesuffix("_labels") for name in found.files if name.endswith("_labels")]
            return {split: Judged(**{name: _wide(found[f"{split}_{name}"]) for name in names}) for split in splits}
    except Exception as error:  # whatever numpy and zipfile stumble over
        raise InputError(
            f"These are no predictions ({type(error).__name__}). Received: {path}; a sweep writes them."
        ) from error


def _small(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        return values.astype(np.float16)
    return values.astype(np.min_scalar_type(values.max(initial=0)))


def _wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
