"""The sections of a report, in their order; one that has nothing to say is None."""

import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from divco_tf.analysis.report import branches, costs, differences, drawing, quality
from divco_tf.analysis.report.drawing import Plot
from divco_tf.analysis.report.effects import ACCURACY, CALIBRATION, LIKELIHOOD, MEASURES, Effect, over_seeds
from divco_tf.analysis.report.markup import (
    Section,
    badge,
    escaped,
    figures,
    interval_cell,
    legend,
    paragraph,
    table,
)
from divco_tf.analysis.report.pictures import pictures
from divco_tf.analysis.report.study import Arm, Study, Task

Records = Sequence[Mapping[str, Any]]
Effects = Mapping[str, Sequence[Effect]]
"""By the measure's name."""

_METRICS = (  # of the table of arms, with scale and decimals
    ("accuracy", 100, 2),
    ("negative_log_likelihood", 1, 3),
    ("expected_calibration_error", 100, 2),
)


def sections(
    study: Study, found: Effects, *, data_dir: str | None, latencies: Records, published: Records, command: str
) -> list[Section]:
    """All that there is to say; the arguments are those of `page`."""
    all_sections = (
        _differences(study, found),
        _arms(study),
        _costs(study, latencies, published),
        _confidence(study),
        _branches(study),
        _learning(study),
        _mistakes(study),
        _images(study, data_dir),
        _failed(study),
        _made(study, command),
    )
    return [section for section in all_sections if section is not None]


def _differences(study: Study, found: Effects) -> Section | None:
    if not any(found.values()):
        return None
    plots = [plot for measure in MEASURES for plot in differences.difference_plots(study, measure, found[measure.name])]
    by_label: dict[str, dict[str, Effect]] = {}
    for name, of_measure in found.items():
        for effect in of_measure:
            by_label.setdefault(effect.label, {})[name] = effect
    head = ("Arm", "Seeds", "Accuracy, points", "Verdict", "Seen from, points", "Log-likelihood, nats", "Verdict")
    numbers = [(name, *row) for name, of_measure in found.items() for row in differences.rows(of_measure)]
    whole = table(
        (*head, "Calibration error avoided, points"),
        [[label, *_compared(of_label)] for label, of_label in by_label.items()],
        numbers=("differences", ("measure", *differences.HEAD), numbers),
    )
    told = (
        f"Each arm minus {study.baseline}, paired by seed and by image; above 0 the arm is better. Below the numbers "
        "stand 95 % intervals: over seeds and images, and of the calibration error over seeds. An arm pays, or does "
        "not, if its interval excludes 0, the sign-flip test over seeds has p ≤ 0.05, and so has Student’s t test "
        "after Holm’s correction for all rows. “Seen from” is the difference that would have been seen with 80 % power."
    )
    parts = [_needed_legend(study), figures(plots), whole, paragraph(told, kind="note")]
    return Section("differences", f"Against {study.baseline}", parts)


def _legend(study: Study) -> str:
    return legend(drawing.looks(study.names, study.baseline))


def _needed_legend(study: Study) -> str:
    """Where names stand beside lines, unless there are too many."""
    return _legend(study) if drawing.crowded(study.names) else ""


def _compared(of_label: Mapping[str, Effect]) -> Iterator[str]:
    """The cells of an arm in the table of differences."""
    yield str(next(iter(of_label.values())).seeds)
    for measure, decimals in ((ACCURACY, 2), (LIKELIHOOD, 3), (CALIBRATION, 2)):
        effect = of_label.get(measure.name)
        yield interval_cell(effect.interval, decimals, sign=True) if effect else "–"
        if measure is not CALIBRATION:
            yield badge(effect.verdict.word) if effect else "–"
        if measure is ACCURACY:
            smallest = effect.verdict.smallest_difference if effect else math.inf
            yield "–" if math.isinf(smallest) else f"{100 * smallest:.2f}"


def _arms(study: Study) -> Section | None:
    if not study.arms:
        return None
    head = ("Arm", "Seeds", "Accuracy, %", "NLL, nats", "Calibration error, %")
    whole = table(
        (*head, "Parameters, M", "Multiply-adds, M", "Seconds a step"),
        [[study.label(arm), str(len(arm.results)), *_numbers(arm)] for arm in study.arms],
        numbers=_of_cells("cells", study, [name for name, *_ in _METRICS]),
    )
    told = (
        "Means over seeds; below them stand 95 % intervals over seeds (Student’s t; one seed has none). NLL is the "
        "negative log-likelihood, the calibration error is of 15 bins; of both less is better. Multiply-adds are of "
        "one image."
    )
    return Section("arms", "Arms", [whole, paragraph(told, kind="note")])


