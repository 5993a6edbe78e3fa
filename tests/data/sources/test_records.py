"""Files of records with random access, and what becomes of damage."""

import concurrent.futures
import os
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf
from array_record.python import array_record_module
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.sources import records as records_module
from divco_tf.data.sources.records import ArrayRecords, DamagedRecord, TFRecords
from divco_tf.errors import InputError

FILES = [[b"first", b"", b"third" * 40], [b"alone"], [bytes(range(256)), b"last"]]
ALL = [record for file in FILES for record in file]
COUNTS = [len(file) for file in FILES]


def tfrecords(folder: pathlib.Path, files: list[list[bytes]]) -> list[pathlib.Path]:
    paths = [folder / f"{number}.tfrecord" for number in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in content:
                writer.write(record)
    return paths


def array_records(folder: pathlib.Path, files: list[list[bytes]]) -> list[pathlib.Path]:
    paths = [folder / f"{number}.array_record" for number in range(len(files))]
    for path, content in zip(paths, files, strict=True):
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for record in content:
            writer.write(record)
        writer.close()
    return paths


KINDS = pytest.mark.parametrize(("write", "kind"), [(tfrecords, TFRecords), (array_records, ArrayRecords)])


@settings(deadline=None, max_examples=20)
@given(files=st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=5), min_size=1, max_size=4))
def test_records_are_read_in_any_order_from_several_files(tmp_path_factory, files):
    paths = tfrecords(tmp_path_factory.mktemp("records"), files)
    records, expected = TFRecords(paths, list(map(len, files))), [record for file in files for record in file]
    assert [records.read(number) for number in reversed(range(len(records)))] == expected[::-1]


@KINDS
def test_records_are_read_by_many_threads_and_named_by_file_and_place(tmp_path, write, kind):
    paths = write(tmp_path, FILES)
    records = kind(paths, COUNTS)
    numbers = np.random.default_rng(0).integers(0, len(ALL), 300).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(records.read, numbers)) == [ALL[number] for number in numbers]
    names = [records.name_of(number) for number in range(len(records))]
    assert names[3] == f"{paths[1]}, record 0" and names[5] == f"{paths[2]}, record 1"
    for number in (-1, len(ALL)):
        with pytest.raises(IndexError):
            records.read(number)


@KINDS
def test_few_files_stay_open(tmp_path, write, kind, monkeypatch):
    monkeypatch.setattr(records_module, "_OPEN_READERS", 2)
    paths = write(tmp_path, [[b"x"]] * 12)
    before = len(os.listdir("/proc/self/fd"))
    records = kind(paths, [1] * 12)
    assert [records.read(number) for number in [*range(12), *range(12)]] == [b"x"] * 24
    assert len(os.listdir("/proc/self/fd")) <= before + 2


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_changed_byte_of_a_tfrecord_file_is_noticed(tmp_path_factory, data):
    [path] = tfrecords(tmp_path_factory.mktemp("records"), [ALL])
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises((InputError, DamagedRecord)):
        records = TFRecords([path], [len(ALL)])
        for number in range(len(records)):
            records.read(number)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_tfrecord_file_cut_anywhere_is_refused_by_name(tmp_path_factory, data):
    [path] = tfrecords(tmp_path_factory.mktemp("records"), [ALL])
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(InputError, match=f"Received: {path};") as caught:
        TFRecords([path], [len(ALL)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("counts", "line"),
    [([4, 1, 2], r"ends after 3 records of 4\). Received: .*0\.tfrecord"), ([3, 1, 1], "goes on after 1 records")],
)
def test_another_number_of_records_is_refused(tmp_path, counts, line):
    with pytest.raises(InputError, match=line):
        TFRecords(tfrecords(tmp_path, FILES), counts)


@KINDS
def test_a_missing_file_is_named(tmp_path, write, kind):
    paths = write(tmp_path, FILES)
    paths[0].unlink()
    with pytest.raises(InputError, match=r"No such file.*Received: .*/0\.\w+;"):
        kind(paths, COUNTS)


def test_files_that_go_or_shrink_or_change_under_a_run_are_noticed(tmp_path):
    paths = tfrecords(tmp_path, FILES)
    records = TFRecords(paths, COUNTS)
    paths[0].unlink()
    with pytest.raises(FileNotFoundError):
        records.read(0)
    paths[1].write_bytes(b"")
    with pytest.raises(DamagedRecord, match="cut off"):
        records.read(3)
    paths[2].write_bytes(bytes(paths[2].stat().st_size))
    with pytest.raises(DamagedRecord):
        records.read(4)


def test_where_records_begin_is_kept_until_a_file_changes(tmp_path, monkeypatch):
    paths, kept = tfrecords(tmp_path, FILES), str(tmp_path / "index")
    scans, scan = [], TFRecords._scan
    monkeypatch.setattr(TFRecords, "_scan", lambda self: scans.append(1) or scan(self))
    for _ in range(2):
        records = TFRecords(paths, COUNTS, index_dir=kept)
        assert [records.read(number) for number in range(len(records))] == ALL
    assert len(scans) == 1
    longer = [FILES[0], [b"another length"], FILES[2]]
    tfrecords(tmp_path, longer)
    assert TFRecords(paths, COUNTS, index_dir=kept).read(3) == b"another length"
    assert len(scans) == 2
    [folder] = (tmp_path / "index").glob("[!.]*")
    assert sorted(file.name for file in folder.iterdir()) == ["offsets.npy", "record.json"]


def test_a_damaged_array_record_file_is_refused_by_name(tmp_path):
    paths = array_records(tmp_path, FILES)
    paths[0].write_bytes(paths[0].read_bytes()[:500])
    with pytest.raises(InputError, match=r"Received: .*0\.array_record;") as caught:
        ArrayRecords(paths, COUNTS)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"has 1 records, not 2\). Received: .*1\.array_record;"):
        ArrayRecords(paths[1:2], [2])


def test_a_damaged_array_record_is_noticed_when_it_is_read(tmp_path):
    noise = np.random.default_rng(0).bytes(20_000)
    [path] = array_records(tmp_path, [[noise, b"good"]])
    content = bytearray(path.read_bytes())
    content[content.index(noise[5000:5020])] ^= 1
    path.write_bytes(content)
    records = ArrayRecords([path], [2])
    with pytest.raises(DamagedRecord) as caught:
        records.read(0)
    assert "\n" not in str(caught.value)


def test_array_record_without_its_package_gets_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    with pytest.raises(InputError, match=r"not installed. Received: .*; pip install array_record"):
        ArrayRecords([tmp_path / "0.array_record"], [1])
