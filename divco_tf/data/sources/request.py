"""What is asked of a source that is opened, and what memory there is for it."""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import psutil

from divco_tf.errors import InputError

IO_THREADS = 16  # that mostly wait for the disk
THREADS = min(os.cpu_count() or 1, 16)  # that mostly compute

Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of `open_source`, checked and complete."""

    split: str
    held_out: float
    data_dir: pathlib.Path | None
    image_size: int
    on_error: str  # "raise" or "skip"
    memory_budget: int  # bytes
    index_dir: str | None
    report: Report
    listings: dict[pathlib.Path, Any]  # of folders, filled


def silent(line: str) -> None:
    """Reports nothing."""
    del line


def memory_budget_of(budget: int | None) -> int:
    """The bytes that decoded images may take: a quarter of what is free now, unless given.

    Raises:
      InputError: it is negative.
    """
    if budget is None:
        return _available() // 4
    if budget < 0:
        raise InputError(f"A budget of memory in bytes. Received: {budget}; 0 (keep nothing) or more would work.")
    return budget


def _available(group: pathlib.Path = pathlib.Path("/sys/fs/cgroup")) -> int:
    """Free memory in bytes: of the machine, or of the container where that has less (cgroup v2)."""
    available = psutil.virtual_memory().available
    try:
        limit = int((group / "memory.max").read_text())  # "max" without a limit
        used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, min(available, limit - int(used["anon"])))  # files that were read are given up when needed
    except (OSError, ValueError, KeyError):
        return available


def in_bytes(count: float) -> str:
    """A number of bytes for people: "33.8 kB", "154.0 MB", "12.3 GB"."""
    unit, size = next(((unit, size) for unit, size in (("GB", 1e9), ("MB", 1e6)) if count >= size), ("kB", 1e3))
    return f"{count / size:.1f} {unit}"
