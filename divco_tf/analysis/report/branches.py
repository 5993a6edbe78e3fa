"""What a report tells of branches: each beside the ensemble, and how far they differ from each other."""

from collections.abc import Sequence

import numpy as np

from divco_tf.analysis import diversity
from divco_tf.analysis.judged import Judged
from divco_tf.analysis.report import drawing
from divco_tf.analysis.report.drawing import Plot
from divco_tf.analysis.report.effects import bars, over_seeds
from divco_tf.analysis.report.study import Arm, Study, Task

MOST_MATRICES = 6  # arms of a page that get theirs; the table has all
MOST_BRANCHES = 16  # whose numbers have room in a matrix

DIVERSITY = {  # of rows, and what it is called in a table
    "pairwise_disagreement": "Pairs disagree",
    "error_correlation": "Error correlation",
    "disagreement": "Divergence, nats",
    "ambiguity_error": "Accuracy gained by averaging",
    "ambiguity_negative_log_likelihood": "NLL gained, nats",
}
MORE_DIVERSITY = ("pairwise_divergence", "q_statistic", "collapsed")  # that is downloaded only


@drawing.styled
def members_plot(name: str, study: Study, task: Task) -> Plot | None:
    """The accuracy of each branch of each seed, and the ensemble's; arms of one branch have the ensemble alone."""
    arms = [arm for arm in study.of_task(task) if arm.values("accuracy")]
    if not any(len(arm.results[0].metrics.get("branch_accuracies", ())) > 1 for arm in arms):
        return None
    figure, axes = drawing.rows([arm.name for arm in arms])
    looks, rows = drawing.looks(study.names, study.baseline), []
    for place, arm in enumerate(arms):
        look = looks[arm.name]
        for result in arm.results:
            each = result.metrics.get("branch_accuracies", ())
            rows += [(arm.name, result.seed, f"branch {number}", accuracy) for number, accuracy in enumerate(each)]
            rows.append((arm.name, result.seed, "ensemble", result.metrics["accuracy"]))
            if len(each) > 1:
                x = 100 * np.asarray(each)
                axes.plot(x, np.full(len(x), -place), "|", color=look.colour, markersize=9, alpha=0.55)
        interval = over_seeds([100 * value for value in arm.values("accuracy")])
        style = {"color": look.colour, "marker": look.marker, "markersize": 7.5, "elinewidth": 2}
        axes.errorbar([interval.mean], [-place], xerr=bars([interval]), **style)
    low, high = axes.get_xlim()  # an interval of few seeds may reach beyond what can be
    axes.set_xlim(max(low, 0), min(high, 100))
    axes.set_xlabel("Accuracy, %")
    told = study.told(task)
    return Plot(
        name,
        "Members and ensemble" + f", {told}" * bool(told),
        "Strokes are branches, of each seed; the mark is the ensemble’s mean with its 95 % interval over seeds.",
        figure,
        ("arm", "seed", "who", "accuracy"),
        rows,
    )


def matrices(judged: Sequence[Judged]) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair of branches the share of images to which they answer differently, and the correlation of errors.

    Args:
      judged: one a seed, of the same S; branches are paired by their number.

    Returns:
      float64 [S, S] each, means over seeds.
    """
    disagreement, correlation = [], []
    for each in judged:
        classes, right = each.branch_classes, each.branch_correct.astype(np.float64)
        disagreement.append(np.stack([(classes != of_one[:, np.newaxis]).mean(axis=0) for of_one in classes.T]))
        # Whether a branch is right is all that counts here: two classes, of which the second is right.
        as_two = np.stack([1 - right, right], axis=2)
        correlation.append(diversity.error_correlation(as_two, np.ones(len(right), np.int64)))
    return np.mean(disagreement, axis=0), np.mean(correlation, axis=0)


def matrices_plots(study: Study, arms: Sequence[Arm]) -> list[Plot]:
    """Both matrices of each arm, side by side, in colours that mean the same for all."""
    found = [matrices(arm.judged) for arm in arms]
    most = max((disagreement.max() for disagreement, _ in found), default=0.0)
    return [
        _matrices_plot(f"diversity-{place}", study.label(arm), *both, most)
        for place, (arm, both) in enumerate(zip(arms, found, strict=True))
    ]


@drawing.styled
def _matrices_plot(name: str, label: str, disagreement: np.ndarray, correlation: np.ndarray, most: float) -> Plot:
    size = len(disagreement)
    figure, both = drawing.axes(2.7, columns=2)
    scales = (
        (100 * disagreement, "Answers differ, %", "Blues", 150 * most, 0),
        (correlation, "Errors correlate", "Oranges", 1.0, 2),
    )
    for axes, (values, title, colours, darkest, digits) in zip(both, scales, strict=True):
        pairs = np.where(np.eye(size, dtype=bool), np.nan, np.maximum(values, 0))
        numbers = np.where(np.eye(size, dtype=bool), np.nan, values) if size <= MOST_BRANCHES else None
        drawing.heat(axes, pairs, numbers=numbers, colours=colours, most=darkest, digits=digits)
        if size <= MOST_BRANCHES:
            axes.set_xticks(np.arange(size) + 0.5, range(size))
            axes.set_yticks(np.arange(size) + 0.5, range(size))
        axes.set_title(title)
        axes.set_xlabel("Branch")
    rows = [(i, j, disagreement[i, j], correlation[i, j]) for i in range(size) for j in range(size) if i < j]
    return Plot(
        name,
        f"Diversity of {label}",
        "Of each pair of branches; means over seeds. Pairs that differ often and err apart make a better ensemble.",
        figure,
        ("branch", "other branch", "share of images with different answers", "error correlation"),
        rows,
    )


def told_collapsed(study: Study) -> str:
    """Which ensembles have become one network, in a sentence."""
    found = []
    for arm in study.arms:
        if any(flags := arm.values("collapsed")):
            seeds = "" if all(flags) else f" (in {int(sum(flags))} of {len(flags)} seeds)"
            found.append(f"{study.label(arm)}{seeds}")
    if found:
        return f"Collapsed, branches that answer as one network: {'; '.join(found)}."
    return "No ensemble has collapsed: nowhere have the branches become one network."
