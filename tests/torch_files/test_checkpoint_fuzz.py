"""Damaged and hostile files by the thousand: one line or a state dict, at once, in little memory."""

import dataclasses
import itertools
import json
import os
import pathlib
import pickletools
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from divco_tf.errors import InputError
from divco_tf.models.torch_weights import import_state_dict
from divco_tf.torch_files import archives, pickles
from divco_tf.torch_files.checkpoint import read_checkpoint
from tests import tiny
from tests.models.test_torch_weights import state_dict
from tests.torch_files import made as files

ROOT = pathlib.Path(__file__).resolve().parents[2]
STACK = tiny.tiny_stack()
VALUE = files.checkpoint(state_dict(STACK))
WHOLE = {name: write(VALUE) for name, write in files.WRITERS.items()}
RECORDS = files.zip_records(VALUE)
PICKLES = {name: files.pickled(VALUE, legacy=name == "legacy")[0] for name in files.WRITERS}
OPCODES = [bytes([code]) for code in pickles.Unpickler.dispatch]

# Bytes that mean something to one of the parsers: opcodes with their arguments, signatures, extreme numbers, names.
PIECES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from(OPCODES),
    st.builds(lambda code, index: code + bytes([index]), st.sampled_from([b"h", b"q"]), st.integers(0, 255)),
    st.sampled_from([b"\xff" * size for size in (1, 2, 4, 8)] + [b"\x00" * size for size in (1, 2, 4, 8)]),
    st.sampled_from([b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"\x80\x02", b"."]),
    st.builds(lambda number: struct.pack("<Q", number), st.integers(0, 2**64 - 1)),
    st.builds(lambda number: struct.pack("<I", number), st.integers(0, 2**32 - 1)),
    st.sampled_from(
        [b"cos\nsystem\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"c__builtin__\nset\n)\x81"]
    ),
)


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """`content` after a few cuts, swaps, repetitions, insertions and overwritings, anywhere."""
    content = bytearray(content)
    for _ in range(draw(st.sampled_from([1, 1, 2, 4]))):
        place = draw(st.integers(0, len(content)))
        end = min(place + draw(st.integers(1, 200)), len(content))
        piece = draw(PIECES)
        match draw(st.sampled_from(["overwrite", "insert", "delete", "repeat", "flip", "truncate"])):
            case "overwrite":
                content[place : place + len(piece)] = piece
            case "insert":
                content[place:place] = piece
            case "delete":
                del content[place:end]
            case "repeat":
                content[end:end] = content[place:end]
            case "flip" if place < len(content):
                content[place] ^= 1 << draw(st.integers(0, 7))
            case "truncate":
                del content[max(place, 20) :]
    return bytes(content)


def split(content: bytes) -> list[bytes]:
    """A pickle's opcodes, each with its argument."""
    places = [place for _, _, place in pickletools.genops(content)]
    return [content[start:end] for start, end in itertools.pairwise([*places, len(content)])]


@st.composite
def rewritten(draw, opcodes: list[bytes]) -> bytes:
    """A pickle after one to three opcodes were dropped, repeated, exchanged or given other numbers."""
    opcodes = list(opcodes)
    places = st.integers(0, len(opcodes) - 1)
    for _ in range(draw(st.integers(1, 3))):
        place, other = draw(places), draw(places)
        match draw(st.sampled_from(["drop", "copy", "exchange", "replace", "number", "number"])):
            case "drop":
                opcodes[place] = b""
            case "copy":
                opcodes[place] += opcodes[other]
            case "exchange":
                opcodes[place], opcodes[other] = opcodes[other], opcodes[place]
            case "replace":
                opcodes[place] = opcodes[other]
            case "number":
                numbers = [index for index, opcode in enumerate(opcodes) if opcode[:1] in b"KMJhrjq" and opcode]
                size = len(opcodes[place := draw(st.sampled_from(numbers))]) - 1
                opcodes[place] = opcodes[place][:1] + draw(st.binary(min_size=size, max_size=size))
    return b"".join(opcodes)


