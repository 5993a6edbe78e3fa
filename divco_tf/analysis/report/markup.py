"""HTML of a report's parts; all that comes from outside is escaped here."""

import dataclasses
import html
from collections.abc import Sequence
from typing import Any

from divco_tf.analysis.report.drawing import Look, Plot, csv_link, svg, variable
from divco_tf.analysis.report.effects import Interval


class Markup(str):
    """Text that is HTML already."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
      name: of its anchor.
      title: its heading.
      parts: HTML.
    """

    name: str
    title: str
    parts: Sequence[str]

    def html(self) -> str:
        """With its heading."""
        return f'<section id="{self.name}"><h2>{escaped(self.title)}</h2>{"".join(self.parts)}</section>\n'


def escaped(text: Any) -> str:
    """As HTML, unless it is HTML."""
    return str(text) if isinstance(text, Markup) else html.escape(str(text))


def paragraph(text: Any, *, kind: str = "") -> str:
    """A paragraph of a class of page.css; a percent sign stays with its number."""
    told = escaped(text).replace(" %", "\N{NO-BREAK SPACE}%")
    return f"<p{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{told}</p>\n"


def figures(plots: Sequence[Plot | None]) -> str:
    """Plots side by side, as many as there is room for; what is told of all of them stands above."""
    shown = [plot for plot in plots if plot is not None]
    if not shown:
        return ""
    common = len(shown) > 1 and len({plot.told for plot in shown}) == 1
    told = paragraph(shown[0].told, kind="note") if common and shown[0].told else ""
    return f'{told}<div class="plots">{"".join(_figure(plot, told=not common) for plot in shown)}</div>\n'


def _figure(plot: Plot, *, told: bool) -> str:
    """A plot, its title, how it is read, and its numbers to take along."""
    caption = f"<b>{escaped(plot.title)}.</b> {escaped(plot.told) if told else ''}"
    return f"<figure>{svg(plot)}<figcaption>{caption} {_download(plot.name, plot.csv())}</figcaption></figure>\n"


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    texts: int = 1,
    numbers: tuple[str, Sequence[str], Sequence[Sequence[Any]]] | None = None,
) -> str:
    """A table that scrolls within its box.

    Args:
      head: of its columns.
      rows: of cells, text or `Markup`.
      texts: how many columns from the left are text; the others stand flush right.
      numbers: what is downloaded: name, head and rows.
    """
    columns = "".join(f'<th scope="col"{_flush(place, texts)}>{escaped(each)}</th>' for place, each in enumerate(head))
    body = ""
    for first, *rest in rows:
        cells = (f"<td{_flush(place, texts)}>{escaped(cell)}</td>" for place, cell in enumerate(rest, 1))
        body += f'<tr><th scope="row" class="text">{_breakable(first)}</th>{"".join(cells)}</tr>\n'
    link = ""
    if numbers is not None:
        name, *content = numbers
        link = f"<p>{_download(name, csv_link(*content))}</p>"
    whole = f"<table><thead><tr>{columns}</tr></thead>\n<tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="Table">{whole}</div>{link}\n'


def interval_cell(interval: Interval, decimals: int, *, sign: bool = False) -> Markup:
    """A mean above its interval."""
    mean, _, ends = interval.told(decimals, sign=sign).partition(" (")
    return Markup(f"{mean}<small>{ends.removesuffix(')')}</small>" if ends else mean)


def legend(looks: dict[str, Look]) -> str:
    """What colours stand for."""
    marks = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚"}
    items = (
        f'<li><span style="color: var(--{variable(look.colour)})">{marks[look.marker]}</span> {escaped(name)}</li>'
        for name, look in looks.items()
    )
    return f'<ul class="legend">{"".join(items)}</ul>\n'


def badge(word: str) -> Markup:
    """A verdict's word."""
    return Markup(f'<span class="badge {word.split()[0].replace("does", "not")}">{escaped(word)}</span>')


def _download(name: str, address: str) -> str:
    return f'<a class="csv" download="{escaped(name)}.csv" href="{escaped(address)}">CSV</a>'


def _breakable(name: Any) -> str:
    """A long name, which a narrow column breaks behind a dot or an equals sign rather than anywhere."""
    return escaped(name).replace(".", ".<wbr>").replace("=", "=<wbr>")


def _flush(place: int, texts: int) -> str:
    return ' class="text"' * (place < texts)
