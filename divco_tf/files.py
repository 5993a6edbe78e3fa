"""Files that are complete or absent: written beside, fsynced, renamed."""

import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

from divco_tf.errors import InputError

_UNFINISHED = ".unfinished-"
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")  # pathlib makes one slash of gs://'s two


def local_path(path: str | os.PathLike[str], purpose: str) -> pathlib.Path:
    """A user's path in this computer's file systems, `~` expanded.

    Args:
      path: as the user wrote it.
      purpose: what it is, for messages: "model_dir".

    Raises:
      InputError: it is no path, empty, a bucket's, or cannot be reached.
    """
    if not isinstance(path, str | pathlib.PurePath):
        raise InputError(f"{purpose} is no path. Received: {path!r}; pass the path of a local folder.")
    text = str(path)
    if not text.strip() or not text.isprintable():  # among these, what is not UTF-8, and line ends
        raise InputError(f"{purpose} is empty, or holds what cannot be printed. Received: {text!a}; name a folder.")
    if _REMOTE.match(text):
        raise InputError(
            f"{purpose} is not on this computer. Received: {text}; pass the path of a local folder (of a mounted "
            "bucket, say)."
        )
    try:
        found = pathlib.Path(text).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found.stat()
    except (OSError, RuntimeError) as error:  # no such user's home
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{purpose} cannot be reached ({why}). Received: {text}; choose another folder.") from error
    return found


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes `content` as indented JSON; a reader finds the old file or the new one, whole."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes `text`; a reader finds the old file or the new one, whole."""
    write_bytes(path, text.encode())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes `data`; a reader finds the old file or the new one, whole."""
    beside = path.with_name(f"{_UNFINISHED}{path.name}")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    _sync_directory(path.parent)


@contextlib.contextmanager
def new_directory(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder beside `path` that takes its name when the block ends well, and goes otherwise."""
    beside = path.with_name(f"{_UNFINISHED}{path.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        yield beside
        for root, _, names in os.walk(beside):
            for name in names:
                with open(os.path.join(root, name), "rb") as file:
                    os.fsync(file.fileno())
            _sync_directory(pathlib.Path(root))
        os.rename(beside, path)
        _sync_directory(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def remove_directory(path: pathlib.Path) -> None:
    """Removes a folder; under its name a reader finds it whole or not at all."""
    beside = path.with_name(f"{_UNFINISHED}{path.name}")
    shutil.rmtree(beside, ignore_errors=True)
    os.rename(path, beside)
    shutil.rmtree(beside)


def remove_unfinished(directory: pathlib.Path) -> None:
    """Removes what a killed process left unfinished in `directory`."""
    for path in directory.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def unused_name(path: pathlib.Path) -> pathlib.Path:
    """`path`, or with a number behind its name where something lies there already."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not name.exists())


def make_writable(directory: pathlib.Path, purpose: str) -> pathlib.Path:
    """Makes `directory`, and refuses one that cannot be written.

    Raises:
      InputError: it cannot be made or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f"{_UNFINISHED}probe-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may be removing what is unfinished
    except OSError as error:
        raise InputError(
            f"The {purpose} cannot be written ({error.strerror}). Received: {directory}; choose another folder."
        ) from error
    return directory


def _sync_directory(path: pathlib.Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