@st.composite
def damaged_records(draw) -> bytes:
    """An archive whose directory tells something else of one of its records; checksums are right unless told."""
    records = [dataclasses.replace(record) for record in RECORDS]
    record = records[draw(st.integers(0, len(records) - 1))]
    number = st.one_of(st.integers(0, 200), st.integers(0, 2**64 - 1), st.just(2**32 - 1))
    for field in draw(st.lists(st.sampled_from(["size", "packed", "offset", "both", "name", "content"]), min_size=1)):
        value = draw(number)
        match field:
            case "both":
                record.size = record.packed = value
            case "name":
                record.name = records[draw(st.integers(0, len(records) - 1))].name
            case "content":
                record.content = draw(damaged(record.content))
            case _:
                setattr(record, field, value)
    return files.archive(records, count=draw(st.one_of(st.none(), st.integers(1, 2**64 - 1))))


OPCODES_OF = {name: split(content) for name, content in PICKLES.items()}


@st.composite
def hostile_files(draw) -> bytes:
    """A damaged file of either format; or one whose pickle alone is damaged, and its checksum right."""
    name = draw(st.sampled_from(sorted(WHOLE)))
    match draw(st.sampled_from(["file", "pickle", "pickle", "pickle", "records"])):
        case "file":
            return draw(damaged(WHOLE[name]))
        case "pickle":
            content = draw(st.one_of(damaged(PICKLES[name]), rewritten(OPCODES_OF[name]), rewritten(OPCODES_OF[name])))
            if name == "legacy":
                return WHOLE[name].replace(PICKLES[name], content)
            return files.archive([dataclasses.replace(RECORDS[0], content=content), *RECORDS[1:]])
        case _:
            return draw(damaged_records())


class Seen:
    """What became of the files of a test: how many were read and refused, and the slowest's seconds."""

    read = refused = 0
    slowest = 0.0


def check(path: pathlib.Path, content: bytes) -> None:
    """Reads and imports the file; every other end than a network or one line is a failure."""
    path.write_bytes(content)
    before = tiny.values(STACK.variables)
    start = time.monotonic()
    try:
        import_state_dict(STACK, read_checkpoint(path).tensors)
        Seen.read += 1
    except InputError as error:
        Seen.refused += 1
        assert tiny.one_line(error, says=""), error
        for one, other in zip(before, tiny.values(STACK.variables), strict=True):
            np.testing.assert_array_equal(one, other)
    Seen.slowest = max(Seen.slowest, time.monotonic() - start)
    assert time.monotonic() - start < 5
    assert os.listdir(path.parent) == [path.name]


def fuzz(path: pathlib.Path, examples: int) -> None:
    suppressed = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]

    @settings(max_examples=examples, deadline=None, suppress_health_check=suppressed, database=None)
    @given(content=hostile_files())
    def every_file_is_read_or_refused(content: bytes) -> None:
        check(path, content)

    start = time.monotonic()
    Seen.read = Seen.refused = Seen.slowest = 0
    every_file_is_read_or_refused()
    print(f"{Seen.read} read, {Seen.refused} refused in {time.monotonic() - start:.0f} s, slowest {Seen.slowest:.2f} s")
    assert Seen.read + Seen.refused >= examples and Seen.refused > examples / 4


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path):
    fuzz(tmp_path / "net.pth.tar", 300)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_thousands_of_damaged_files_are_read_or_refused_in_one_line(tmp_path):
    fuzz(tmp_path / "net.pth.tar", 5_000)


def puts(count: int) -> bytes:
    """A new dict for each of as many indices of the memo, far apart."""
    return b"".join(b"}r" + struct.pack("<I", index * 4099) for index in range(count))