def _numbers(arm: Arm) -> Iterator[str]:
    """The cells of an arm in the table of arms."""
    for metric, scale, decimals in _METRICS:
        values = arm.values(metric)
        yield interval_cell(over_seeds(values).scaled(scale), decimals) if values else "–"
    for name, unit, decimals in (("parameters", 1e6, 3), ("multiply_adds", 1e6, 2), ("seconds_per_step", 1, 4)):
        values = arm.of_row(name)
        yield f"{sum(values) / len(values) / unit:,.{decimals}f}" if values else "–"


def _of_cells(name: str, study: Study, metrics: Sequence[str]) -> tuple[str, Sequence[str], Sequence[Sequence[Any]]]:
    """Metrics of each cell, to be downloaded."""
    rows = [
        (
            result.row["cell"],
            arm.name,
            study.told(arm.task),
            result.seed,
            *(result.metrics.get(metric) for metric in metrics),
        )
        for arm in study.arms
        for result in arm.results
    ]
    return name, ("cell", "arm", "task", "seed", *metrics), rows


def _costs(study: Study, latencies: Records, published: Records) -> Section | None:
    if not study.arms:
        return None
    parts = []
    if plots := costs.cost_plots(study, latencies):
        told = "Means over seeds; lines are 95 % intervals over seeds (Student’s t)."
        by_quality = [[plot for plot in plots if plot.name.startswith(quality)] for quality in ("accuracy", "negative")]
        parts += [paragraph(told, kind="note"), _legend(study), *map(figures, by_quality)]
    if latencies and not any(costs.latency_of(study.arms, latencies, each["batch_size"]) for each in latencies):
        parts.append(paragraph("No latency is of an arm here: backbone, S or parameters differ.", kind="note"))
    if plots := costs.published_plots(study, published):
        parts.append(f"<details><summary>As published</summary>{figures(plots)}</details>\n")
    return Section("costs", "Cost", parts) if parts else None


def _by_task(study: Study, draws: Mapping[str, Callable[[str, Study, Task], Plot | None]]) -> list[str]:
    """Plots of each kind for each task, a kind a block; one block where there is one task."""
    kinds = [
        [draw(f"{name}-{place}", study, task) for place, task in enumerate(study.tasks)] for name, draw in draws.items()
    ]
    blocks = kinds if len(study.tasks) > 1 else [list(itertools.chain(*kinds))]
    return [figures(block) for block in blocks]


def _confidence(study: Study) -> Section | None:
    parts = _by_task(study, {"reliability": quality.reliability_plot, "risk": quality.risk_coverage_plot})
    if any(parts):
        parts.insert(0, _needed_legend(study))
    if study.split == "test" and any(arm.of_row("calibrated") for arm in study.arms):
        parts += _calibrated(study)
    return Section("confidence", "Confidence", parts) if any(parts) else None


_CALIBRATED = (  # of rows, with head, scale and decimals
    ("temperature", "Temperature", 1, 3),
    ("negative_log_likelihood", "NLL then, nats", 1, 3),
    ("expected_calibration_error", "Calibration error then, %", 100, 2),
    ("set_size", "Classes a set", 1, 2),
    ("set_coverage", "Sets with the right class, %", 100, 2),
)


def _calibrated(study: Study) -> list[str]:
    """What temperatures and prediction sets make of the test images, in a table."""
    told = (
        "A temperature and prediction sets, fitted on held-out images and applied to the test images. A set holds the "
        "classes that are likely enough for 90 % of sets to have the right one among them; smaller is better."
    )
    rows = [[study.label(arm), *_after(arm)] for arm in study.arms if arm.of_row("calibrated")]
    names = next(arm.of_row("calibrated")[0] for arm in study.arms if arm.of_row("calibrated"))
    numbers = [
        (result.row["cell"], arm.name, study.told(arm.task), result.seed, *map(result.row["calibrated"].get, names))
        for arm in study.arms
        for result in arm.results
        if result.row.get("calibrated")
    ]
    head = ("Arm", *(head for _, head, _, _ in _CALIBRATED))
    whole = table(head, rows, numbers=("calibrated", ("cell", "arm", "task", "seed", *names), numbers))
    return [whole, paragraph(told, kind="note")]


