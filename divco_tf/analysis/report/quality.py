"""Plots of how good arms are image by image: reliability, risk and coverage, confusion; and how they learnt."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from divco_tf.analysis.metrics import reliability_of
from divco_tf.analysis.mistakes import frequent_confusions
from divco_tf.analysis.report import drawing
from divco_tf.analysis.report.drawing import MUTED, Plot
from divco_tf.analysis.report.study import SPLITS, Arm, Study, Task, class_names
from divco_tf.analysis.selective import risk_coverage_curve

FEWEST_IMAGES = 20  # of a bin, or of answered images, below which chance would be drawn
MOST_NAMED = 20  # classes whose names and numbers have room in a confusion matrix

_COVERAGES = 101


@drawing.styled
def reliability_plot(name: str, study: Study, task: Task) -> Plot | None:
    """Accuracy against confidence in 15 bins, images of all seeds together."""
    figure, axes = drawing.axes(3.6)
    axes.plot([0, 100], [0, 100], color=MUTED, linewidth=1, linestyle=":")
    looks, ends, rows = drawing.looks(study.names, study.baseline), {}, []
    for arm in _with_images(study, task):
        curve = reliability_of(
            np.concatenate([judged.confidence for judged in arm.judged]),
            np.concatenate([judged.correct for judged in arm.judged]),
        )
        shown, look = curve.count >= FEWEST_IMAGES, looks[arm.name]
        x, y = 100 * curve.confidence[shown], 100 * curve.accuracy[shown]
        axes.plot(x, y, color=look.colour, marker=look.marker, markersize=4, linestyle=look.line)
        if len(x):
            ends[arm.name] = (x[-1], y[-1])
        rows += [(arm.name, *bin_) for bin_ in zip(curve.confidence, curve.accuracy, curve.count, strict=True)]
    if not rows:
        return None
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xlabel("Confidence, %")
    axes.set_ylabel("Accuracy, %")
    _label_ends(axes, ends, looks)
    return Plot(
        name,
        _titled("Reliability", study, task),
        "On the dotted line confidence is right; below it answers are too sure. "
        f"Bins of fewer than {FEWEST_IMAGES} images are left out; images of all seeds together.",
        figure,
        ("arm", "mean confidence", "accuracy", "images"),
        rows,
    )


@drawing.styled
def risk_coverage_plot(name: str, study: Study, task: Task) -> Plot | None:
    """The error rate of the images answered against their share, mean over seeds."""
    figure, axes = drawing.axes(3.6)
    looks, ends, rows = drawing.looks(study.names, study.baseline), {}, []
    for arm in _with_images(study, task):
        count = len(arm.judged[0].labels)
        places = np.unique(np.linspace(min(FEWEST_IMAGES, count), count, _COVERAGES).round().astype(int)) - 1
        risks = [risk_coverage_curve(judged.confidence, ~judged.correct).risk[places] for judged in arm.judged]
        coverage, risk, look = 100 * (places + 1) / count, 100 * np.mean(risks, axis=0), looks[arm.name]
        axes.plot(coverage, risk, color=look.colour, linestyle=look.line)
        ends[arm.name] = (coverage[-1], risk[-1])
        rows += [(arm.name, *point) for point in zip(coverage, risk, strict=True)]
    if not rows:
        return None
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("Images that are answered, the surest first, %")
    axes.set_ylabel("Wrong among them, %")
    _label_ends(axes, ends, looks)
    return Plot(
        name,
        _titled("Risk and coverage", study, task),
        "What is left of the error when the least sure images are handed to somebody else. Lower is better.",
        figure,
        ("arm", "coverage, %", "risk, %"),
        rows,
    )


@drawing.styled
def curve_plot(name: str, study: Study, task: Task, metric: str, label: str, scale: float) -> Plot | None:
    """A metric against steps, a line a seed; None where no run was evaluated more than once."""
    figure, axes = drawing.axes()
    looks, ends, rows = drawing.looks(study.names, study.baseline), {}, []
    for arm in study.of_task(task):
        for result in arm.results:
            points = result.row.get("curve", ())
            split = next((point["split"] for point in points), None)
            line = [(point["step"], scale * point[metric]) for point in points if point["split"] == split]
            if len(line) > 1:
                look = looks[arm.name]
                axes.plot(*zip(*line, strict=True), color=look.colour, linestyle=look.line, linewidth=1, alpha=0.75)
                ends[arm.name] = line[-1]
                rows += [(arm.name, result.seed, split, *point) for point in line]
    if not rows:
        return None
    axes.set_xlabel("Steps")
    axes.set_ylabel(label)
    _label_ends(axes, ends, looks)
    title = _titled(f"{label.partition(',')[0]} while learning", study, task)
    head = ("arm", "seed", "split", "step", label)
    told = f"On {SPLITS[rows[0][2]]} images while training; a line a seed."
    return Plot(name, title, told, figure, head, rows)


def confusion(arm: Arm) -> np.ndarray:
    """How many images of class i (row) were taken for class j (column), all seeds together, int64 [K, K]."""
    labels, classes = (
        np.concatenate([getattr(judged, name) for judged in arm.judged]) for name in ("labels", "classes")
    )
    count = 1 + max(labels.max(), classes.max())
    return np.bincount(labels * count + classes, minlength=count**2).reshape(count, count)


def confusion_plot(name: str, study: Study, arm: Arm) -> Plot:
    """The confusion matrix of an arm, in percent of each class."""
    counts = confusion(arm)
    names = class_names(study, arm.task, len(counts))[: len(counts)]
    plot = confusion_drawn(name, counts, names, title=f"Confusion of {study.label(arm)}")
    return dataclasses.replace(plot, told=f"{plot.told} All seeds together.")


@drawing.styled
def confusion_drawn(name: str, counts: np.ndarray, names: Sequence[str], *, title: str) -> Plot:
    """A confusion matrix, in percent of each class.

    Args:
      name: of the plot.
      counts: images of class i (row) that are taken for class j (column), int `[K, K]`.
      names: of the classes.
      title: of the plot.
    """
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    few = len(counts) <= MOST_NAMED
    figure, axes = drawing.axes(4.4)
    wrong = np.where(np.eye(len(counts), dtype=bool) | (counts == 0), np.nan, shares)
    drawing.heat(axes, wrong, numbers=shares if few else None, colours="Oranges", most=np.nanmax(wrong, initial=0.0))
    if few:
        axes.set_xticks(np.arange(len(names)) + 0.5, names, rotation=90 * (max(map(len, names)) > 2), fontsize=8)
        axes.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=8)
    axes.set_xlabel("Answer")
    axes.set_ylabel("Right class")
    pairs = np.argwhere(counts if few else np.where(np.eye(len(counts), dtype=bool), 0, counts))
    rows = [(names[i], names[j], int(counts[i, j]), shares[i, j]) for i, j in pairs]
    told = "Percent of the images of a row’s class that got each answer; wrong ones are coloured."
    return Plot(name, title, told, figure, ("right class", "answer", "images", "% of the class"), rows)


def _with_images(study: Study, task: Task) -> list[Arm]:
    return [arm for arm in study.of_task(task) if arm.judged]


def _titled(what: str, study: Study, task: Task) -> str:
    told = study.told(task)
    return f"{what}, {told}" if told else what


def _label_ends(axes, ends: dict[str, tuple[float, float]], looks: dict[str, drawing.Look]) -> None:
    drawing.label_points(axes, list(ends.values()), list(ends), [looks[name].colour for name in ends], end=True)


def top_confusions(study: Study, arm: Arm, most: int = 8) -> list[Sequence]:
    """The most frequent mistakes: right class, answer, images, percent of the class."""
    counts = confusion(arm)
    names = class_names(study, arm.task, len(counts))
    return [
        (names[i], names[j], count, 100 * count / max(counts[i].sum(), 1))
        for i, j, count in frequent_confusions(counts, most=most)
    ]
