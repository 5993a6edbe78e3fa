"""Files of records with random access: TFRecord and ArrayRecord."""

import abc
import concurrent.futures
import functools
import hashlib
import os
import pathlib
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from divco_tf import files
from divco_tf.data.sources.checksums import masked_crc32c
from divco_tf.data.sources.derived_files import kept
from divco_tf.data.sources.request import IO_THREADS, Report, silent
from divco_tf.errors import InputError

# A TFRecord is its length (uint64), a checksum of the length (uint32), the data, and a checksum of the data.
_HEADER, _FOOTER = 12, 4
_OPEN_READERS = 256  # of ArrayRecord: a process may often open no more than 1,024 files


class DamagedRecord(ValueError):
    """A record, or a whole file of them, is not as it was written; the message is the cause."""


class Records(abc.ABC):
    """Records in several files, numbered through; read from any number of threads.

    Args:
      paths: of the files.
      counts: how many records each of them has.
    """

    def __init__(self, paths: Sequence[pathlib.Path], counts: Sequence[int]) -> None:
        self.paths, self.counts = tuple(paths), tuple(counts)
        self._starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, number: int) -> bytes:
        """The record of that number.

        Raises:
          DamagedRecord: its checksum differs, or it is cut off.
          OSError: its file cannot be read.
        """
        return self._read(*self._place(number))

    def name_of(self, number: int) -> str:
        """Its file, and its place there, from 0."""
        file, place = self._place(number)
        return f"{self.paths[file]}, record {place}"

    def sizes(self) -> list[tuple[str, int, int]]:
        """Name, size in bytes and time of change of every file; refuses one that is missing."""
        found = []
        for path in self.paths:
            try:
                status = path.stat()
            except OSError as error:
                raise _damaged_file(path, error) from error
            found.append((path.name, status.st_size, status.st_mtime_ns))
        return found

    @abc.abstractmethod
    def _read(self, file: int, place: int) -> bytes: ...

    def _place(self, number: int) -> tuple[int, int]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        file = int(np.searchsorted(self._starts, number, side="right")) - 1
        return file, int(number - self._starts[file])


class TFRecords(Records):
    """TFRecord files, uncompressed. Where records begin is found by reading the headers of all of them once.

    Args:
      paths: of the files.
      counts: how many records each of them has.
      index_dir: a folder that keeps where the records begin, for the next run; a file that has changed is noticed.
      report: receives a line when the folder has to be waited for.

    Raises:
      InputError: a file is damaged, missing, or has another number of records.
    """

    def __init__(
        self,
        paths: Sequence[pathlib.Path],
        counts: Sequence[int],
        *,
        index_dir: str | None = None,
        report: Report = silent,
    ) -> None:
        super().__init__(paths, counts)
        # Of all files in a row; a file's last entry is its size, so that a record ends where the next one begins.
        self._offsets = (
            self._scan() if index_dir is None else self._kept(files.local_path(index_dir, "cache_dir"), report)
        )

    def _read(self, file: int, place: int) -> bytes:
        at = self._starts[file] + file + place  # a file has one more entry than records
        start, stop = self._offsets[at : at + 2].tolist()
        record = bytearray(stop - start)
        # Opened for each record, which costs 5 us: ImageNet has more files than a process may often open.
        with open(self.paths[file], "rb", buffering=0) as opened:
            opened.seek(start)
            if opened.readinto(record) != len(record):
                raise DamagedRecord("the record is cut off")
        length, length_checksum = struct.unpack_from("<QI", record)
        (checksum,) = struct.unpack_from("<I", record, len(record) - _FOOTER)
        content = np.frombuffer(record, np.uint8)
        if masked_crc32c(content[:8]) != length_checksum or length != len(record) - _HEADER - _FOOTER:
            raise DamagedRecord("the record's length is damaged")
        if masked_crc32c(content[_HEADER:-_FOOTER]) != checksum:
            raise DamagedRecord("the record's checksum differs")
        return bytes(memoryview(record)[_HEADER:-_FOOTER])

    def _scan(self) -> np.ndarray:
        with concurrent.futures.ThreadPoolExecutor(IO_THREADS) as pool:
            return np.concatenate([np.empty(0, np.int64), *pool.map(_offsets, self.paths, self.counts)])

    def _kept(self, folder: pathlib.Path, report: Report) -> np.ndarray:
        name = hashlib.blake2b(",".join(map(str, self.paths)).encode(), digest_size=8).hexdigest()
        record = {"format": 1, "counts": list(self.counts), "files": [list(facts) for facts in self.sizes()]}
        path = folder / f"index-{name}"
        return kept(
            path,
            record,
            lambda new: np.save(new / "offsets.npy", self._scan()),
            load=lambda made: np.load(made / "offsets.npy"),
            report=report,
        )


