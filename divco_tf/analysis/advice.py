"""Does dividing pay on the user's own data? A plan that fits into a time, and the answer of what it measured."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from divco_tf.analysis.grid import Cell
from divco_tf.analysis.judged import Judged
from divco_tf.analysis.learning_curves import Prediction, predict
from divco_tf.analysis.statistics import FEWEST_SEEDS, compare
from divco_tf.analysis.verdict import DOES_NOT_PAY, PAYS, Verdict, verdicts
from divco_tf.errors import InputError, RunError
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.options import Options

_MOST_SEEDS = 10  # more narrow the interval by little
_TIMED_STEPS = 12
_MARGIN = 1.15  # machines are shared, and the last evaluation opens more images than the timed one
_STARTING = 6.0  # seconds until a process of its own has imported TensorFlow


@dataclasses.dataclass(frozen=True)
class CellTime:
    """How long a cell takes, in seconds: so much before and after its steps, and so much each."""

    fixed: float
    step: float


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is trained.

    Attributes:
      grids: of the sweep.
      sizes: amounts of training images; the last is all of them unless the answer is a prediction.
      seeds: how many of each.
      seconds: about how long all of it takes.
      predicts: whether all images are too many for the time, so that the answer for them is extrapolated.
      sentence: for people.
    """

    grids: tuple[str, ...]
    sizes: tuple[int, ...]
    seeds: int
    seconds: float
    predicts: bool
    sentence: str


@dataclasses.dataclass(frozen=True)
class Advice:
    """The answer.

    Attributes:
      split_factor: the S to take for accuracy: of those that pay the most accurate, else 1.
      accuracy: the verdict on each S beside 1, on the accuracy of the largest amount of data that was trained on.
      likelihood: the same for the log-likelihood.
      prediction: for all images, where they were too many for the time.
      sentences: for people, the most important first.
    """

    split_factor: int
    accuracy: Mapping[int, Verdict]
    likelihood: Mapping[int, Verdict]
    prediction: Prediction | None
    sentences: tuple[str, ...]


