"""Plots of what arms differ by from the baseline: arm beside arm, or against the amount of training data."""

import dataclasses
import pathlib
from collections.abc import Sequence

from divco_tf.analysis.report import drawing
from divco_tf.analysis.report.drawing import INK, Look, Plot
from divco_tf.analysis.report.effects import ACCURACY, Effect, Measure, bars, effects
from divco_tf.analysis.report.study import Study, Task, read_study
from divco_tf.data.datasets import get_dataset
from divco_tf.errors import InputError

HEAD = ("arm", "task", "seeds", "difference", "low", "high", "verdict")
_ABOVE = "Above 0 an arm is better than {baseline}; lines are 95 % intervals"


def save_main_plot(
    folder: str | pathlib.Path, path: str | pathlib.Path, *, baseline: str | None = None, measure: Measure = ACCURACY
) -> None:
    """Writes a sweep's main picture: differences to the baseline against the amount of training data, or arm by arm.

    Args:
      folder: of a sweep.
      path: of the picture, .svg or .png.
      baseline: the name of an arm; see `read_study`.
      measure: what is compared.

    Raises:
      InputError: no sweep, nothing that is compared, or another kind of file.
    """
    study = read_study(folder, baseline=baseline)
    plots = difference_plots(study, measure, effects(study, measure))
    if not plots:
        raise InputError(f"Nothing is compared. Received: {folder}; two arms with a seed in common would be.")
    drawing.save(plots[0], path)


def difference_plots(study: Study, measure: Measure, found: Sequence[Effect]) -> list[Plot]:
    """A plot for each dataset and backbone: against the amount of data where it varies, else arm by arm.

    Args:
      study: of which `found` are all `effects` of `measure`.
    """
    looks = drawing.looks(study.names, study.baseline)
    groups: dict[tuple[str, str], list[Effect]] = {}
    for effect in found:
        groups.setdefault((effect.arm.task.dataset, effect.arm.task.backbone), []).append(effect)
    plots = []
    for number, (group, of_group) in enumerate(groups.items()):
        known = {effect.arm.task for effect in of_group if training_images(effect.arm.task) is not None}
        more = ", ".join(group) if len(groups) > 1 else ""
        name = f"difference-{measure.name}{f'-{number}' * (len(groups) > 1)}"
        draw = _over_data if len(known) > 1 else _arm_by_arm
        plots.append(draw(name, more, study.baseline, measure, of_group, looks))
    return plots


def training_images(task: Task) -> int | None:
    """How many, if that is known."""
    return task.train_images or get_dataset(task.dataset).train_images


@drawing.styled
def _over_data(
    name: str, more: str, baseline: str, measure: Measure, found: Sequence[Effect], looks: dict[str, Look]
) -> Plot:
    from matplotlib.ticker import FuncFormatter, NullLocator

    figure, axes = drawing.axes(3.3)
    axes.set_xscale("log")
    axes.axhline(0, color=INK, linewidth=1)
    lines: dict[str, list[Effect]] = {}
    for effect in found:
        if training_images(effect.arm.task) is not None:
            lines.setdefault(effect.arm.name, []).append(effect)
    ends, amounts = [], sorted({training_images(effect.arm.task) for of_arm in lines.values() for effect in of_arm})
    for place, (arm, of_arm) in enumerate(lines.items()):
        look = looks[arm]
        # Side by side where they would lie on each other; the numbers are those of the ticks.
        aside = 1.035 ** (place - (len(lines) - 1) / 2)
        x = [training_images(effect.arm.task) * aside for effect in of_arm]
        y = [effect.interval.mean for effect in of_arm]
        style = {"color": look.colour, "marker": look.marker, "linestyle": look.line}
        axes.errorbar(x, y, yerr=bars([effect.interval for effect in of_arm]), elinewidth=1.4, **style)
        ends.append((x[-1], y[-1]))
    axes.set_xticks(amounts)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(False, axis="x")
    axes.set_xlabel("Training images")
    axes.set_ylabel(f"{_better(baseline)}:\n{measure.label}")
    drawing.label_points(axes, ends, list(lines), [looks[arm].colour for arm in lines], end=True)
    return Plot(
        name,
        _title(measure, baseline, "by the amount of training data", more),
        f"{_ABOVE.format(baseline=baseline)}, over {_covered(measure, found)}.",
        figure,
        HEAD,
        rows(found),
    )


@drawing.styled
def _arm_by_arm(
    name: str, more: str, baseline: str, measure: Measure, found: Sequence[Effect], looks: dict[str, Look]
) -> Plot:
    figure, axes = drawing.rows([effect.label for effect in found])
    axes.axvline(0, color=INK, linewidth=1)
    for place, effect in enumerate(found):
        look = looks[effect.arm.name]
        style = {"color": look.colour, "marker": look.marker, "markersize": 7, "elinewidth": 2.2}
        axes.errorbar([effect.interval.mean], [-place], xerr=bars([effect.interval]), **style)
    axes.margins(x=0.08)
    axes.set_xlabel(f"{_better(baseline)}: {measure.label} →")
    return Plot(
        name,
        _title(measure, baseline, "arm by arm", more),
        f"{_ABOVE.format(baseline=baseline).replace('Above', 'Right of')}, over {_covered(measure, found)}.",
        figure,
        HEAD,
        rows(found),
    )


def _better(baseline: str) -> str:
    """Of an axis, which has room for a short name."""
    return f"Better than {baseline if len(baseline) <= 12 else 'the baseline'}"


def _title(measure: Measure, baseline: str, how: str, more: str) -> str:
    what = measure.name.replace("_", "-").capitalize()
    return f"{what} against {baseline}, {how}" + f" ({more})" * bool(more)


def _covered(measure: Measure, found: Sequence[Effect]) -> str:
    if measure.scores is None:
        return "seeds (Student’s t)"
    return "images only, as there is one seed" if all(effect.seeds == 1 for effect in found) else "seeds and images"


def rows(found: Sequence[Effect]) -> list[tuple]:
    """Of a table of effects, under `HEAD`."""
    return [
        (
            *(effect.arm.name, effect.arm.task.amount, effect.seeds, *dataclasses.astuple(effect.interval)),
            effect.verdict.word if effect.verdict else "",
        )
        for effect in found
    ]
