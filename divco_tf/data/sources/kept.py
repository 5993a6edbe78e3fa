"""Folders of derived files that are kept between runs, and made anew when what they derive from has changed."""

import contextlib
import fcntl
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from divco_tf import files
from divco_tf.data.sources.request import Report
from divco_tf.errors import InputError

_RECORD = "record.json"


def kept(
    path: pathlib.Path, record: Mapping[str, Any], build: Callable[[pathlib.Path], None], *, report: Report
) -> pathlib.Path:
    """The folder `path` of what `record` describes; what lies there and is something else is replaced.

    Processes that want the same folder take turns, and the later ones find it made.

    Args:
      path: the folder; the one it is in is made if need be.
      record: of what the contents depend on, as JSON has it.
      build: fills an empty folder. When it is killed or raises, nothing is left.
      report: receives a line when there is something to wait for.

    Raises:
      InputError: the folder cannot be written.
    """
    if _read_record(path) == record:  # may lie where nothing can be written
        return path
    with _alone(path.with_name(f".{path.name}.lock"), report):
        if _read_record(path) == record:  # by now
            return path
        if path.exists():
            files.remove_directory(path)
        with files.new_directory(path) as folder:
            build(folder)
            files.write_json(folder / _RECORD, record)
    return path


def _read_record(path: pathlib.Path) -> Any:
    try:
        return json.loads((path / _RECORD).read_text())
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def _alone(path: pathlib.Path, report: Report) -> Iterator[None]:
    """Holds a lock that the system gives back when the process ends, however it does."""
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another process, which holds {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _opened(path: pathlib.Path) -> IO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a")
    except OSError as error:
        raise InputError(
            f"A folder cannot be written ({error.strerror}). Received: {path.parent}; choose another folder."
        ) from error