def time_cells(
    experiment: Experiment,
    split_factors: Sequence[int],
    *,
    data_dir: str | None = None,
    options: Options | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[int, CellTime]:
    """Trains a few steps of each S, in a folder that goes, to learn how long a cell takes; no test image is opened.

    Raises:
      InputError: as `train` does.
    """
    from divco_tf.runs.loop import train

    options = dataclasses.replace(options or Options(), evaluate_every=0, contact_sheet=False, evaluate_test=False)
    rate = dataclasses.replace(experiment.learning_rate, warmup_epochs=0, warmup_steps=None)
    times = {}
    for split_factor in split_factors:
        short = dataclasses.replace(
            experiment, split_factor=split_factor, epochs=None, steps=_TIMED_STEPS, learning_rate=rate
        )
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = train(short, model_dir=folder, data_dir=data_dir, options=options, report=lambda line: None)
        whole = time.monotonic() - started
        times[split_factor] = CellTime(
            _STARTING + whole - _TIMED_STEPS * found.seconds_per_step, found.seconds_per_step
        )
        report(
            f"S={split_factor}: {found.seconds_per_step:.3f} s a step, {times[split_factor].fixed:.0f} s around them"
        )
    return times


def plan(
    experiment: Experiment, times: Mapping[int, CellTime], *, images: int, minutes: float, num_classes: int
) -> Plan:
    """What fits into the time: all images with six seeds or more, else smaller amounts from which is extrapolated.

    Args:
      experiment: what all cells start from.
      times: of a cell, by S.
      images: how many training images there are.
      minutes: for all of it.
      num_classes: K.

    Raises:
      InputError: nothing that could answer fits.
    """

    def seconds(sizes: Sequence[int], seeds: int) -> float:
        steps = [experiment.total_steps(size // experiment.batch_size) for size in sizes]
        return _MARGIN * seeds * sum(each.fixed + each.step * count for each in times.values() for count in steps)

    budget = 60 * minutes
    split_factors = ",".join(map(str, times))
    whole = seconds([images], FEWEST_SEEDS)
    if whole <= budget:
        seeds = min(_MOST_SEEDS, int(FEWEST_SEEDS * budget / whole))
        took = seconds([images], seeds)
        told = f"S = {split_factors} on all {images:,} training images, {seeds} seeds each: {_told(took)}"
        return Plan((f"split_factor={split_factors}; seed=0..{seeds - 1}",), (images,), seeds, took, False, told)
    for shares in ((4, 2), (8, 4), (16, 8)):
        sizes = tuple(images // share for share in shares)
        took = seconds(sizes, FEWEST_SEEDS)
        if took <= budget and sizes[0] >= max(experiment.batch_size, 2 * num_classes):
            grid = f"train_images={sizes[0]},{sizes[1]}; split_factor={split_factors}; seed=0..{FEWEST_SEEDS - 1}"
            told = (
                f"all {images:,} training images would take {_told(whole)}, so S = {split_factors} on {sizes[0]:,} and "
                f"{sizes[1]:,} of them, {FEWEST_SEEDS} seeds each: {_told(took)}; what wins on all is then a prediction"
            )
            return Plan((grid,), sizes, FEWEST_SEEDS, took, True, told)
    raise InputError(
        f"The time is too short for an answer. Received: {minutes:g} minutes; {FEWEST_SEEDS} seeds of S = "
        f"{split_factors} take {_told(whole)}; more time, a smaller backbone or fewer S would work."
    )


def check_trained(rows: Sequence[Mapping[str, Any]], cells: Sequence[Cell]) -> None:
    """Refuses to go on where an S has no result.

    Args:
      rows: of the sweep's results.
      cells: of the sweep; split_factor is among their arguments.

    Raises:
      RunError: all cells of an S failed.
    """
    failed = [row for row in rows if row["status"] == "failed"]
    done = {row["split_factor"] for row in rows if row["status"] == "done"}
    if lacking := sorted({cell.arguments["split_factor"] for cell in cells} - done):
        raise RunError(
            f"{len(failed)} of {len(cells)} cells failed, all of S = {', '.join(map(str, lacking))}. Received: "
            f"{failed[0]['reason']} ({failed[0]['cell']}); the same command tries them again."
        )


def advise(scores: Mapping[int, Mapping[int, Sequence[Judged]]], *, images: int) -> Advice:
    """The answer of what was measured.

    Args:
      scores: amount of training images -> S, 1 among them -> what each seed's ensemble made of the test images.
      images: how many training images there are in all; more than the largest amount asks for a prediction.

    Raises:
      InputError: no S = 1, or amounts or seeds that do not fit each other.
    """
    if not scores or any(1 not in by_split for by_split in scores.values()):
        raise InputError(f"Advice needs S = 1 to compare with. Received: {sorted(scores)}; train S = 1 too.")
    largest = max(scores)
    compared = {
        name: _verdicts(scores[largest], score, unit)
        for name, score, unit in (
            ("accuracy", lambda found: found.correct, "points"),
            ("likelihood", lambda found: found.log_likelihood, "nats"),
        )
    }
    paying = {split: each for split, each in compared["accuracy"].items() if each.word == PAYS}
    best = max(paying, key=lambda split: paying[split].comparison.difference) if paying else 1
    sentences = [f"accuracy, {each.sentence}" for each in compared["accuracy"].values()]
    sentences += [f"log-likelihood, {each.sentence}" for each in compared["likelihood"].values()]
    prediction = None
    if images > largest:
        prediction = _predicted(scores, images)
        sentences.insert(0, f"PREDICTION, nothing was measured with {images:,} images: {prediction.sentence}")
        best = int(prediction.winner.removeprefix("S=")) if prediction.winner else 1
    if prediction is not None and prediction.winner is None:
        headline = f"Too close to call for all {images:,} images: more time, or fewer S, would tell."
    else:
        headline = _headline(best, compared["accuracy"], compared["likelihood"])
    sentences.insert(0, headline)
    return Advice(best, compared["accuracy"], compared["likelihood"], prediction, tuple(sentences))


def _headline(best: int, accuracy: Mapping[int, Verdict], likelihood: Mapping[int, Verdict]) -> str:
    if best > 1:
        return f"Take S = {best}."
    surer = [split for split in likelihood if likelihood[split].word == PAYS and accuracy[split].word != DOES_NOT_PAY]
    if not surer:
        return "Take S = 1: nothing that was seen speaks for dividing."
    split = max(surer, key=lambda split: likelihood[split].comparison.difference)
    return f"S = {split} if you use probabilities, which are better; no S was seen to be more accurate than S = 1."


def _verdicts(
    by_split: Mapping[int, Sequence[Judged]], score: Callable[[Judged], np.ndarray], unit: str
) -> dict[int, Verdict]:
    """Of each S beside 1."""

    def stacked(split_factor: int) -> np.ndarray:
        return np.stack([score(found) for found in by_split[split_factor]])

    comparisons = {f"S={split}": compare(stacked(split), stacked(1)) for split in by_split if split != 1}
    found = verdicts(comparisons, unit=unit) if comparisons else {}
    return {int(name.removeprefix("S=")): each for name, each in found.items()}


def _predicted(scores: Mapping[int, Mapping[int, Sequence[Judged]]], images: int) -> Prediction:
    sizes = sorted(scores)
    errors = {
        f"S={split}": np.array([[1 - found.correct.mean() for found in scores[size][split]] for size in sizes]).T
        for split in scores[sizes[0]]
    }
    return predict(errors, sizes=sizes, images=images)


def _told(seconds: float) -> str:
    """For people."""
    minutes = seconds / 60
    return f"about {minutes:.0f} minutes" if minutes < 120 else f"about {minutes / 60:.1f} hours"


def gathered(rows: Sequence[Mapping[str, Any]], judged: Mapping[str, Judged], *, images: int) -> dict[int, Any]:
    """What `advise` takes, of a sweep's rows: seeds that every S has at an amount of data.

    Args:
      rows: of a sweep.
      judged: what each cell made of the test images, by the cell's name.
      images: the amount of training images of cells that do not say it.
    """
    found: dict[int, dict[int, dict[int, Judged]]] = {}
    for row in rows:
        if row["cell"] in judged:
            size = row["arguments"].get("train_images") or images
            found.setdefault(size, {}).setdefault(row["split_factor"], {})[row["seed"]] = judged[row["cell"]]
    scores = {}
    for size, by_split in found.items():
        common = sorted(set.intersection(*(set(by_seed) for by_seed in by_split.values())))
        scores[size] = {split: [by_seed[seed] for seed in common] for split, by_seed in sorted(by_split.items())}
    return scores
