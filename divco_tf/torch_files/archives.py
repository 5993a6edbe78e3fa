"""The zip archives of torch.save: where each record lies. Records are stored as they are, never compressed.

Python's zipfile makes an object of 600 bytes of each directory entry of 46, whatever their number; this reads the
same directory (PKWARE's APPNOTE 6.3.3, sections 4.3.7 to 4.3.16), counts first, and refuses what overlaps.
"""

import itertools
import struct
from typing import NamedTuple

from divco_tf.torch_files.pickles import Malformed, shown

MAX_RECORDS = 100_000
"""PyramidNet-272 at S=8 with its momentum, the largest of the paper's, has 24,645."""

_END, _END64, _LOCATOR64 = "<4s4H2IH", "<4sQ2H2I4Q", "<4sIQI"
_ENTRY, _LOCAL = "<4s6H3I5H2I", "<4s5H3I2H"
_BEYOND_16, _BEYOND_32 = 0xFFFF, 0xFFFFFFFF  # "the number stands in the 64-bit field"


class Place(NamedTuple):
    """Where bytes lie in a file."""

    start: int
    size: int
    crc: int | None = None  # CRC-32 of them, where the file has it


def records(data: memoryview) -> dict[str, Place]:
    """The records of an archive by name.

    Raises:
      Malformed: the directory is damaged, or records are compressed, encrypted, too many or overlapping.
    """
    count, directory, end = _directory(data)
    if count > MAX_RECORDS:
        raise Malformed(f"it has {count} records, more than any network")
    found: dict[str, Place] = {}
    extents = [(directory, len(data))]
    position = directory
    for _ in range(count):
        _, _, _, flags, method, _, _, crc, packed, size, *lengths, _, _, _, offset = _unpack(
            _ENTRY, data, position, b"PK\x01\x02"
        )
        position += struct.calcsize(_ENTRY)
        raw_name, extra = (
            bytes(data[start : start + length])
            for start, length in ((position, lengths[0]), (position + lengths[0], lengths[1]))
        )
        position += sum(lengths)
        name = raw_name.decode("utf-8", "backslashreplace")
        size, packed, offset = _long_numbers(extra, [size, packed, offset])
        if method or flags & 1 or size != packed:
            raise Malformed(f"its record {shown(name)} is compressed or encrypted, which torch.save does not do")
        *_, name_length, extra_length = _unpack(_LOCAL, data, offset, b"PK\x03\x04")
        start = offset + struct.calcsize(_LOCAL) + name_length + extra_length
        if name in found or bytes(data[start - name_length - extra_length : start - extra_length]) != raw_name:
            raise Malformed(f"its record {shown(name)} is there twice, or goes by two names")
        found[name] = Place(start, size, crc or None)  # 0 where torch.save was told to compute none
        extents.append((offset, start + size))
    if position > end:
        raise Malformed("its directory is longer than it says")
    extents.sort()
    if any(stop > following for (_, stop), (following, _) in itertools.pairwise(extents)):
        raise Malformed("its records overlap, or lie outside the file")
    return found


def _directory(data: memoryview) -> tuple[int, int, int]:
    """The number of records, and where their directory starts and ends."""
    tail = bytes(data[-struct.calcsize(_END) - _BEYOND_16 :])
    end = len(data) - len(tail) + tail.rfind(b"PK\x05\x06")
    if end < len(data) - len(tail):
        raise Malformed("it has no directory of records at its end, as if truncated")
    *_, count, size, start, _ = _unpack(_END, data, end)
    if count == _BEYOND_16 or _BEYOND_32 in (size, start):
        locator = end - struct.calcsize(_LOCATOR64)
        _, _, end, _ = _unpack(_LOCATOR64, data, locator, b"PK\x06\x07")
        *_, count, size, start = _unpack(_END64, data, end, b"PK\x06\x06")
    if start + size > end:
        raise Malformed("its directory lies outside the file")
    return count, start, start + size


def _long_numbers(extra: bytes, numbers: list[int]) -> list[int]:
    """An entry's numbers, those that do not fit into 32 bits taken from its 64-bit field."""
    position = 0
    while _BEYOND_32 in numbers and position + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            field = extra[position + 4 : position + 4 + size]
            longs = iter(struct.unpack_from(f"<{len(field) // 8}Q", field))
            return [next(longs, _BEYOND_32) if number == _BEYOND_32 else number for number in numbers]
        position += 4 + size
    return numbers


def _unpack(form: str, data: memoryview, position: int, signature: bytes = b"") -> tuple:
    if not 0 <= position <= len(data) - struct.calcsize(form):
        raise Malformed("its directory points outside the file")
    fields = struct.unpack_from(form, data, position)
    if not fields[0].startswith(signature):
        raise Malformed("its directory is damaged")
    return fields
