"""What tells one split's data from another's, so that a run goes on with the data it was begun with."""

import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from divco_tf.data.sources.layout import composed
from divco_tf.data.sources.parallel import from_disk

FILES = "files_crc32"
"""In a fingerprint: checksums of parts of the image files, since 0.2.0."""

_PARTS = 32
_SAMPLE = 4096  # bytes of one file a part
_OTHERS = 0.5  # a run goes on where a few files were replaced, not with others


def file_parts(root: pathlib.Path, paths: Sequence[str]) -> list[int]:
    """Checksums of names and sizes of the files of each of 32 parts, and of the middle of a file's content.

    A name says in which part its file counts, so a file that is replaced changes one part of 32, and other photographs
    under the same names change all.
    """
    parts: list[list[str]] = [[] for _ in range(_PARTS)]
    files: list[list[str]] = [[] for _ in range(_PARTS)]
    for path, size in zip(paths, from_disk(lambda path: _size(f"{root}/{path}"), paths), strict=True):
        name = composed(path)
        part = zlib.crc32(_encoded(name)) % _PARTS
        parts[part].append(f"{name} {size}\n")
        files[part].append(path)
    return [
        zlib.crc32(_middle(f"{root}/{inside[0]}"), zlib.crc32(_encoded("".join(lines)))) if inside else 0
        for lines, inside in zip(parts, files, strict=True)
    ]


def same_data(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> bool:
    """Whether a run that was begun with one fingerprint may go on with another."""
    if before is None or now is None:
        return before == now
    return _counts(before) == _counts(now) and _changed(before, now) < _OTHERS


def difference(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str:
    """How data differ that are not the same, for a line."""
    one, other = before or {}, now or {}
    names = [name for name in {**one, **other} if name != FILES and one.get(name) != other.get(name)]
    told = [f"data.{name} {other.get(name)!r} (there {one.get(name)!r})" for name in names]
    return ", ".join(told) or "data of as many images and the same labels, but other files"


def told_of_data(before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> str | None:
    """What there is to say of data that a run may go on with, if they are not known to be equal."""
    if before is None or now is None or FILES not in now or before == now:
        return None
    if FILES not in before:
        return (
            "the run was begun by a release that did not record which image files it had: their number and labels are "
            "the same, the files are taken on trust"
        )
    return "some image files have changed since the run was begun; it goes on with them as they are"


def _counts(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fingerprint.items() if name != FILES}


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """The share of parts with files that differ; 0 where a release did not record them."""
    if FILES not in before or FILES not in now:
        return 0.0
    pairs = [pair for pair in zip(before[FILES], now[FILES], strict=True) if any(pair)]
    return sum(one != other for one, other in pairs) / max(len(pairs), 1)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # gone; who reads it will say so
        return -1


def _middle(path: str) -> bytes:
    """The middle of a file: its beginning may be what a camera writes everywhere."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _SAMPLE) // 2)
            return file.read(_SAMPLE)
    except OSError:
        return b""


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
