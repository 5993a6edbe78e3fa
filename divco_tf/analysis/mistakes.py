"""Where a classifier goes wrong: class by class, pair by pair, image by image."""

import dataclasses

import numpy as np

from divco_tf import fields
from divco_tf.fields import Whole
from divco_tf.training.metrics import checked_predictions


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A wrong answer to an image.

    Attributes:
      index: of the image in its split.
      label: number of the right class.
      answer: number of the class that it is taken for.
      probability: of the answer.
      probability_of_label: of the right class.
    """

    index: int
    label: int
    answer: int
    probability: float
    probability_of_label: float


def class_accuracies(confusion: np.ndarray) -> np.ndarray:
    """The share of each class's images that are answered rightly (its recall).

    Args:
      confusion: as `metrics.confusion_matrix` gives it, `[K, K]`.

    Returns:
      float64 `[K]`; NaN for a class without images.
    """
    count = confusion.sum(axis=1)
    return np.where(count > 0, np.diag(confusion) / np.maximum(count, 1), np.nan)


def confident_mistakes(probabilities: np.ndarray, labels: np.ndarray, *, most: int) -> list[Mistake]:
    """The wrong answers that the classifier is surest of, the surest first; of equals the earlier image.

    Such images are labelled wrongly, or show what training images do not.

    Args:
      probabilities: `[N, K]`.
      labels: class numbers `[N]`.
      most: how many at most.

    Raises:
      InputError: shapes, types or values that do not fit, or no image at all.
    """
    most = fields.checked(most, Whole, "most")
    probabilities, labels = checked_predictions(probabilities, labels)
    answers, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(answers != labels)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")[:most]]
    return [
        Mistake(
            index=int(index),
            label=int(labels[index]),
            answer=int(answers[index]),
            probability=float(confidence[index]),
            probability_of_label=float(probabilities[index, labels[index]]),
        )
        for index in surest
    ]


def frequent_confusions(confusion: np.ndarray, *, most: int) -> list[tuple[int, int, int]]:
    """The pairs of classes that are confused most often: (right class, answer, images), the most images first.

    Args:
      confusion: as `metrics.confusion_matrix` gives it, `[K, K]`.
      most: how many at most.
    """
    most = fields.checked(most, Whole, "most")
    off = np.where(np.eye(len(confusion), dtype=bool), 0, confusion)
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, off.shape), strict=True)
    return [(int(i), int(j), int(off[i, j])) for i, j in pairs if off[i, j]]
