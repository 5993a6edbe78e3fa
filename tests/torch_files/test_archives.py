"""Where the records of an archive lie, and directories that are refused."""

import dataclasses
import struct

import numpy as np
import pytest

from divco_tf.errors import InputError
from divco_tf.torch_files import archives
from tests.torch_files import made as files
from tests.torch_files.made import Record


def test_archives_without_64_bit_fields_are_read(read):
    records = files.zip_records(files.state_dict(files.ARRAYS))
    files.assert_equal(read(files.archive(records, zip64=False, comment=b"saved by hand")).tensors, files.ARRAYS)


def test_checksums_that_were_not_computed_are_passed_over(read):
    unchecked = [dataclasses.replace(record, crc=0) for record in files.zip_records(files.state_dict(files.ARRAYS))]
    files.assert_equal(read(files.archive(unchecked)).tensors, files.ARRAYS)


def records(**changes):
    """The records of a good file, the first storage's changed."""
    found = files.zip_records(files.state_dict(files.ARRAYS))
    for name, value in changes.items():
        setattr(found[2], name, value)
    return found


def named(name: str, content: bytes = b"") -> list[Record]:
    return [*records(), Record(name, content)]


BAD_ARCHIVES = {
    "a compressed record": (records(method=8), "'net/data/0' is compressed"),
    "an encrypted record": (records(flags=0x809), "'net/data/0' is compressed or encrypted"),
    "a record that says it unpacks to more": (records(size=2**40), "compressed"),
    "a record larger than the file": (records(size=2**40, packed=2**40), "'net/data/0' lies outside"),
    "a record of 2^64 bytes": (records(size=2**64 - 1, packed=2**64 - 1), "outside"),
    "a record behind the file": (records(offset=2**40), "points outside the file"),
    "a record in the place of another": (records(offset=0), "storage '0' is damaged"),
    "a record too short for its storage": (records(content=b"1234"), "storage '0' of 48 bytes is of 4 bytes"),
    "another checksum": (records(crc=1), "storage '0' is damaged"),
    "no such storage": (records()[:2] + records()[3:], "storage '0' of 48 bytes is missing"),
    "a record twice": (named("net/version"), "two of its records have one name"),
    "two pickles": (named("other/data.pkl"), "2 of its records is a data.pkl"),
    "no pickle": (records()[1:], "none of its records is a data.pkl"),
    "a program": (named("net/constants.pkl"), "TorchScript"),
    "numbers of a big-endian machine": (
        [records()[0], Record("net/byteorder", b"big"), *records()[2:]],
        "not little-endian",
    ),
}


@pytest.mark.parametrize(("records", "says"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_archives_that_torch_does_not_write_are_refused(refused, records, says):
    assert says in refused(files.archive(records))


def test_records_of_more_bytes_than_the_file_are_refused(refused):
    """Each is read for its checksum: a thousand names for one record would take a thousand times as long."""
    again = [Record(f"net/{index}", b"", size=9000, packed=9000, offset=0) for index in range(9)]
    assert "overlap" in refused(files.archive([Record("net/data.pkl", b"x" * 10_000), *again]))


@pytest.mark.parametrize("size", [0, 100, archives.MAX_DIRECTORY + 1, 2**63, 2**64 - 1])
def test_a_directory_of_another_length_than_it_says_is_refused(refused, size):
    content = bytearray(files.archive(records()))
    struct.pack_into("<Q", content, len(content) - 58, size)
    assert ("none of its records" if size == 0 else "directory") in refused(bytes(content))


def test_a_flipped_bit_of_an_archive_is_noticed_or_changes_nothing(read, refused):
    value = {"epoch": 300, "state_dict": files.state_dict({"w": np.ones(3, np.float32)})}
    whole = files.zip_file(value)
    noticed = 0
    for index in range(len(whole)):
        flipped = bytearray(whole)
        flipped[index] ^= 1 << index % 8
        try:
            found = read(bytes(flipped))
        except InputError:
            noticed += 1
        else:
            files.assert_equal(found.tensors, {"w": np.ones(3, np.float32)})
            assert found.facts == {"epoch": 300}
    assert noticed > len(files.pickled(value)[0])