def text(content: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content


WIDE = "😀".encode()  # one such character makes a string take four bytes for each of its characters
MILLION = 1_000_000
BOMBS = {
    "empty lists": b"]" * 2 * MILLION,
    "empty dicts": b"}" * 2 * MILLION,
    "dicts of one item": b"}NNs" * MILLION,
    "a far memo": puts(MILLION),
    "a memo beyond all": b"Nr\xff\xff\xff\xff",
    "short wide strings": text(b"abcdefg" + WIDE) * MILLION,
    "a long wide string": text(b"a" * (15 << 20) + WIDE),
    "floats": b"G12345678" * MILLION,
    "marks": b"(" * 2 * MILLION,
    "nested tuples": b"(" * 400_000 + b"t" * 400_000,
    "nested lists": b"]" * 450_000 + b"a" * 449_999,
    "a billion laughs": b")q\x00" + b"h\x00h\x00h\x00\x87q\x00" * 200_000,
    "equal hashes": b"}(" + b"".join(b"\x8a\x08" + struct.pack("<q", k << 40) + b"N" for k in range(300_000)) + b"u",
    "names": b"".join(b"ca\n%d\n" % number for number in range(MILLION)),
    "long names": b"".join(b"c" + b"a" * 180 + b"\n%d\n" % number for number in range(80_000)),
    "new objects": b"ca\nb\n)\x81" * MILLION,
    "states of objects": b"ca\nb\n" + b"}b" * MILLION,
    "keys of other kinds": b"}" + b")Ns" * MILLION,
    "a key of nested tuples": b"}" + b"(" * 400_000 + b"t" * 400_000 + b"Ns",
    "a key of a billion laughs": b"}()q\x00" + b"h\x00h\x00h\x00\x87q\x00" * 59 + b"u",
    "equal hashes of large numbers": b"}("
    + b"".join(b"\x8a\x0c" + (k * (2**61 - 1)).to_bytes(12, "little") + b"N" for k in range(60_000))
    + b"u",
    "large numbers": (b"\x8a\xff" + b"a" * 255) * 60_000,
    "odd surrogates": text(b"\xed\xa0\x80" * 8) * 500_000,
    "a pickle too long": b"N" * (17 << 20),
    "tensors of one storage": None,
    "records": None,
    "many records": None,
}


def bomb(name: str, write) -> bytes:
    if name == "records":
        return files.archive([files.Record(f"n/{index}", b"") for index in range(99_999)])
    if name == "many records":  # as many as a directory may have, of 46 bytes each
        return files.archive([files.Record("", b"")] * (archives.MAX_DIRECTORY // 46), zip64=False, count=1)
    if name == "tensors of one storage":
        tensor = files.rebuilt(files.Storage(np.ones(2**22, np.float32)), 0, (2**22,), (1,))
        return write({f"{index:05}": tensor for index in range(50_000)})
    return write(None, pickle_bytes=b"\x80\x02" + BOMBS[name] + b".")


MEASURE = r"""
import json, re, sys, time
from divco_tf.errors import InputError
from divco_tf.torch_files.checkpoint import read_checkpoint

def peak():  # getrusage would tell the highest that the parent ever had
    return 1024 * int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])

before, start = peak(), time.monotonic()
try:
    read_checkpoint(sys.argv[1])
    said = ""
except InputError as error:
    said = str(error)
print(json.dumps([said, peak() - before, time.monotonic() - start]))
"""


def measured(path: pathlib.Path) -> tuple[str, int, float]:
    """What a process of its own says to the file, the bytes it took for it, and seconds."""
    command = [sys.executable, "-c", MEASURE, str(path)]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write"),
    [
        pytest.param(name, write, id=f"{form}-{name}")
        for name in BOMBS
        for form, write in files.WRITERS.items()
        if form == "zip" or "records" not in name
    ],
)
def test_no_file_takes_more_than_twice_its_size_and_200_mb(tmp_path, write, name):
    path = tmp_path / "net.pth.tar"
    path.write_bytes(bomb(name, write))
    said, taken, seconds = measured(path)
    print(f"{name}: {path.stat().st_size:,} bytes, {taken:,} taken, {seconds:.1f} s. {said[:80]}")
    assert "\n" not in said and (said or name == "tensors of one storage")
    assert taken <= 2 * path.stat().st_size + 200e6
    assert seconds < 60


def test_steps_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "_FREE_READS", 1000)
    path = tmp_path / "net.pth.tar"
    for steps, says in ((990, "no state dict but a list"), (2000, "more steps")):
        path.write_bytes(files.zip_file(None, pickle_bytes=b"\x80\x02]" + b"Na" * (steps // 2) + b"."))
        with pytest.raises(InputError, match=says):
            read_checkpoint(path)
