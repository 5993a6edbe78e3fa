"""Checkpoints as torch.save writes them, made without PyTorch; and pieces of them, to be spoilt."""

import collections
import dataclasses
import io
import pickle
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

STORAGES = {
    **{"float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "bool": "Bool"},
    **{"int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte"},
}
LEGACY_HEAD = (0x1950A86A20F9469CFC6C, 1001)
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


@dataclasses.dataclass(frozen=True)
class Global:
    """Something that a pickle names; `Call` calls it."""

    module: str
    name: str

    def __call__(self) -> None:
        """The pickler wants it callable."""


@dataclasses.dataclass
class Call:
    """What a pickle makes by calling a global."""

    function: Global
    arguments: tuple
    state: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Storage:
    """A flat array. `kind` and `claimed_size` are what the pickle says of it."""

    array: np.ndarray
    claimed_size: int | None = None

    @property
    def kind(self) -> Global:
        return Global("torch", f"{STORAGES[self.array.dtype.name]}Storage")


def rebuilt(storage: Any, offset: Any, shape: Any, strides: Any) -> Call:
    """A tensor as a view of a storage, offset and strides in elements."""
    arguments = (storage, offset, shape, strides, False, collections.OrderedDict())
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def tensor(array: np.ndarray) -> Call:
    """A tensor with a storage of its own."""
    array = np.asarray(array, order="C")
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return rebuilt(Storage(array.reshape(-1)), 0, array.shape, strides)


def state_dict(arrays: Mapping[str, np.ndarray], prefix: str = "") -> Any:
    """An ordered dict of tensors with the attribute that PyTorch's have."""
    items = collections.OrderedDict((f"{prefix}{name}", tensor(array)) for name, array in arrays.items())
    items._metadata = collections.OrderedDict({"": {"version": 1}, "norm": {"version": 2}})
    return items


def checkpoint(arrays: Mapping[str, np.ndarray], prefix: str = "module.") -> dict[str, Any]:
    """What the authors' training saves."""
    optimizer = {"state": {0: {"momentum_buffer": tensor(np.ones(3, np.float32))}}, "param_groups": [{"lr": 0.1}]}
    return {
        **{"epoch": 300, "arch": "resnet110", "state_dict": state_dict(arrays, prefix)},
        **{"best_acc1": tensor(np.float32(81.5)), "optimizer": optimizer, "scaler": None},
    }


class Pickler(pickle._Pickler):
    """Protocol 2; storages become persistent ids and are kept, numbered, in `storages`."""

    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, file: Any, *, legacy: bool) -> None:
        super().__init__(file, protocol=2)
        self.storages: dict[Storage, int] = {}  # with their keys
        self._views = (None,) if legacy else ()

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        key = self.storages.setdefault(obj, len(self.storages))
        size = obj.array.size if obj.claimed_size is None else obj.claimed_size
        return ("storage", obj.kind, str(key), "cpu", size, *self._views)

    def reducer_override(self, obj: Any) -> Any:
        return (obj.function, obj.arguments, obj.state) if isinstance(obj, Call) else NotImplemented

    def save_global_object(self, obj: Global) -> None:
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        self.memoize(obj)

    dispatch[Global] = save_global_object


def pickled(value: Any, *, legacy: bool = False) -> tuple[bytes, list[Storage]]:
    """The pickle of a value, and its storages in the order of their keys "0", "1", ..."""
    file = io.BytesIO()
    pickler = Pickler(file, legacy=legacy)
    pickler.dump(value)
    return file.getvalue(), list(pickler.storages)


def legacy_file(value: Any, *, system: Any = SYSTEM, pickle_bytes: bytes | None = None) -> bytes:
    """The format before 1.6; `pickle_bytes` in place of the value's own."""
    content, storages = pickled(value, legacy=True)
    head = [pickle.dumps(part, protocol=2) for part in (*LEGACY_HEAD, system)]
    keys = pickle.dumps([str(index) for index in range(len(storages))], protocol=2)
    raw = [struct.pack("<q", storage.array.size) + storage.array.tobytes() for storage in storages]
    return b"".join([*head, content if pickle_bytes is None else pickle_bytes, keys, *raw])


def zip_file(value: Any, **changes: Any) -> bytes:
    """The format since 1.6."""
    return archive(zip_records(value, **changes))


def zip_records(value: Any, *, pickle_bytes: bytes | None = None) -> list["Record"]:
    """The records of the same; `pickle_bytes` in place of the value's own."""
    content, storages = pickled(value)
    return [
        Record("net/data.pkl", content if pickle_bytes is None else pickle_bytes),
        Record("net/byteorder", b"little"),
        *(Record(f"net/data/{index}", storage.array.tobytes()) for index, storage in enumerate(storages)),
        Record("net/version", b"3\n"),
    ]


@dataclasses.dataclass
class Record:
    """A record of an archive; what is None or 0 is as it should be."""

    name: str
    content: bytes
    method: int = 0
    flags: int = 0x808  # sizes behind the content; names in UTF-8
    size: int | None = None  # what the directory says
    packed: int | None = None
    crc: int | None = None
    offset: int | None = None
    local_name: str | None = None


def archive(records: Sequence[Record], *, zip64: bool = True, count: int | None = None, comment: bytes = b"") -> bytes:
    """A zip archive as PyTorch writes it: contents aligned to 64 bytes, a directory with or without 64-bit fields."""
    body, directory = bytearray(), bytearray()
    for record in records:
        offset = len(body) if record.offset is None else record.offset
        name = record.name.encode()
        local_name = name if record.local_name is None else record.local_name.encode()
        padding = -(len(body) + 30 + len(local_name) + 4) % 64
        extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
        body += struct.pack("<4s5H3I2H", b"PK\x03\x04", 0, 0x808, 0, 0, 0, 0, 0, 0, len(local_name), len(extra))
        body += local_name + extra + record.content
        size, packed, crc = (
            own if given is None else given
            for given, own in zip(
                (record.size, record.packed, record.crc),
                (len(record.content), len(record.content), zlib.crc32(record.content)),
                strict=True,
            )
        )
        body += struct.pack("<4sIII", b"PK\x07\x08", crc, len(record.content), len(record.content))
        numbers, extra = (packed, size, offset), b""
        if zip64:
            numbers, extra = (0xFFFFFFFF,) * 3, struct.pack("<2H3Q", 1, 24, size, packed, offset)
        head = (b"PK\x01\x02", 0, 0, record.flags, record.method, 0, 0, crc, *numbers[:2], len(name), len(extra), 0)
        directory += struct.pack("<4s6H3I5H2I", *head, 0, 0, 0, numbers[2]) + name + extra
    return bytes(body + directory + _end(len(body), len(directory), count or len(records), zip64, comment))


def _end(start: int, size: int, count: int, zip64: bool, comment: bytes) -> bytes:
    end = b""
    if zip64:
        end += struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 0, 0, 0, 0, count, count, size, start)
        end += struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
        start = size = 0xFFFFFFFF
        count = 0xFFFF
    return end + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, size, start, len(comment)) + comment


WRITERS = {"zip": zip_file, "legacy": legacy_file}
FORMATS = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
ARRAYS = {"fc.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "fc.bias": np.ones(3, np.float32)}


def assert_equal(tensors, arrays) -> None:
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(tensors[name], array)
