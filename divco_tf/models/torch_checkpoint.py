"""The authors' checkpoint files, read without PyTorch and without executing anything.

torch.save writes a zip archive of uncompressed records (since 1.6: `<name>/data.pkl`, and `<name>/data/<key>` for each
storage), or, before, a sequence of pickles followed by the raw storages. Either way tensors are views of the mapped
file, so that reading takes hardly any memory.
"""

import dataclasses
import hashlib
import math
import mmap
import pathlib
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from divco_tf.errors import InputError
from divco_tf.models.torch_archive import Place, records
from divco_tf.models.torch_pickle import MAX_PICKLE, Malformed, Storage, Tensor, Unpickler, shown

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # a pickle of the magic number
_LEGACY_VERSION = 1001
_MAX_TENSORS = 50_000  # PyramidNet-272 at S=8, the largest of the paper's, has 16,664


@dataclasses.dataclass(frozen=True)
class TorchCheckpoint:
    """What a checkpoint holds.

    Attributes:
      path: of the file.
      sha256: of its bytes, in hexadecimal.
      tensors: the state dict, names without `module.`; read-only views of the file in the types stored there.
      facts: what stands beside the state dict and is a number or a short text ("epoch", "arch").
    """

    path: pathlib.Path
    sha256: str
    tensors: Mapping[str, np.ndarray]
    facts: Mapping[str, int | float | str]


def read_checkpoint(path: str | pathlib.Path) -> TorchCheckpoint:
    """Reads a file of torch.save: a state dict, or a dict with one under "state_dict".

    Tensors may be float16, bfloat16, float32, float64, integers of 8 to 64 bits or bool.

    Args:
      path: of the file, which must not be written over as long as its arrays are in use.

    Raises:
      InputError: no file, or one that is damaged, of another kind, or names anything but tensors, containers,
        numbers and strings.
    """
    path = pathlib.Path(path)
    try:
        data = _mapped(path)
        if data[: len(_ZIP)] == _ZIP:
            value, places = _read_zip(data)
        elif data[: len(_LEGACY)] == _LEGACY:
            value, places = _read_legacy(data)
        elif data[257:262] == b"ustar":
            raise Malformed("it is a tar archive, as PyTorch wrote before 0.1.10; save it anew with a later one")
        else:
            raise Malformed("it does not begin as one")
        tensors = _state_dict(value)
        used = {tensor.storage.key for tensor in tensors.values()}  # each checked once, however many share it
        contents = {key: _checked(data, places[key], f"storage {shown(key)}") for key in used}
        arrays = {name: tensor.array(contents[tensor.storage.key]) for name, tensor in tensors.items()}
        return TorchCheckpoint(path, hashlib.sha256(data).hexdigest(), arrays, _facts(value))
    except Malformed as error:
        raise InputError(
            f"The checkpoint cannot be read: {error}. Received: {path}; a file that torch.save wrote would work."
        ) from error


def _mapped(path: pathlib.Path) -> memoryview:
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            raise Malformed("it is no file")
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise Malformed(error.strerror or str(error)) from error
    except ValueError as error:
        raise Malformed("it is empty") from error


def _read_zip(data: memoryview) -> tuple[Any, dict[str, Place]]:
    """The value in data.pkl, and the places of its storages by key."""
    found = records(data)
    pickles = [name for name in found if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Malformed(f"{len(pickles) or 'none'} of its records is a data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in found:
        raise Malformed("it holds a TorchScript program; torch.save its state_dict instead")
    order = found.get(f"{folder}byteorder")
    if order and data[order.start : order.start + order.size] != b"little":
        raise Malformed("its numbers are not little-endian")
    place = found[pickles[0]]
    if place.size > MAX_PICKLE:
        raise Malformed(f"its pickle has {place.size} bytes, more than that of any network")
    content = _checked(data, place, "pickle")
    places: dict[str, Place] = {}

    def storage(named: Storage) -> None:
        place = found.get(f"{folder}data/{named.key}")
        if place is None or place.size != named.nbytes:
            stored = "missing" if place is None else f"of {place.size} bytes"
            raise Malformed(f"its storage {shown(named.key)} of {named.nbytes} bytes is {stored}")
        places[named.key] = place

    unpickler = Unpickler(bytes(content), file_size=len(data), storage=storage)
    return unpickler.load(), places


def _read_legacy(data: memoryview) -> tuple[Any, dict[str, Place]]:
    """The same of the format before 1.6: version, system, value, storages' keys, then each storage behind its size."""
    named: dict[str, Storage] = {}

    def storage(new: Storage) -> None:
        if named.setdefault(new.key, new) != new:
            raise Malformed(f"its storage {shown(new.key)} has two types or sizes")

    unpickler = Unpickler(bytes(data[:MAX_PICKLE]), file_size=len(data), storage=storage)
    unpickler.take(len(_LEGACY))
    if (version := unpickler.load()) != _LEGACY_VERSION:
        raise Malformed(f"its version is {shown(version)}, not {_LEGACY_VERSION}")
    system = unpickler.load()
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Malformed("its numbers are not little-endian")
    value, keys = unpickler.load(), unpickler.load()
    if type(keys) is not list or len(keys) != len(named) or any(type(key) is not str for key in keys):
        raise Malformed("its storages are not those that its tensors name")
    places: dict[str, Place] = {}
    position = unpickler.position
    for key in keys:
        if key not in named or key in places:
            raise Malformed("its storages are not those that its tensors name")
        start, nbytes = position + 8, named[key].nbytes
        if start + nbytes > len(data) or struct.unpack_from("<q", data, position)[0] != named[key].size:
            raise Malformed(f"its storage {shown(key)} of {nbytes} bytes is truncated or of another size")
        places[key] = Place(start, nbytes)
        position = start + nbytes
    if position != len(data):
        raise Malformed(f"{len(data) - position} bytes are left behind its storages")
    return value, places


def _checked(data: memoryview, place: Place, what: str) -> memoryview:
    content = data[place.start : place.start + place.size]
    if place.crc is not None and place.crc != zlib.crc32(content):
        raise Malformed(f"its {what} is damaged, as its checksum tells")
    return content


def _state_dict(value: Any) -> dict[str, Tensor]:
    """The state dict in what was pickled, names without `module.`."""
    state = value.get("state_dict", value) if type(value) is dict else value
    if type(state) is not dict or not state:
        raise Malformed(f"it holds no state dict but {_kind(state)}")
    if len(state) > _MAX_TENSORS:
        raise Malformed(f"its state dict has {len(state)} entries, more than any network")
    for name, tensor in state.items():
        if type(name) is not str or not name.isprintable() or len(name) > 200:
            raise Malformed(f"no tensor is called {shown(name)}")
        if type(tensor) is not Tensor:
            raise Malformed(f"its entry {shown(name)} is no tensor but {_kind(tensor)}")
    prefix = "module." if all(name.startswith("module.") for name in state) else ""  # of DataParallel
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _facts(value: dict) -> dict[str, int | float | str]:
    return {
        key: fact
        for key, fact in value.items()
        if type(key) is str
        and key.isprintable()
        and ((type(fact) in (int, float) and math.isfinite(fact)) or (type(fact) is str and fact.isprintable()))
        and len(f"{key}{fact}") < 100
    }


def _kind(value: Any) -> str:
    kind = type(value).__name__
    return f"a {kind} of {', '.join(map(shown, [*value][:4]))}" if type(value) is dict and value else f"a {kind}"
