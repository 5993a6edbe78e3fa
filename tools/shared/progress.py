"""Progress in a terminal: one live line with a bar, and lines above it. A file or a pipe has lines only."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from divco_tf.tools.shared import streams

if TYPE_CHECKING:
    from tqdm import tqdm

    from divco_tf.runs.progress import Standing

Item = TypeVar("Item")

_FORMAT = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}"


class Live:
    """What a program shows while it works.

    Attributes:
      watch: for `train`, shows where a run stands; None where no terminal shows it, and `train` tells lines instead.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet, self._bar = quiet or streams.quiet(), None
        self.watch: Callable[[Standing], None] | None = None
        if self._quiet:
            self.watch = lambda standing: None
        elif _in_terminal():
            self.watch = self._show

    def tell(self, line: str) -> None:
        """Prints a line of progress, above the live one."""
        if not self._quiet:
            with self._set_aside():
                streams.tell(line)

    def close(self) -> None:
        """Removes the live line."""
        if self._bar is not None:
            self._bar.close()

    @contextlib.contextmanager
    def _set_aside(self) -> Iterator[None]:
        if self._bar is None:
            yield
        else:
            with self._bar.external_write_mode(file=sys.stderr):
                yield

    def _show(self, standing: "Standing") -> None:
        from divco_tf.runs.progress import clock_told

        if self._bar is None:
            self._bar = _bar(standing.total_steps)
        self._bar.n = standing.step
        self._bar.set_postfix_str(
            f"{standing.losses}  accuracy {standing.accuracy:.4f}  {standing.images_per_second:.0f} images/s  "
            f"{clock_told(standing.seconds_left)} left"
        )


@contextlib.contextmanager
def live(*, quiet: bool = False) -> Iterator[Live]:
    """A `Live`, whose line is gone when the block ends."""
    shown = Live(quiet=quiet)
    try:
        yield shown
    finally:
        shown.close()


def counted(items: Iterable[Item], total: int, *, what: str, quiet: bool = False) -> Iterator[Item]:
    """The items, with a bar in a terminal that counts them; silent elsewhere.

    Args:
      items: each is done when the next one is asked for.
      total: how many there are.
      what: they are, "images".
      quiet: shows nothing.
    """
    if quiet or streams.quiet() or not _in_terminal():
        yield from items
        return
    with contextlib.closing(_bar(total)) as bar:
        bar.set_postfix_str(what)
        for item in items:
            yield item
            bar.update()


def warn(line: str) -> None:
    """Prints a line on stderr, above what `counted` shows."""
    if not _in_terminal():
        streams.warn(line)
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        streams.warn(line)


def _in_terminal() -> bool:
    return sys.stderr.isatty()


def _bar(total: int) -> "tqdm":
    from tqdm import tqdm

    return tqdm(total=total, file=sys.stderr, bar_format=_FORMAT, dynamic_ncols=True, leave=False)
