"""What each arm of a study differs by from the baseline, with intervals, and what that says."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from divco_tf.analysis.judged import Judged
from divco_tf.analysis.report.study import Arm, Study
from divco_tf.analysis.statistics import LEVEL, compare
from divco_tf.analysis.verdict import DOES_NOT_PAY, NOTHING_SEEN, PAYS, Verdict, verdicts


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval, whose ends are NaN where it is not known.

    Attributes:
      mean, low, high: in any unit.
    """

    mean: float
    low: float = math.nan
    high: float = math.nan

    def scaled(self, scale: float) -> "Interval":
        """In another unit."""
        return Interval(scale * self.mean, scale * self.low, scale * self.high)

    def told(self, decimals: int, *, sign: bool = False) -> str:
        """ "1.20 (0.50 to 1.90)", or the mean alone."""
        mean, low, high = (f"{round(value, decimals) + 0.0:.{decimals}f}" for value in (self.mean, self.low, self.high))
        mean = f"+{mean}" if sign and float(mean) > 0 else mean
        return mean if math.isnan(self.low) else f"{mean} ({low} to {high})"


def bars(intervals: Sequence[Interval]) -> list[list[float]]:
    """How far each reaches below and above its mean, for matplotlib; nothing where that is not known."""
    reach = [(interval.mean - interval.low, interval.high - interval.mean) for interval in intervals]
    return [[0.0 if math.isnan(value) else value for value in side] for side in zip(*reach, strict=True)]


@dataclasses.dataclass(frozen=True)
class Measure:
    """By what arms are compared; more is better.

    Attributes:
      name: for files.
      label: of an axis, with its unit: what is above 0 is better than the baseline.
      unit: "points" or "nats".
      scale: from what is measured to the unit.
      scores: of each image of a split; None: of the split as a whole, see `metric`.
      metric: of rows; less is better.
    """

    name: str
    label: str
    unit: str
    scale: float
    scores: Callable[[Judged], np.ndarray] | None = None
    metric: str | None = None


ACCURACY = Measure("accuracy", "accuracy, points", "points", 100, scores=lambda judged: judged.correct)
LIKELIHOOD = Measure("log_likelihood", "log-likelihood, nats", "nats", 1, scores=lambda judged: judged.log_likelihood)
CALIBRATION = Measure(
    "calibration", "calibration error avoided, points", "points", 100, metric="expected_calibration_error"
)
MEASURES = (ACCURACY, LIKELIHOOD, CALIBRATION)


@dataclasses.dataclass(frozen=True)
class Effect:
    """An arm against the baseline of its task, in the unit of the measure; above 0 the arm is better.

    Attributes:
      arm: which.
      label: the arm, and its task where there are several.
      interval: of the difference, over the seeds that both have.
      seeds: how many.
      verdict: of `analysis.verdict`; None: of this measure there is none.
    """

    arm: Arm
    label: str
    interval: Interval
    seeds: int
    verdict: Verdict | None = None


def over_seeds(values: Sequence[float]) -> Interval:
    """Of numbers, one a seed, at least one: what other seeds would have, on the same images."""
    from scipy import stats

    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean)
    half = stats.t.ppf(1 - LEVEL / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return Interval(mean, float(mean - half), float(mean + half))


def effects(study: Study, measure: Measure) -> list[Effect]:
    """All comparisons with the baseline, each within its task and over the seeds that both have.

    An arm is left out that has no seed in common with the baseline, or where images' answers were not kept.
    """
    pairs = {}
    for arm in study.arms:
        baseline = study.baseline_of(arm.task)
        if baseline is not None and arm is not baseline:
            pairs[study.label(arm)] = arm, baseline
    if measure.scores is None:
        return [effect for label, pair in pairs.items() for effect in _of_rows(label, *pair, measure)]
    return _of_images(pairs, measure)


def headline(study: Study, found: Sequence[Effect]) -> str:
    """The verdict on all comparisons of a measure in one sentence.

    Args:
      study: of which `found` are all `effects`.
    """
    if not study.arms:
        return "No cell is done: there is nothing to compare."
    if not found and len(study.arms) == 1:
        accuracy = over_seeds(study.arms[0].values(ACCURACY.name)).scaled(100).told(1)
        return f"{study.arms[0].name} has an accuracy of {accuracy} %; there is no other arm to compare it with."
    if not found:
        return "Nothing is compared: no arm shares a seed with another one of its task, answers of both kept."
    if len(found) == 1:
        return f"{found[0].verdict.sentence}."
    words = Counter(effect.verdict.word for effect in found)
    largest = max(found, key=lambda effect: (effect.verdict.word != NOTHING_SEEN, abs(effect.interval.mean)))
    if len(words) == 1:
        said = {PAYS: "All {} pay", DOES_NOT_PAY: "None of {} pays", NOTHING_SEEN: "None of {} shows a difference"}
        counts = said[largest.verdict.word].format(f"{len(found)} comparisons")
    else:
        one = {PAYS: "1 pays", DOES_NOT_PAY: "1 does not pay", NOTHING_SEEN: "1 shows no difference"}
        more = {PAYS: "{} pay", DOES_NOT_PAY: "{} do not pay", NOTHING_SEEN: "{} show no difference"}
        told = [(one if words[word] == 1 else more)[word].format(words[word]) for word in one if words[word]]
        counts = f"Of {len(found)} comparisons {', '.join(told[:-1])} and {told[-1]}"
    return f"{counts}. The largest: {largest.verdict.sentence}."


def _of_images(pairs: dict[str, tuple[Arm, Arm]], measure: Measure) -> list[Effect]:
    comparisons = {}
    for label, (arm, baseline) in pairs.items():
        scores = _paired(arm, baseline, measure)
        if scores is not None:
            comparisons[label] = compare(*scores)
    found = []
    for label, verdict in verdicts(comparisons, unit=measure.unit).items() if comparisons else ():
        numbers = verdict.comparison
        interval = Interval(numbers.difference, numbers.low, numbers.high).scaled(measure.scale)
        found.append(Effect(pairs[label][0], label, interval, numbers.seeds, verdict))
    return found


def _paired(arm: Arm, baseline: Arm, measure: Measure) -> tuple[np.ndarray, np.ndarray] | None:
    """Scores [seeds, N] of both, of the seeds that both have; None where there is none, or images are not the same."""
    ours, theirs = (
        {result.seed: result.judged for result in each.results if result.judged is not None} for each in (arm, baseline)
    )
    seeds = [seed for seed in ours if seed in theirs]
    labels = [of_arm[seed].labels for seed in seeds for of_arm in (ours, theirs)]
    if not labels or not all(np.array_equal(each, labels[0]) for each in labels) or len(labels[0]) < 2:
        return None
    return tuple(np.stack([measure.scores(of_arm[seed]) for seed in seeds]) for of_arm in (ours, theirs))


def _of_rows(label: str, arm: Arm, baseline: Arm, measure: Measure) -> list[Effect]:
    ours, theirs = (
        {result.seed: result.metrics.get(measure.metric) for result in each.results} for each in (arm, baseline)
    )
    differences = [
        measure.scale * (theirs[seed] - ours[seed]) for seed in ours if None not in (ours[seed], theirs.get(seed))
    ]
    if not differences:
        return []
    return [Effect(arm, label, over_seeds(differences), len(differences))]
