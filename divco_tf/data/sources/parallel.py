"""Passes over many images or files, in parallel and in order."""

import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from divco_tf.data.sources.request import IO_THREADS, THREADS, Report
from divco_tf.errors import InputError

_CHUNK = 256  # images
_SHARES = 20  # lines of progress

Item, Result = TypeVar("Item"), TypeVar("Result")


def from_disk(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`function` of each item, in order, in threads that mostly wait for the disk.

    They take slices: a call of its own for each of a million small files would cost more than reading them.
    """
    slices = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    with concurrent.futures.ThreadPoolExecutor(IO_THREADS) as pool:
        for results in pool.map(lambda part: [function(item) for item in part], slices):
            yield from results


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
