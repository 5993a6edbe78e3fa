"""Plots as inline SVG, and what all have in common: size, type, palette, labels beside what they name.

Figures are matplotlib's without pyplot. They are narrow, so that their text can be read on a telephone, and take
their colours from the page (variables of CSS, light and dark).
"""

import csv
import dataclasses
import functools
import html
import io
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from divco_tf import files
from divco_tf.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b1f24", "#667080", "#d8dde3"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which people with any colour vision tell apart (jfly.uni-koeln.de/color); ink is the baseline's."""
MARKERS = "osD^vP"

_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", **{colour: f"c{n}" for n, colour in enumerate(COLOURS)}}

_MOST_LINES = 14  # of names beside a plot
_WIDTH = 4.6  # inches of 72 units: what a telephone shows, at the size that text has here
_STYLE = {
    **{"font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "text.color": INK, "axes.labelcolor": MUTED},
    **{"axes.edgecolor": GRID, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 1},
    **{"xtick.color": GRID, "ytick.color": GRID, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED},
    **{"axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.6, "axes.axisbelow": True},
    **{"lines.linewidth": 1.6, "lines.markersize": 5.5, "errorbar.capsize": 0, "legend.frameon": False},
    **{"svg.fonttype": "none", "axes.unicode_minus": True, "axes.formatter.useoffset": False},
    **{"figure.constrained_layout.use": True, "axes.titlecolor": MUTED},
}


@dataclasses.dataclass(frozen=True)
class Look:
    """Of an arm, the same in all plots."""

    colour: str
    marker: str
    line: str = "-"


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot with what is told of it.

    Attributes:
      name: unique on the page: of its elements and of its file.
      title: what it shows.
      told: how it is read.
      figure: of matplotlib.
      head, rows: its numbers as a table.
    """

    name: str
    title: str
    told: str
    figure: "Figure"
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def csv(self) -> str:
        """The numbers as a link's address holds them."""
        return csv_link(self.head, self.rows)


def csv_link(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as the address of a link that downloads it as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return f"data:text/csv;charset=utf-8,{quote(text.getvalue())}"


def variable(colour: str) -> str:
    """Of CSS, that has one of our colours, for light and for dark."""
    return _VARIABLES[colour]


def looks(names: Sequence[str], baseline: str | None) -> dict[str, Look]:
    """Of arms by name: ink for the baseline, colours for the others, with other markers where colours come again."""
    others = [name for name in names if name != baseline]
    found = {
        name: Look(
            COLOURS[place % len(COLOURS)],
            MARKERS[place // len(COLOURS) % len(MARKERS)],
            ("-", "--", ":", "-.")[place // len(COLOURS) % 4],
        )
        for place, name in enumerate(others)
    }
    return {name: found.get(name, Look(INK, "o")) for name in names}


def styled(function: Callable) -> Callable:
    """A function that draws, in the style of the report, whatever the user's matplotlibrc says."""

    @functools.wraps(function)
    def drawn(*arguments: Any, **options: Any) -> Any:
        import matplotlib.style

        with matplotlib.style.context(["default", _STYLE]):
            return function(*arguments, **options)

    return drawn


def axes(height: float = 3.2, *, columns: int = 1, width: float = _WIDTH) -> tuple["Figure", Any]:
    """A figure and its axes, several side by side if asked for; sizes in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(1, columns)


def rows(labels: Sequence[str]) -> tuple["Figure", "Axes"]:
    """Axes with a name for each of the heights 0, -1, -2, ... and no scale of heights."""
    labels = [wrapped(label) for label in labels]
    figure, found = axes(0.85 + sum(0.22 + 0.17 * (label.count("\n") + 1) for label in labels))
    found.set_ylim(-len(labels) + 0.4, 0.6)
    found.set_yticks([-place for place in range(len(labels))], labels, color=INK, fontsize=9)
    found.tick_params(axis="y", length=0)
    found.grid(False, axis="y")
    found.spines["left"].set_visible(False)
    return figure, found


def svg(plot: Plot) -> str:
    """A plot as an element of a page: the same bytes for the same plot, and ids that no other has."""
    text = _svg_text(plot.figure, plot.name)
    text = re.sub(r'\bid="', f'id="{plot.name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{plot.name}-", text)
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text).groups()
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(plot.title)}">'
        f"<title>{html.escape(plot.title)}</title>"
    )
    return re.sub(r"<svg .*?>", lambda _: head, text, count=1, flags=re.DOTALL)


def save(plot: Plot, path: str | pathlib.Path) -> None:
    """Writes a plot into a file of its own, on white.

    Args:
      plot: of this package.
      path: ends with .svg or .png.

    Raises:
      InputError: it ends otherwise.
    """
    import matplotlib.style

    path = files.local_path(path, "a plot's file")
    if path.suffix not in (".svg", ".png"):
        raise InputError(f"A plot is written as .svg or .png. Received: {path}; {path.with_suffix('.svg')} works.")
    content = io.BytesIO()
    with matplotlib.style.context(["default", _STYLE, {"svg.hashsalt": plot.name}]):
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        plot.figure.savefig(content, format=path.suffix[1:], dpi=200, facecolor="white", metadata=metadata)
    files.write_bytes(path, content.getvalue())


def label_points(
    axes: "Axes", points: Sequence[tuple[float, float]], labels: Sequence[str], colours: Sequence[str], *, end: bool
) -> None:
    """Writes names beside points, moved up and down where they would lie on each other.

    None are written where they are too many (`crowded`).

    Args:
      axes: whose limits and scales are set.
      points: x and y of each.
      labels: of each.
      colours: of each.
      end: points are ends of lines, and names stand in the right margin; else beside each point, where there is room.
    """
    if not points or crowded(labels):
        return
    axes.autoscale_view()  # matplotlib puts it off until it draws
    to_axes = axes.transScale + axes.transLimits
    places = to_axes.transform(np.asarray(points, float))
    height = axes.get_figure().get_size_inches()[1] * 72 * 0.8  # of the axes, about
    names = [wrapped(label) for label in labels]
    lines = np.array([name.count("\n") + 1 for name in names])
    heights = spread(places[:, 1], 11.5 * lines / height)
    for (x, _), place, name, colour in zip(places, heights, names, colours, strict=True):
        left = end or x < 0.6
        axes.annotate(
            name,
            xy=(1.0 if end else x, place),
            xycoords="axes fraction",
            xytext=(5, 0) if end else (8 if left else -8, 7),
            textcoords="offset points",
            ha="left" if left else "right",
            va="center",
            color=colour,
            fontsize=9,
            annotation_clip=False,
        )


def heat(
    axes: "Axes", values: np.ndarray, *, numbers: np.ndarray | None, colours: str, most: float, digits: int = 0
) -> None:
    """A matrix as colours, with the numbers in its cells if there is room; NaN has no colour, and no number."""
    from matplotlib import colormaps

    normed = values / (most or 1)
    image = colormaps[colours].copy().with_extremes(bad=(0, 0, 0, 0))
    if numbers is None:
        axes.imshow(normed, cmap=image, vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.pcolormesh(np.ma.masked_invalid(normed), cmap=image, vmin=0, vmax=1, edgecolors="none")
        for (row, column), number in np.ndenumerate(numbers):
            # Light cells have dark numbers, in either theme; a cell without a colour has those of the page.
            shade = normed[row, column]
            colour = INK if np.isnan(shade) else "white" if shade > 0.6 else "black"
            told = f"{number:.{digits}f}"
            if np.isfinite(number) and float(told):
                axes.text(column + 0.5, row + 0.5, told, ha="center", va="center", fontsize=8, color=colour)
        axes.set_ylim(len(values), 0)
    axes.set_aspect("equal")
    axes.get_figure().set_layout_engine("compressed")
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def crowded(names: Sequence[str]) -> bool:
    """Whether so many names have no room beside a plot, and a legend is needed."""
    return sum(wrapped(name).count("\n") + 1 for name in names) > _MOST_LINES


def wrapped(name: str, width: int = 22) -> str:
    """A name on as many lines as it needs, broken behind commas; a part that is too long loses its middle."""
    lines: list[str] = []
    for part in name.split(", "):
        if len(part) > width:
            part = f"{part[: width // 2]}…{part[1 - width // 2 :]}"
        if lines and len(lines[-1]) + len(part) + 2 <= width:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return ",\n".join(lines)


def spread(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The places within 0..1 nearest to `values`, by least squares, at which things of some sizes do not overlap.

    They keep their order. Where there is no room for all, they begin at 0 and go on above 1.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(values, kind="stable")
    ordered = np.asarray(sizes, float)[order]
    # Of its own place, what things below it take; what is left must not descend.
    below = np.cumsum(ordered) - ordered / 2
    free = max(1 - ordered.sum(), 0.0)
    found = np.empty(len(order))
    found[order] = np.clip(isotonic_regression(np.asarray(values, float)[order] - below).x, 0, free) + below
    return found


def _svg_text(figure: "Figure", name: str) -> str:
    import matplotlib.style

    content = io.StringIO()
    with matplotlib.style.context(["default", _STYLE, {"svg.hashsalt": name}]):
        figure.savefig(content, format="svg", transparent=True)
    text = content.getvalue()
    text = text[text.index("<svg ") :]
    for unneeded in ("<metadata>.*?</metadata>", "<!--.*?-->", r"<defs>\s*<style.*?</defs>"):
        text = re.sub(rf"{unneeded}\s*", "", text, flags=re.DOTALL)
    return re.sub(r"font-family: [^;\"]*;? ?", "", re.sub(r"(font: [\d.]+px) [^;\"]*", r"\1 sans-serif", text))