def _after(arm: Arm) -> Iterator[str]:
    found = arm.of_row("calibrated")
    for name, _, scale, decimals in _CALIBRATED:
        yield interval_cell(over_seeds([each[name] for each in found]).scaled(scale), decimals)


def _branches(study: Study) -> Section | None:
    ensembles = [arm for arm in study.arms if any(each.branch_classes.shape[1] > 1 for each in arm.judged)]
    members = [branches.members_plot(f"members-{place}", study, task) for place, task in enumerate(study.tasks)]
    if not ensembles and not any(members):
        return None
    rows = [[study.label(arm), *_diverse(arm)] for arm in study.arms if arm.split_factor > 1 or arm in ensembles]
    shown = ensembles if len(ensembles) <= branches.MOST_MATRICES else [study.focus(task) for task in study.tasks]
    told = (
        "Means over pairs of branches and over seeds, with intervals over seeds. Where errors do not correlate (0), "
        "averaging helps most; where all are in common (1), it cannot help. Gains are shares of images, and nats."
    )
    parts = [
        figures(members),
        paragraph(branches.told_collapsed(study)),
        table(
            ("Arm", *branches.DIVERSITY.values(), "Collapsed"),
            rows,
            numbers=_of_cells("diversity", study, (*branches.DIVERSITY, *branches.MORE_DIVERSITY)),
        ),
        paragraph(told, kind="note"),
        figures(branches.matrices_plots(study, [arm for arm in shown if arm in ensembles])),
    ]
    return Section("branches", "Branches", parts)


def _diverse(arm: Arm) -> Iterator[str]:
    """The cells of an arm in the table of diversity."""
    for metric in branches.DIVERSITY:
        values = arm.values(metric)
        yield interval_cell(over_seeds(values), 3) if values else "–"
    flags = arm.values("collapsed")
    yield f"{int(sum(flags))} of {len(flags)}"


def _learning(study: Study) -> Section | None:
    metrics = {"accuracy": ("Accuracy, %", 100), "negative_log_likelihood": ("NLL, nats", 1)}
    draws = {
        f"curve-{metric}": functools.partial(quality.curve_plot, metric=metric, label=label, scale=scale)
        for metric, (label, scale) in metrics.items()
    }
    parts = _by_task(study, draws)
    return Section("learning", "Learning", [_needed_legend(study), *parts]) if any(parts) else None


def _focus(study: Study) -> Arm | None:
    """The arm that is looked at closely, of the task of the most training images that has kept its answers."""
    arms = [study.focus(task) for task in reversed(study.tasks)]
    return next((arm for arm in arms if arm.judged), None)


def _mistakes(study: Study) -> Section | None:
    arm = _focus(study)
    if arm is None:
        return None
    top = quality.top_confusions(study, arm)
    rows = [[f"{right} → {answer}", str(count), f"{share:.1f}"] for right, answer, count, share in top]
    most = table(("Right → answer", "Images", "% of the class"), rows) if rows else ""
    plot = quality.confusion_plot("confusion", study, arm)
    return Section("mistakes", "Mistakes", [f'<div class="beside">{figures([plot])}{most}</div>\n'])


def _images(study: Study, data_dir: str | None) -> Section | None:
    arm = _focus(study)
    return None if arm is None else Section("images", "Images", pictures(study, arm, data_dir=data_dir))


def _failed(study: Study) -> Section | None:
    if not study.failed:
        return None
    rows = [[row["cell"], row.get("reason", "–")] for row in study.failed]
    return Section("failed", "Failed cells", [table(("Cell", "Reason"), rows, texts=2)])


def _made(study: Study, command: str) -> Section:
    versions: dict[str, dict[str, None]] = {}
    for arm in study.arms:
        for result in arm.results:
            for name, version in result.row.get("versions", {}).items():
                versions.setdefault(name, {})[version] = None
    told = ", ".join(f"{name} {' and '.join(each)}" for name, each in versions.items())
    common = ", ".join(f"{key}={value}" for key, value in study.common.items() if key not in ("split_factor", "seed"))
    parts = [f"<pre>{escaped(command)}</pre>\n"] if command else []
    parts += [paragraph(f"Cells were made with {told}.")] if told else []
    parts += [paragraph(f"All cells have {common}.")] if common else []
    if study.experiment:
        text = escaped(json.dumps(study.experiment, indent=1))
        parts.append(f"<details><summary>The experiment</summary><pre>{text}</pre></details>\n")
    return Section("made", "How this was made", parts)
