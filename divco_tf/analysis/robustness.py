"""Accuracy and likelihood on corrupted images: fifteen families, each of five severities."""

import collections
import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from divco_tf import fields
from divco_tf.data import draws
from divco_tf.data.corruptions import CORRUPTIONS, SEVERITIES, CorruptedSource, corrupt
from divco_tf.data.sources import Source
from divco_tf.data.sources.checked import read_batch, read_labels
from divco_tf.data.sources.request import THREADS, Report, silent
from divco_tf.data.views.kernels.random_numbers import shuffled
from divco_tf.errors import InputError
from divco_tf.training.metrics import checked_predictions, log_losses

Predict = Callable[[np.ndarray], np.ndarray]
"""Images uint8 [n, size, size, 3] to the probabilities of an ensemble [n, K]."""


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Figures of one network on the same images, clean and corrupted.

    Attributes:
      families: F names of `CORRUPTIONS`.
      severities: V of 1 to 5.
      images: how many.
      accuracy: 0..1, float64 [F, V].
      negative_log_likelihood: nats an image, float64 [F, V].
      clean_accuracy: of the images as they are.
      clean_negative_log_likelihood: likewise.
    """

    families: tuple[str, ...]
    severities: tuple[int, ...]
    images: int
    accuracy: np.ndarray
    negative_log_likelihood: np.ndarray
    clean_accuracy: float
    clean_negative_log_likelihood: float

    @property
    def mean_corruption_error(self) -> float:
        """The error, 0..1, in the mean over families and severities.

        As usual for CIFAR-10-C it is not divided by another network's (mCE of Hendrycks and Dietterich 2019, arXiv
        1903.12261, section 4.2, is by AlexNet's).
        """
        return float(1 - self.accuracy.mean())

    @property
    def relative_corruption_error(self) -> float:
        """What corruption adds to the error, in the same mean (relative mCE there, undivided)."""
        return self.clean_accuracy - float(self.accuracy.mean())


def robustness(
    predict: Predict,
    source: Source,
    *,
    families: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    images: int | None = None,
    seed: int = 0,
    batch_size: int = 500,
    report: Report = silent,
) -> Robustness:
    """Corrupts the images of a source in each way, and has them predicted.

    Args:
      predict: is called in one thread, batch by batch; meanwhile others corrupt.
      source: of clean images; they are corrupted after they were resized to its `image_size`, 8 or more.
      families: all by default.
      severities: likewise.
      images: only so many of the source, chosen at random but always the same, fewer among more. All by default.
      seed: of the corruptions.
      batch_size: images at once; no figure depends on it.
      report: receives a line a batch.

    Raises:
      InputError: no such corruption, no such number of images, an image that cannot be read or is too small, or
        predictions that are no probabilities.
    """
    families = tuple(CORRUPTIONS if families is None else families)
    severities = tuple(severities)
    kinds = [None, *((family, severity) for family in families for severity in severities)]
    _check(source, kinds[1:], seed)
    chosen = _chosen(len(source), images)
    batch_size = fields.checked(batch_size, fields.Positive, "batch_size")

    right, losses = np.zeros(len(kinds)), np.zeros(len(kinds))
    for number, indices, batch in _batches(source, chosen, kinds, seed=seed, batch_size=batch_size, report=report):
        probabilities, labels = checked_predictions(predict(batch), read_labels(source, indices))
        right[number] += np.sum(probabilities.argmax(axis=1) == labels)
        losses[number] += log_losses(probabilities, labels).sum()
    (clean_accuracy, *accuracies), (clean_loss, *mean_losses) = right / len(chosen), losses / len(chosen)
    shape = len(families), len(severities)
    return Robustness(
        families=families,
        severities=severities,
        images=len(chosen),
        accuracy=np.reshape(accuracies, shape),
        negative_log_likelihood=np.reshape(mean_losses, shape),
        clean_accuracy=float(clean_accuracy),
        clean_negative_log_likelihood=float(clean_loss),
    )


def evaluate_robustness(
    model_dir: str | pathlib.Path,
    *,
    data_dir: str | None = None,
    split: str = "test",
    weights: str = "last",
    strategy: str = "auto",
    jit: str = "auto",
    **how: Any,
) -> Robustness:
    """`robustness` of the ensemble of the run in `model_dir`.

    Args:
      model_dir, data_dir, split, weights, strategy, jit: as `runs.evaluation.evaluate`'s.
      how: as `robustness`'s.

    Raises:
      InputError: as both do.
    """
    from divco_tf.runs.evaluation import opened

    run, source, predict, _ = opened(
        model_dir, data_dir=data_dir, split=split, weights=weights, strategy=strategy, jit=jit
    )
    # Images are resized before they are corrupted, as for ImageNet-C, so only the normalisation is left.
    normalise = run.experiment.preprocessing.normalise
    return robustness(lambda images: next(iter(predict([normalise(images)])))[0], source, **how)


def _check(source: Source, corruptions: Sequence[tuple[str, int]], seed: int) -> None:
    if not corruptions:
        raise InputError(
            "There is nothing to corrupt by. Received: no family, or no severity; fog and 3, for instance, would work."
        )
    for family, severity in corruptions:
        CorruptedSource(source, family=family, severity=severity, seed=seed)


def _chosen(count: int, images: int | None) -> np.ndarray:
    """The indices of so many images, int64, ascending: the first of an order that depends on nothing else."""
    images = count if images is None else fields.checked(images, fields.Positive, "images")
    if not 0 < images <= count:
        raise InputError(f"There are not so many images. Received: images={images}; 1 to {count:,} would work.")
    return np.sort(shuffled(draws.fold(draws.CORRUPTION), size=count, stop=images))


def _batches(
    source: Source,
    chosen: np.ndarray,
    kinds: Sequence[tuple[str, int] | None],
    *,
    seed: int,
    batch_size: int,
    report: Report,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each batch as each kind: the kind's number, the images' indices, and images. None is clean.

    Each image is read once. Threads corrupt, a batch each, as far ahead as there are threads.
    """

    def made(number: int, indices: np.ndarray, clean: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
        if kinds[number] is None:
            return number, indices, clean
        family, severity = kinds[number]
        return number, indices, corrupt(clean, family=family, severity=severity, seed=seed, indices=indices)

    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(chosen), batch_size):
            indices = chosen[start : start + batch_size]
            clean = read_batch(source, indices)
            for number in range(len(kinds)):
                waiting.append(pool.submit(made, number, indices, clean))
                if len(waiting) > THREADS:
                    yield waiting.popleft().result()
            report(f"corrupted: {start + len(indices):,} of {len(chosen):,} images")
        while waiting:
            yield waiting.popleft().result()
