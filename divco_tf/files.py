"""Files that are complete or absent: written beside under a name of their own, fsynced, renamed.

Any number of processes may write into one folder. What is unfinished is locked as long as its writer lives, so that
the remains of killed ones, which nobody locks, can be told from it.
"""

import contextlib
import errno
import fcntl
import io
import itertools
import json
import os
import pathlib
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from divco_tf.errors import InputError, shown

_UNFINISHED = ".unfinished-"
_LOCK = ".lock"
_PATTERN = re.compile(r"[*?\[\\]")
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")  # pathlib makes one slash of gs://'s two

_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}
"""How file systems say that they do not fsync a directory (CIFS, vboxsf, FUSE's): passed over, as git does."""


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
    if not text.strip() or shown(text) != text:  # among these, what is not UTF-8, and line ends
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


def write_npz(path: pathlib.Path, arrays: dict[str, Any]) -> None:
    """Writes numpy arrays by name, compressed; a reader finds the old file or the new one, whole."""
    import numpy as np

    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_bytes(path, content.getvalue())


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes `data`; a reader finds the old file or the new one, whole. Of several writers the last one's stays."""
    while (lock := _locked(beside := _beside(path), os.O_EXCL)) is None:
        pass
    with open(lock, "wb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(beside, path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    _sync_directory(path.parent)


@contextlib.contextmanager
def new_directory(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an empty folder beside `path` that takes its name when the block ends well, and goes otherwise.

    Raises:
      FileExistsError: something lies at `path`, and is no empty folder; it is left as it is.
    """
    with unfinished_directory(path.parent, path.name) as folder:
        yield folder
        take_name(folder, path)


@contextlib.contextmanager
def unfinished_directory(parent: pathlib.Path, name: str) -> Iterator[pathlib.Path]:
    """Yields an empty folder in `parent` that goes when the block ends, unless `take_name` has made it another's.

    Args:
      parent: made if need be.
      name: the folder's, inside of one that is hidden. What killed writers of the same name left goes.
    """
    remove_unfinished(parent, name)
    lock = None
    while lock is None:
        beside = _beside(parent / name)
        beside.mkdir(parents=True)
        lock = _locked(beside / _LOCK)
    try:
        (beside / name).mkdir()
        yield beside / name
    finally:
        os.close(lock)
        shutil.rmtree(beside, ignore_errors=True)


def take_name(folder: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """Gives a folder that is complete its name, `path`, which of several writers one gets. Returns it.

    Raises:
      FileExistsError: something lies at `path`, and is no empty folder.
    """
    for root, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_directory(pathlib.Path(root))
    try:
        os.rename(folder, path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        raise
    _sync_directory(path.parent)
    return path


def remove_directory(path: pathlib.Path) -> None:
    """Removes a folder; under its name a reader finds it whole or not at all."""
    beside = _beside(path)
    os.rename(path, beside)
    with contextlib.suppress(FileNotFoundError):  # another process may be removing what is unfinished
        shutil.rmtree(beside)


def remove_unfinished(directory: pathlib.Path, name: str = "") -> None:
    """Removes from `directory` what killed processes left unfinished, of names that begin with `name`.

    What is being written stays, and so does all where the file system has no locks to tell the one from the other.
    """
    for path in [path for path in directory.glob(f"{_UNFINISHED}*") if path.name.startswith(_UNFINISHED + name[:48])]:
        is_folder = path.is_dir()
        with contextlib.suppress(OSError):
            lock = _open_lock(path / _LOCK if is_folder else path, os.O_CREAT if is_folder else 0)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True) if is_folder else path.unlink()
            finally:
                os.close(lock)
            shutil.rmtree(path, ignore_errors=True)  # NFS keeps the name of what is open until it is closed


def why_unwritten(error: Exception) -> str:
    """The cause in an OSError, or in TensorFlow's OpError, whose text ends with it: "...; No space left on device"."""
    return getattr(error, "strerror", None) or getattr(error, "message", str(error)).split("; ")[-1].split(" [Op")[0]


def unused_name(path: pathlib.Path) -> pathlib.Path:
    """`path`, or with a number behind its name where something lies there already."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return next(name for name in itertools.chain([path], numbered) if not name.exists())


@contextlib.contextmanager
def without_patterns(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a folder under a name that TensorFlow does not take for a pattern, as its readers do with "lr=[0.1]"."""
    if not _PATTERN.search(str(folder)):
        yield folder
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        alias = pathlib.Path(f"/proc/self/fd/{descriptor}")
        if alias.is_dir():
            yield alias
            return
        with tempfile.TemporaryDirectory() as temporary:  # no Linux
            link = pathlib.Path(temporary) / "folder"
            link.symlink_to(folder.absolute())
            yield link
    finally:
        os.close(descriptor)


class FolderLock:
    """Keeps other processes from writing into a folder as long as this one lives; a killed one leaves no lock.

    Args:
      folder: in which the lock lies, a hidden file.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self._lock = folder, None

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *_: Any) -> None:
        self.release()

    def acquire(self, purpose: str, *, report: Callable[[str], None]) -> None:
        """Takes the lock, unless it has been taken; a file system that has no locks is reported.

        Raises:
          InputError: another process holds it.
        """
        if self._lock is not None:
            return
        try:
            self._lock = _open_lock(self._folder / _LOCK, os.O_CREAT)
            if not _flocked(self._lock):
                os.close(self._lock)
                self._lock = None
                raise InputError(
                    f"{purpose} is in use. Received: {self._folder}, {self._told()}; wait for it, or choose another."
                )
        except NotADirectoryError:  # a file lies there: whoever writes says so
            return
        except OSError as error:
            report(
                f"{purpose} cannot be locked ({error.strerror}): nothing keeps a second process out of {self._folder}"
            )
            return
        with contextlib.suppress(OSError):  # a full disk, say: the lock holds all the same
            os.ftruncate(self._lock, 0)
            os.write(self._lock, f"{os.getpid()} on {socket.gethostname()}\n".encode())

    def holder(self) -> str | None:
        """Who holds it, for a line; None: nobody."""
        try:
            lock = _open_lock(self._folder / _LOCK, 0)
        except OSError:
            return None
        try:
            return None if _flocked(lock) else self._told()
        except OSError:
            return None
        finally:
            os.close(lock)

    def release(self) -> None:
        """Gives it back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _told(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            return f"by process {(self._folder / _LOCK).read_text().strip() or '?'}"
        return "by another process"


def _flocked(lock: int) -> bool:
    """Whether a lock could be had; who only looks at one holds it for a moment."""
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


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


def _beside(path: pathlib.Path) -> pathlib.Path:
    """A name for what is to become `path`, which no other writer has. File systems take 255 bytes at most."""
    return path.with_name(f"{_UNFINISHED}{path.name[:48]}-{os.getpid()}-{secrets.token_hex(4)}")


def _locked(path: pathlib.Path, flags: int = 0) -> int | None:
    """Makes a file and locks it until its descriptor is closed; None: a cleaning process was faster, and removes it."""
    try:
        lock = _open_lock(path, os.O_CREAT | flags)
    except FileNotFoundError:
        if path.name == _LOCK and not path.parent.exists():
            return None
        raise
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError:  # a file system without locks: see `remove_unfinished`
        return lock
    if path.exists():
        return lock
    os.close(lock)
    return None


def _open_lock(path: pathlib.Path, flags: int) -> int:
    return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o666)


def _sync_directory(path: pathlib.Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
