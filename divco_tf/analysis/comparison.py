"""Runs beside each other: what each costs, how sure its accuracy is, and whether the comparison is a fair one."""

import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from divco_tf import fields
from divco_tf.analysis.statistics import LEVEL, compare
from divco_tf.data.sources.fingerprints import same_data
from divco_tf.errors import InputError
from divco_tf.models.sizes import Sizes
from divco_tf.runs.model_dir import ModelDir
from divco_tf.runs.records.experiment_json import read_record

_SHOWN = 40  # letters of a value; a longer one is told by its name alone


@dataclasses.dataclass(frozen=True)
class Compared:
    """A run beside the first one.

    Attributes:
      split_factor: S.
      parameters: trainable ones, of all branches.
      multiply_adds: of all branches, for one image.
      epochs: of its training; None: it is `steps` long.
      steps: of its training; None: it is `epochs` long.
      accuracy_interval: Wilson's 95 % interval, over images.
      difference: of its accuracy to the first run's; None for the first, and where the images are others.
      difference_interval: 95 %, paired over images: other images are covered, other seeds are not.
      differs_in: what else than the split factor differs from the first run, "seed 1 (there 0)".
    """

    split_factor: int
    parameters: int
    multiply_adds: int
    epochs: int | None
    steps: int | None
    accuracy_interval: tuple[float, float]
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None
    differs_in: tuple[str, ...] = ()


def accuracy_interval(right: int, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of images that were answered rightly (Wilson 1927), low and high.

    Raises:
      InputError: no such share.
    """
    from scipy import stats

    if not 0 <= right <= images or images < 1:
        raise InputError(f"Right answers among images. Received: {right} of {images}; 0 to {images} would work.")
    interval = stats.binomtest(right, images).proportion_ci(1 - LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


@dataclasses.dataclass(frozen=True)
class Scored:
    """A run, whether it is right about each image of a split (bool [N]), and what tells those images from others."""

    run: ModelDir
    correct: np.ndarray
    images: Hashable


def compare_runs(scored: Sequence[Scored]) -> list[Compared]:
    """Runs beside the first one; differences are known where the images are the same."""
    return [_compared(one, scored[0]) for one in scored]


def _compared(one: Scored, first: Scored) -> Compared:
    experiment, num_classes = one.run.experiment, len(one.run.class_names)
    size = experiment.preprocessing.image_size
    spec = experiment.branch_spec(num_classes) if one.run.branch is None else one.run.branch
    branch = Sizes(num_classes=num_classes, input_shape=(size, size, 3))(spec)
    found = Compared(
        split_factor=experiment.split_factor,
        parameters=experiment.split_factor * branch.parameters,
        multiply_adds=experiment.split_factor * branch.multiply_adds * max(1, experiment.dropout_samples),
        epochs=experiment.epochs,
        steps=experiment.steps,
        accuracy_interval=accuracy_interval(int(one.correct.sum()), len(one.correct)),
        differs_in=tuple(differences(one.run, first.run)),
    )
    if one is first or one.images != first.images or len(one.correct) < 2:
        return found
    paired = compare(one.correct[np.newaxis], first.correct[np.newaxis])
    return dataclasses.replace(found, difference=paired.difference, difference_interval=(paired.low, paired.high))


def differences(run: ModelDir, first: ModelDir) -> Iterator[str]:
    """In what else than the split factor a run differs from the first one: "optimizer.weight_decay 0.1 (there 0.2)"."""
    before, now = (each.experiment.identity(None) for each in (first, run))
    del before["split_factor"], now["split_factor"]
    yield from _told("", before, now)
    if not same_data(*(read_record(each.model_dir)["identity"].get("data") for each in (first, run))):
        yield "training images"
    if first.imported != run.imported:
        yield "weights that were trained elsewhere"


def _told(name: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            yield from _told(f"{name}.{key}" if name else key, before.get(key), now.get(key))
    elif before != now:
        values = fields.shown(now), fields.shown(before)
        yield f"{name} {values[0]} (there {values[1]})" if len("".join(values)) <= _SHOWN else name
