"""Signals that are heard between steps."""

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from divco_tf.errors import Preempted


class Interrupts:
    """Signals between steps instead of anywhere: `check` raises what Ctrl-C (SIGINT) or SIGTERM asked for.

    A KeyboardInterrupt raised inside of a TensorFlow call can be lost, or corrupt the heap (TensorFlow 2.21:
    "malloc_consolidate(): invalid chunk size" in a third of the processes that were interrupted in a training step). A
    second signal acts at once. `numbers` are the signals, both if none is named. Outside the main thread, or where the
    program handles a signal itself, nothing changes.
    """

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers or (signal.SIGINT, signal.SIGTERM)
        self._asked: set[int] = set()
        self._replaced: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        self._note_all(self._numbers)
        return self

    def __exit__(self, *_: Any) -> None:
        self._restore(self._replaced)

    @contextlib.contextmanager
    def noting(self, number: int) -> Iterator[None]:
        """A further signal is kept for `check` in this context."""
        added = self._note_all((number,))
        try:
            yield
        finally:
            self._restore(added)

    @property
    def terminated(self) -> bool:
        """Whether SIGTERM came."""
        return signal.SIGTERM in self._asked

    def check(self, *, terminations: bool = True) -> None:
        """To be called where it is safe.

        Args:
          terminations: False leaves SIGTERM to who asks for `terminated`.

        Raises:
          KeyboardInterrupt: SIGINT came.
          Preempted: SIGTERM came.
        """
        if signal.SIGINT in self._asked:
            raise KeyboardInterrupt
        if terminations and self.terminated:
            raise Preempted("SIGTERM came.")

    def _note_all(self, numbers: Sequence[int]) -> list[int]:
        """Takes signals whose handlers are Python's own; returns those."""
        if threading.current_thread() is not threading.main_thread():
            return []
        defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        taken = [number for number in numbers if signal.getsignal(number) is defaults[number]]
        for number in taken:
            self._replaced[number] = defaults[number]
            signal.signal(number, self._note)
        return taken

    def _restore(self, numbers: Iterable[int]) -> None:
        for number in list(numbers):
            signal.signal(number, self._replaced.pop(number))

    def _note(self, number: int, _: Any) -> None:
        self._asked.add(number)
        signal.signal(number, self._replaced[number])
