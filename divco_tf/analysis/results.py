"""results.jsonl: a row a cell of a sweep, done or failed."""

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from divco_tf import files
from divco_tf.errors import InputError

RESULTS = "results.jsonl"
_WAIT = 0.1  # seconds between looks at a lock, which is held for milliseconds


def is_sweep(folder: pathlib.Path) -> bool:
    """Whether a sweep lies there, or else a run.

    Raises:
      InputError: neither.
    """
    if (folder / RESULTS).is_file():
        return True
    if not (folder / "experiment.json").is_file():
        raise InputError(
            f"Neither a sweep ({RESULTS}) nor a run (experiment.json) lies there. Received: {folder}; divco-sweep's "
            "--out works."
        )
    return False


def read_rows(folder: str | pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a sweep, in the order in which their cells ended; none where there is no file yet.

    Raises:
      InputError: a line is no row.
    """
    path = files.local_path(folder, "the sweep's folder") / RESULTS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise InputError(f"{RESULTS} cannot be read ({error}). Received: {path}; put back a whole copy.") from error
    return [_row(line, number, path) for number, line in enumerate(lines, 1)]


def add_row(folder: pathlib.Path, row: Mapping[str, Any]) -> None:
    """Adds the row of a cell, in place of one that it has already; the file is whole for a reader at any time.

    Any number of processes may add rows.

    Raises:
      OSError: it cannot be written.
    """
    with _locked(folder):
        rows = {each["cell"]: each for each in read_rows(folder)}
        rows.pop(row["cell"], None)
        rows[row["cell"]] = row
        files.write_text(folder / RESULTS, "".join(json.dumps(each) + "\n" for each in rows.values()))


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    place = folder / ".results"
    place.mkdir(parents=True, exist_ok=True)
    with files.FolderLock(place) as lock:
        while True:
            try:
                lock.acquire("results", report=lambda line: None)
            except InputError:
                time.sleep(_WAIT)
            else:
                break
        yield


def _row(line: str, number: int, path: pathlib.Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("cell"), str) or row.get("status") not in ("done", "failed"):
        raise InputError(f"A line of {RESULTS} is no row. Received: line {number} of {path}; remove that line.")
    return row
