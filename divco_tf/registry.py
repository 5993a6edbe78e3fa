"""One registry class: names, suggestions for misspelt ones, plugins by decorator and by entry point."""

import contextlib
import difflib
import importlib.metadata
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from divco_tf.errors import InputError

Entry = TypeVar("Entry")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A sentence for the end of an error: the names closest to `name`, or all of them when they are few.

    Returns " Did you mean ...?", " Available: ..." or "" (nothing close, too many to list).
    """
    by_lower = {known.lower(): known for known in sorted(names)}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=3, cutoff=0.6)
    if close:
        return f" Did you mean {' or '.join(by_lower[match] for match in close)}?"
    return f" Available: {', '.join(by_lower.values())}." if 0 < len(by_lower) <= 12 else ""


class Registry(Generic[Entry]):
    """Entries by name.

    Args:
      noun: what an entry is, for messages ("backbone").
      entry_points: the group of entry points under which other packages announce theirs. An entry
        point names a module (or anything in one) whose import registers the entries.
      listed_by: the command that shows all entries, for messages.
    """

    def __init__(self, noun: str, *, entry_points: str | None = None, listed_by: str | None = None) -> None:
        self.noun = noun
        self._listed = f" {listed_by} shows every {noun}." if listed_by else ""
        self._group = entry_points
        self._entries: dict[str, Entry] = {}
        self._parsers: list[tuple[str, Callable[[str], Entry | None]]] = []
        self._loaded: dict[str, Exception | None] = {}  # by entry point, what went wrong

    def add(self, name: str, entry: Entry) -> None:
        """Adds `entry` under `name`; a name is given once.

        Raises:
          InputError: the name is taken.
        """
        if name in self._entries:
            raise InputError(
                f"The {self.noun} {name} is registered already. Received: {entry!r}; choose another name "
                f"(registered: {self._entries[name]!r})."
            )
        self._entries[name] = entry

    def add_parser(self, shape: str, parse: Callable[[str], Entry | None]) -> None:
        """Adds a family of names of the form `shape` ("wide_resnet<depth>_<width>").

        `parse` returns the entry that a name stands for, or None when the name is not of the form.
        """
        self._parsers.append((shape, parse))

    def get(self, name: str) -> Entry:
        """The entry called `name`; plugins are loaded when no built-in entry has that name.

        Raises:
          InputError: nothing is called so.
        """
        if not self.has(name):
            self._load_plugins()
        entry = self._find(name)
        if entry is None:
            names = [*self._entries, *self._alike(name)]
            shapes = "".join(f" Also any {shape}." for shape, _ in self._parsers)
            none = "" if self._entries or shapes else " None is registered; an import, or a package, registers them."
            broken = "".join(
                f" The plugin {plugin}, which may have it, cannot be loaded ({_told(error)})."
                for plugin, error in self._loaded.items()
                if error is not None
            )
            raise InputError(
                f"Unknown {self.noun}. Received: {name}.{did_you_mean(name, names)}{shapes}{none}{broken}{self._listed}"
            )
        return entry

    def has(self, name: str) -> bool:
        """Whether an entry is called `name`, here or in the plugin of that name."""
        if self._find(name) is None:
            self._load_plugins(only=name)
        return self._find(name) is not None

    def names(self) -> tuple[str, ...]:
        """All names, plugins included, sorted; the forms of parametric names are not among them."""
        self._load_plugins()
        return tuple(sorted(self._entries))

    def shapes(self) -> tuple[str, ...]:
        """The forms of parametric names, as given to `add_parser`."""
        return tuple(shape for shape, _ in self._parsers)

    def entries(self) -> tuple[Entry, ...]:
        """All entries, in the order of `names()`."""
        return tuple(self._entries[name] for name in self.names())

    def _find(self, name: str) -> Entry | None:
        if name in self._entries:
            return self._entries[name]
        return next((entry for _, parse in self._parsers if (entry := parse(name)) is not None), None)

    def _alike(self, name: str) -> Iterator[str]:
        """Parametric names with the parameters that `name` ends with."""
        parameters = re.search(r"\d.*", name)
        for shape, parse in self._parsers if parameters else ():
            alike = f"{shape.partition('<')[0]}{parameters[0]}"
            with contextlib.suppress(InputError):
                if parse(alike) is not None:
                    yield alike

    def _load_plugins(self, only: str | None = None) -> None:
        if self._group is None:
            return
        for point in importlib.metadata.entry_points(group=self._group):
            if only is not None and point.name != only:
                continue
            if point.value not in self._loaded:  # a broken one is not tried again: its import may take seconds
                try:
                    point.load()
                    self._loaded[point.value] = None
                except Exception as error:
                    self._loaded[point.value] = error
            # Somebody else's package must not break ours unless it was asked for by name.
            if only is not None and (error := self._loaded[point.value]) is not None:
                raise InputError(
                    f"The plugin of {self.noun} {point.name} cannot be loaded ({_told(error)}). "
                    f"Received: entry point {point.value}; reinstall or remove that package."
                ) from error


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
