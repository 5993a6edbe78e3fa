"""Passes over whole sources: in parallel, in order, with progress."""

import concurrent.futures
from collections.abc import Callable, Iterator
from typing import TypeVar

from divco_tf.data.sources.request import THREADS, Report
from divco_tf.errors import InputError

_CHUNK = 256  # results that wait for their turn
_SHARES = 20  # lines of progress

Result = TypeVar("Result")


def in_order(
    function: Callable[[int], Result], count: int, *, threads: int | None, what: str, report: Report
) -> Iterator[Result]:
    """`function` of 0, 1, ..., count - 1, computed in `threads` (one a core by default), yielded in order.

    Memory holds at most 256 results. `report` receives "WHAT: 5,000 of 100,000 images" at every twentieth.

    Raises:
      InputError: the number of threads is not positive.
    """
    threads = THREADS if threads is None else threads
    if threads < 1:
        raise InputError(f"A number of threads. Received: {threads}; 1 or more would work.")
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            yield from pool.map(function, range(start, stop))
            if stop * _SHARES // count > start * _SHARES // count:
                report(f"{what}: {stop:,} of {count:,} images")
