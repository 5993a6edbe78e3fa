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
    path: pathlib.Path,
    record: Mapping[str, Any],
    build: Callable[[pathlib.Path], None],
    *,
    load: Callable[[pathlib.Path], Any] = lambda folder: folder,
    report: Report,
) -> Any:
    """What `load` makes of the folder `path`, which holds what `record` describes; anything else there is replaced.

    Processes that want the same folder take turns, and the later ones find it made.

    Args:
      path: the folder; the one it is in is made if need be.
      record: of what the contents depend on, as JSON has it.
      build: fills an empty folder. When it is killed or raises, nothing is left.
      load: reads the folder; unless given, its path is what comes back.
      report: receives a line when there is something to wait for.

    Raises:
      InputError: the folder cannot be written.
    """
    if _read_record(path) == record:  # may lie where nothing can be written
        with contextlib.suppress(FileNotFoundError):
            loaded = load(path)
            if _read_record(path) == record:  # nor was it replaced meanwhile
                return loaded
    with _alone(path.with_name(f".{path.name}.lock"), report):
        if _read_record(path) == record:  # by now
            with contextlib.suppress(FileNotFoundError):  # whoever empties temporary folders has begun with this one
                return load(path)
        try:
            if path.exists():
                files.remove_directory(path)
            with files.new_directory(path) as folder:
                build(folder)
                files.write_json(folder / _RECORD, record)
        except OSError as error:
            raise _not_writable(path.parent, error) from error
        return load(path)


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
        except OSError as error:  # some file systems have no locks
            raise _not_writable(path.parent, error) from error
        yield


def _opened(path: pathlib.Path) -> IO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "a")
    except OSError as error:
        raise _not_writable(path.parent, error) from error


def _not_writable(folder: pathlib.Path, error: OSError) -> InputError:
    return InputError(
        f"A folder cannot be written ({error.strerror or error}). Received: {folder}; choose another folder."
    )
