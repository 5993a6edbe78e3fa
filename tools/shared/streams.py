"""The programs' streams: closed ones, a reader that has gone, a full disk, and start-up noise that is held back."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO


def open_closed() -> None:
    """Opens on the null device what the process was started without (`2>&-`; cron and supervisors do it).

    Otherwise the next file that is opened gets the stream's number, and what is meant for stderr is written into it.
    Letters that stdout's encoding lacks (a file name that is no UTF-8) are escaped, as on stderr.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            silence(descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def silence(descriptor: int) -> None:
    """Turns a descriptor to the null device: Python flushes its streams once more when it ends, and complains."""
    null = os.open(os.devnull, os.O_RDWR)
    if null == descriptor:
        os.set_inheritable(null, True)
    else:
        os.dup2(null, descriptor)
        os.close(null)


class Stdout:
    """stdout, remembering why it could not be written: an OSError of its own is told from a program's."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """As a stream's."""
        with self._noted():
            return self.stream.write(text)

    def flush(self) -> None:
        """As a stream's."""
        with self._noted():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            raise

    def finish(self) -> OSError | None:
        """Writes what is left; returns why not all could be written. Nothing is tried again then."""
        with contextlib.suppress(OSError):
            self.flush()
        if self.error is not None:
            silence(self.stream.fileno())
        return self.error


_told = {"progress": "stdout", "notes": "stderr"}  # where, of this process's program; None: nowhere


def route(*, quiet: bool = False, json: bool = False) -> None:
    """Says where progress and notes go: with `json` not to stdout, with `quiet` nowhere."""
    _told["progress"] = None if quiet else "stderr" if json else "stdout"
    _told["notes"] = None if quiet else "stderr"


def quiet() -> bool:
    """Whether --quiet was given."""
    return _told["notes"] is None


def tell(line: str) -> None:
    """Prints a line of progress. A run outlives its reader, and a disk that is full of its lines."""
    if _told["progress"] == "stderr":
        warn(line)
    elif _told["progress"]:
        try:
            print(line, flush=True)
        except OSError:
            sys.stdout.error = None


def note(line: str) -> None:
    """Prints a line on stderr, unless --quiet."""
    if _told["notes"]:
        warn(line)


def warn(line: str) -> None:
    """Prints a line on stderr, or nowhere: a full disk is no fault of a run."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        silence(2)


@contextlib.contextmanager
def stderr_held() -> Iterator[None]:
    """Holds back what is written to file descriptor 2, and shows it if the block raises.

    In memory, or in a temporary file; where there is neither, nothing is held back.
    """
    held = _nameless_file()
    if held is None:
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


@contextlib.contextmanager
def temporary_folder_named() -> Iterator[None]:
    """Lets modules name a temporary folder while they are imported, where there is none: TensorFlow's tests do."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        tempfile.tempdir = os.sep
        try:
            yield
        finally:
            tempfile.tempdir = None  # whoever needs one is told so
    else:
        yield


def _nameless_file() -> BinaryIO | None:
    with contextlib.suppress(AttributeError, OSError):  # Linux has memfd_create, unless a sandbox forbids it
        return os.fdopen(os.memfd_create("stderr"), "w+b")
    with contextlib.suppress(OSError):
        return tempfile.TemporaryFile()
    return None
