"""The zip archives of torch.save: where each record lies. Records are stored as they are, never compressed."""

import io
import pathlib
import struct
import zipfile
from typing import NamedTuple

from divco_tf.torch_files.pickles import Malformed, shown

MAX_DIRECTORY = 12 << 20
"""Bytes. PyramidNet-272 at S=8 with its momentum, the largest of the paper's, has 24,645 records, in 3 MB. Of each
record, 46 bytes at least, zipfile makes an object of some 500."""


_HEADER = 30  # bytes before each record, which end with the lengths of what follows: its name, and fillings


class Place(NamedTuple):
    """Where bytes lie in a file."""

    start: int
    size: int
    crc: int | None = None  # CRC-32 of them, where the file has it


def records(path: pathlib.Path, data: memoryview) -> dict[str, Place]:
    """The records of an archive by name.

    Args:
      path: of the archive.
      data: its bytes.

    Raises:
      Malformed: the directory is damaged or too long, or records are compressed, encrypted or of one name, or they
        overlap.
    """
    try:
        with _Directory(path) as file, zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, OSError) as error:
        raise Malformed(
            f"it has no directory of records at its end, or a damaged one, as if truncated ({error})"
        ) from error
    found: dict[str, Place] = {}
    for entry in entries:
        if entry.compress_type or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
            raise Malformed(f"its record {shown(entry.filename)} is compressed or encrypted, as torch.save writes none")
        header = data[max(entry.header_offset, 0) :][:_HEADER]
        if bytes(header[:4]) != b"PK\x03\x04" or len(header) < _HEADER:
            raise Malformed("its directory is damaged, or points outside the file")
        start = entry.header_offset + _HEADER + sum(struct.unpack("<2H", header[26:]))
        if start + entry.file_size > len(data):
            raise Malformed(f"its record {shown(entry.filename)} lies outside the file")
        found[entry.filename] = Place(start, entry.file_size, entry.CRC or None)  # 0 where torch.save computed none
    if len(found) < len(entries):
        raise Malformed("two of its records have one name")
    if sum(place.size for place in found.values()) > len(data):  # each may be read, for its checksum
        raise Malformed("its records overlap")
    return found


class _Directory(io.FileIO):
    """The file, of which zipfile reads nothing but the directory, in one piece."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise Malformed(f"its directory of records has {size} bytes, more than any network's")
        return super().read(size)
