"""Plots of how good arms are against what they cost, as figure 1 of the paper; and the paper's own."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from divco_tf import files
from divco_tf.analysis.report import drawing
from divco_tf.analysis.report.drawing import COLOURS, INK, MUTED, Plot
from divco_tf.analysis.report.effects import bars, over_seeds
from divco_tf.analysis.report.study import Arm, Study, Task
from divco_tf.errors import InputError

MOST_LABELS = 8  # beside points; more would lie on each other, and the legend of the page has all

_QUALITIES = (("accuracy", "Accuracy, %", 100), ("negative_log_likelihood", "NLL, nats", 1))
_COSTS = (("parameters", "Parameters, millions", 1e6), ("multiply_adds", "Multiply-adds an image, millions", 1e6))


def read_latencies(path: str | pathlib.Path) -> list[Mapping[str, Any]]:
    """The latencies in a JSON file of `divco-benchmark latency --out`.

    Raises:
      InputError: it cannot be read, or is something else.
    """
    path = files.local_path(path, "the file of latencies")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["systems"]["latencies"]
        for record in found:
            _latency_key(record), float(record["p50"]), int(record["batch_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"These are no latencies ({type(error).__name__}). Received: {path}; divco-benchmark latency --out writes "
            "them."
        ) from error
    return found


def cost_plots(study: Study, latencies: Sequence[Mapping[str, Any]] = ()) -> list[Plot]:
    """Accuracy and NLL against parameters, multiply-adds and latency; a plot each, of all tasks of a dataset."""
    plots = []
    datasets = list(dict.fromkeys(task.dataset for task in study.tasks))
    for number, dataset in enumerate(datasets):
        arms = [arm for arm in study.arms if arm.task.dataset == dataset]
        more = f"-{number}" * (len(datasets) > 1)
        for quality in _QUALITIES:
            for cost, label, unit in _COSTS:
                x = {id(arm): arm.of_row(cost)[0] / unit for arm in arms if arm.of_row(cost)}
                plots.append(_cost_plot(f"{quality[0]}-{cost}{more}", study, arms, x, quality, label))
            for batch_size in sorted({record["batch_size"] for record in latencies}):
                x = latency_of(arms, latencies, batch_size)
                label = f"Latency of {batch_size} image{'s' * (batch_size > 1)}, ms"
                plots.append(_cost_plot(f"{quality[0]}-latency{batch_size}{more}", study, arms, x, quality, label))
    return [plot for plot in plots if plot is not None]


def latency_of(arms: Sequence[Arm], latencies: Sequence[Mapping[str, Any]], batch_size: int) -> dict[int, float]:
    """Milliseconds (p50) of the fastest way of each network that was timed, by the arm's id.

    A network is the same if it has the backbone, S and the number of parameters. Monte Carlo dropout answers several
    times, which was not timed.
    """
    fastest: dict[tuple, float] = {}
    for record in latencies:
        if record["batch_size"] == batch_size:
            key = _latency_key(record)
            fastest[key] = min(fastest.get(key, float("inf")), 1e3 * record["p50"])
    timed = {}
    for arm in arms:
        row = arm.results[0].row
        if not row["arguments"].get("dropout_samples") and _latency_key(row) in fastest:
            timed[id(arm)] = fastest[_latency_key(row)]
    return timed


def published_plots(study: Study, published: Sequence[Mapping[str, Any]]) -> list[Plot]:
    """The paper's rows of the study's datasets: accuracy against parameters and multiply-adds.

    Args:
      study: whose datasets count.
      published: "rows" of paper_tables.json.
    """
    plots = []
    for dataset in dict.fromkeys(task.dataset for task in study.tasks):
        rows = [row for row in published if row["dataset"] == dataset and ("top1_error" in row or "top1" in row)]
        for cost, label in (("mparams", "Parameters, millions"), ("gmacs", "Multiply-adds an image, 10⁹")):
            if rows:
                plots.append(_published_plot(f"published-{dataset}-{cost}", dataset, rows, cost, label))
    return plots


@drawing.styled
def _cost_plot(
    name: str, study: Study, arms: Sequence[Arm], x: Mapping[int, float], quality: tuple[str, str, float], label: str
) -> Plot | None:
    metric, y_label, scale = quality
    looks = drawing.looks(study.names, study.baseline)
    arms = [arm for arm in arms if id(arm) in x and arm.values(metric)]
    if len(arms) < 2:
        return None
    figure, axes = drawing.axes()
    y = {id(arm): over_seeds([scale * value for value in arm.values(metric)]) for arm in arms}
    tasks = list(dict.fromkeys(arm.task for arm in arms))
    for task in tasks:
        line = sorted((x[id(arm)], y[id(arm)].mean) for arm in arms if arm.task == task)
        axes.plot(*zip(*line, strict=True), color=MUTED, linewidth=0.8, alpha=0.6)
    for arm in arms:
        look, interval = looks[arm.name], y[id(arm)]
        style = {"color": look.colour, "marker": look.marker, "markersize": 7}
        axes.errorbar([x[id(arm)]], [interval.mean], yerr=bars([interval]), **style)
    _scale_costs(axes, list(x.values()))
    axes.set_xlabel(label)
    axes.set_ylabel(y_label)
    axes.margins(x=0.15)
    low, high = axes.get_ylim()  # an interval of few seeds may reach beyond what can be
    axes.set_ylim(max(low, 0), min(high, 100) if metric == "accuracy" else high)
    if len(tasks) > 1:
        ends = [max((x[id(arm)], y[id(arm)].mean) for arm in arms if arm.task == task) for task in tasks]
        drawing.label_points(axes, ends, [study.told(task) for task in tasks], [MUTED] * len(tasks), end=True)
    elif len(arms) <= MOST_LABELS:
        points = [(x[id(arm)], y[id(arm)].mean) for arm in arms]
        names, colours = [arm.name for arm in arms], [looks[arm.name].colour for arm in arms]
        drawing.label_points(axes, points, names, colours, end=False)
    rows = [
        (arm.name, *_of_task(arm.task), len(arm.values(metric)), x[id(arm)], interval.mean, interval.low, interval.high)
        for arm in arms
        for interval in [y[id(arm)]]
    ]
    head = ("arm", "dataset", "backbone", "training images", "seeds", label, y_label, "low", "high")
    title = f"{y_label.partition(',')[0]} against {label.partition(',')[0].removesuffix(' an image').lower()}"
    return Plot(name, title, "", figure, head, rows)


@drawing.styled
def _published_plot(name: str, dataset: str, rows: Sequence[Mapping[str, Any]], cost: str, label: str) -> Plot:
    figure, axes = drawing.axes(4.0)
    lines: dict[str, list[tuple[float, float, int]]] = {}
    for row in rows:
        accuracy = float(row["top1"]) if "top1" in row else 100 - float(row["top1_error"])
        of = f"{row['backbone']}, {row['epochs']} epochs" + f", {row['crop']} px" * (dataset == "imagenet")
        lines.setdefault(of, []).append((float(row[cost]), accuracy, row["split_factor"]))
    ends = []
    for line in lines.values():
        line.sort(key=lambda point: point[2])
        axes.plot([x for x, _, _ in line], [y for _, y, _ in line], color=MUTED, linewidth=0.8)
        ends.append(line[-1][:2])
    factors = sorted({factor for line in lines.values() for _, _, factor in line})
    for place, factor in enumerate(factors):
        points = [(x, y) for line in lines.values() for x, y, s in line if s == factor]
        colour = INK if factor == 1 else COLOURS[(place - 1) % len(COLOURS)]
        axes.plot(*zip(*points, strict=True), "o", color=colour, label=f"S={factor}")
    axes.legend(loc="lower right", labelcolor="linecolor", handletextpad=0, fontsize=9)
    _scale_costs(axes, [x for line in lines.values() for x, _, _ in line])
    axes.set_xlabel(label)
    axes.set_ylabel("Top-1 accuracy, %")
    names = [of.partition(",")[0] for of in lines] if len(lines) > MOST_LABELS else list(lines)
    if len(lines) <= 2 * MOST_LABELS:
        drawing.label_points(axes, ends, names, [MUTED] * len(lines), end=True)
    table = [(of, factor, x, y) for of, line in lines.items() for x, y, factor in line]
    return Plot(
        name,
        f"Published for {dataset}: accuracy against {label.partition(',')[0].removesuffix(' an image').lower()}",
        "As the paper prints them, by another recipe and with other backbones: a reference, no comparison.",
        figure,
        ("row", "S", label, "top-1 accuracy, %"),
        table,
    )


def _scale_costs(axes: Any, costs: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    if max(costs) > 4 * min(costs):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))


def _latency_key(record: Mapping[str, Any]) -> tuple:
    return record["backbone"], record["split_factor"], record["parameters"]


def _of_task(task: Task) -> tuple[str, str, str]:
    return task.dataset, task.backbone, "all" if task.train_images is None else str(task.train_images)