class ArrayRecords(Records):
    """ArrayRecord files, through the package `array_record` that TensorFlow Datasets brings.

    Raises:
      InputError: the package is missing; a file is damaged, missing, or has another number of records.
    """

    def __init__(self, paths: Sequence[pathlib.Path], counts: Sequence[int]) -> None:
        super().__init__(paths, counts)
        try:
            from array_record.python import array_record_module
        except ImportError as error:
            raise InputError(
                f"ArrayRecord files are read by the package array_record, which is not installed. Received: "
                f"{self.paths[0].parent}; pip install array_record, or a data set prepared as TFRecord, would work."
            ) from error
        self._open = array_record_module.ArrayRecordReader
        # A reader that is still used outlives its place here.
        self._reader = functools.lru_cache(maxsize=_OPEN_READERS)(self._new_reader)
        for file in (0, len(paths) - 1) if paths else ():  # the others when they are read: each takes a while to open
            try:
                self._reader(file)
            except (DamagedRecord, OSError) as error:
                raise _damaged_file(self.paths[file], error) from error

    def _read(self, file: int, place: int) -> bytes:
        try:
            return self._reader(file).read([place])[0]
        except (RuntimeError, ValueError, IndexError) as error:  # what the package makes of its statuses
            raise DamagedRecord(str(error).splitlines()[0].rstrip(".")) from error

    def _new_reader(self, file: int) -> Any:
        self.paths[file].stat()  # says more clearly that it is missing
        try:
            # The options of the package's own data source: nothing is read ahead of what is asked for.
            reader = self._open(str(self.paths[file]), options="readahead_buffer_size:0", file_reader_buffer_size=32768)
            count = reader.num_records()
        except (RuntimeError, ValueError) as error:
            raise DamagedRecord(str(error).splitlines()[0].rstrip(".")) from error
        if count != self.counts[file]:
            raise DamagedRecord(f"it has {count} records, not {self.counts[file]}")
        return reader


def _offsets(path: pathlib.Path, count: int) -> np.ndarray:
    """Where the records of a TFRecord file begin, and its size, int64 [count + 1]."""
    offsets = np.empty(count + 1, np.int64)
    try:
        with open(path, "rb", buffering=0) as file:
            size, position = os.fstat(file.fileno()).st_size, 0
            for place in range(count):
                header = os.pread(file.fileno(), 8, position)
                if len(header) < 8:
                    raise DamagedRecord(f"it ends after {place} records of {count}")
                offsets[place] = position
                position += int.from_bytes(header, "little") + _HEADER + _FOOTER
                if position > size:
                    raise DamagedRecord(f"record {place} is damaged or cut off")
            if position != size:
                raise DamagedRecord(f"it goes on after {count} records")
    except (DamagedRecord, OSError) as error:
        raise _damaged_file(path, error) from error
    offsets[count] = size
    return offsets


def _damaged_file(path: pathlib.Path, error: Exception) -> InputError:
    cause = getattr(error, "strerror", None) or str(error)
    return InputError(
        f"A file of prepared data cannot be read ({cause}). Received: {path}; prepare the data set anew with "
        "tensorflow_datasets."
    )
