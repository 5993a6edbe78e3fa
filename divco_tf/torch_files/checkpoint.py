"""The authors' checkpoint files, read without PyTorch and without executing anything.

torch.save writes a zip archive of uncompressed records (since 1.6: `<name>/data.pkl`, and `<name>/data/<key>` for each
storage), or, before, a sequence of pickles followed by the raw storages. Either way tensors are views of the mapped
file, so that reading takes hardly any memory. Files of safetensors are read by its own library.
"""

import dataclasses
import hashlib
import math
import mmap
import pathlib
import struct
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from divco_tf.errors import InputError
from divco_tf.torch_files.archives import Place, records
from divco_tf.torch_files.pickles import MAX_PICKLE, Malformed, Opaque, Storage, Tensor, Unpickler, shown

_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # a pickle of the magic number
_LEGACY_VERSION = 1001
_MAX_TENSORS = 50_000  # PyramidNet-272 at S=8, the largest of the paper's, has 16,664
_USUAL = ("state_dict", "model_state_dict", "model", "net")
"""What training calls the weights of its network, the first of them that is there being taken."""
_PARALLEL, _COMPILED = "module.", "_orig_mod."


@dataclasses.dataclass(frozen=True)
class TorchCheckpoint:
    """What a checkpoint holds.

    Attributes:
      path: of the file.
      sha256: of its bytes, in hexadecimal.
      tensors: the state dict, names without `module.` and `_orig_mod.`, in which DataParallel and torch.compile wrap
        them; read-only, in the types stored there; of torch.save's files, views of the file.
      facts: what stands beside the state dict and is a number or a short text ("epoch", "arch").
      key: the entry of the file that is the state dict; None: the file itself.
      unreadable: entries of the state dict that are no tensors, each with the reason.
    """

    path: pathlib.Path
    sha256: str
    tensors: Mapping[str, np.ndarray]
    facts: Mapping[str, int | float | str]
    key: str | None = None
    unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)


def read_checkpoint(path: str | pathlib.Path, *, key: str | None = None) -> TorchCheckpoint:
    """Reads a file of torch.save, a state dict or a dict with one, or a file of safetensors.

    Tensors may be float16, bfloat16, float32, float64, integers of 8 to 64 bits or bool. What else stands in the file
    is passed over.

    Args:
      path: of the file, which must not be written over as long as its arrays are in use.
      key: the entry with the state dict, "state_dict_ema", say; None: "state_dict" or another usual name, or the file.

    Raises:
      InputError: no file, one that is damaged or of another kind, or one without such weights.
    """
    path = pathlib.Path(path)
    try:
        path = _expanded(path)
        data = _mapped(path)
        read = _read_safetensors if data[8:9] == b"{" and data[: len(_ZIP)] != _ZIP else _read_torch
        found, arrays, facts, unreadable = read(path, data, key)
        plain = _unwrapper(arrays)
        tensors = {plain(name): array for name, array in arrays.items()}
        if len(tensors) < len(arrays):
            raise Malformed("two of its tensors have one name without module. and _orig_mod.")
        unreadable = {plain(name): why for name, why in unreadable.items()}
        return TorchCheckpoint(path, hashlib.sha256(data).hexdigest(), tensors, _facts(facts), found, unreadable)
    except Malformed as error:
        raise InputError(
            f"The checkpoint cannot be read: {error}. Received: {path}; a file of torch.save or safetensors would work."
        ) from error


_Read = tuple[str | None, Mapping[str, np.ndarray], Mapping[str, Any], Mapping[str, str]]
"""The key of the state dict, its arrays, what stands beside it, and what of it is no tensor."""


def _read_torch(path: pathlib.Path, data: memoryview, key: str | None) -> _Read:
    value, places = _read_pickled(path, data)
    found, state, unreadable = _state_dict(value, key)
    used = {tensor.storage.key for tensor in state.values()}  # each checked once, however many share it
    contents = {name: _checked(data, places[name], f"storage {shown(name)}") for name in used}
    arrays = {name: tensor.array(contents[tensor.storage.key]) for name, tensor in state.items()}
    return found, arrays, value, unreadable


def _read_safetensors(path: pathlib.Path, data: memoryview, key: str | None) -> _Read:
    import safetensors

    if key is not None:
        raise Malformed(f"a file of safetensors is one state dict, without entries such as {shown(key)}")
    arrays, unreadable = {}, {}
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = file.keys()
            _check_number(len(names))
            for name in names:
                try:
                    arrays[name] = file.get_tensor(name)
                except AttributeError:  # a type that numpy does not have
                    unreadable[name] = f"its entry {shown(name)} is {file.get_slice(name).get_dtype()}"
            facts = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise Malformed(" ".join(str(error).split())[:200]) from error
    unreadable |= {shown(name): why for name in arrays if (why := _why_no_name(name))}
    if not (arrays := {name: array for name, array in arrays.items() if not _why_no_name(name)}):
        raise Malformed(next(iter(unreadable.values()), "it is empty"))
    return None, arrays, facts, unreadable


def _read_pickled(path: pathlib.Path, data: memoryview) -> tuple[Any, dict[str, Place]]:
    """The value that was saved, and the places of its storages by key."""
    if data[: len(_ZIP)] == _ZIP:
        return _read_zip(path, data)
    if data[: len(_LEGACY)] == _LEGACY:
        return _read_legacy(data)
    if data[257:262] == b"ustar":
        raise Malformed("it is a tar archive, as PyTorch wrote before 0.1.10; save it anew with a later one")
    raise Malformed("it does not begin as one")


def _expanded(path: pathlib.Path) -> pathlib.Path:
    try:
        return path.expanduser()
    except RuntimeError as error:  # no such user
        raise Malformed(str(error).rstrip(".")) from error


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


def _read_zip(path: pathlib.Path, data: memoryview) -> tuple[Any, dict[str, Place]]:
    """The value in data.pkl, and the places of its storages by key."""
    found = records(path, data)
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
    unpickler.load()  # the magic number
    if (version := unpickler.load()) != _LEGACY_VERSION:
        raise Malformed(f"its version is {shown(version)}, not {_LEGACY_VERSION}")
    system = unpickler.load()
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Malformed("its numbers are not little-endian")
    value, keys = unpickler.load(), unpickler.load()
    if type(keys) is not list or any(type(key) is not str for key in keys) or sorted(keys) != sorted(named):
        raise Malformed("its storages are not those that its tensors name")
    places: dict[str, Place] = {}
    position = unpickler.file.tell()
    for key in keys:
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


def _state_dict(value: Any, key: str | None) -> tuple[str | None, dict[str, Tensor], dict[str, str]]:
    """The state dict in what was saved: its key, its tensors, and what in it is none, with reasons."""
    entries = value.items() if type(value) is dict else ()
    inner = {name: entry for name, entry in entries if type(name) is str and type(entry) is dict and entry}
    if key is None:
        usual = [name for name in _USUAL if name in inner]
        key = next((name for name in usual if Tensor in map(type, inner[name].values())), *usual[:1] or [None])
    elif key not in inner:
        raise Malformed(f"it has no state dict {shown(key)}, but {', '.join(map(shown, [*inner][:8])) or 'none'}")
    state = value if key is None else inner[key]
    if type(state) is not dict or not state:
        raise Malformed(f"it holds no state dict{_but(state)}")
    _check_number(len(state))
    tensors, unreadable = {}, {}
    for name, tensor in state.items():
        if why := _why_no_name(name):
            unreadable[shown(name)] = why
        elif type(tensor) is not Tensor:
            unreadable[name] = f"its entry {shown(name)} is no tensor{_but(tensor)}"
        else:
            tensors[name] = tensor
    if not tensors:
        raise Malformed(next(iter(unreadable.values())))
    return key, tensors, unreadable


def _check_number(entries: int) -> None:
    if entries > _MAX_TENSORS:
        raise Malformed(f"its state dict has {entries} entries, more than any network")


def _why_no_name(name: Any) -> str | None:
    if type(name) is str and name.isprintable() and len(name) <= 200:
        return None
    return name.why if type(name) is Opaque else f"no tensor is called {shown(name)}"


def _unwrapper(names: Collection[str]) -> Callable[[str], str]:
    """Takes from a name what DataParallel puts before all of them, and torch.compile before those that it compiled."""
    prefix = ""
    while all(name.replace(_COMPILED, "").startswith(prefix + _PARALLEL) for name in names):
        prefix += _PARALLEL
    return lambda name: name.replace(_COMPILED, "").removeprefix(prefix)


def _facts(value: dict) -> dict[str, int | float | str]:
    return {
        key: fact
        for key, fact in value.items()
        if type(key) is str
        and key.isprintable()
        and ((type(fact) in (int, float) and math.isfinite(fact)) or (type(fact) is str and fact.isprintable()))
        and len(f"{key}{fact}") < 100
    }


def _but(value: Any) -> str:
    """What a value is instead, behind "it is no ..."."""
    if type(value) is Opaque:
        return f": {value.why}"
    kind = type(value).__name__
    return (
        f" but a {kind} of {', '.join(map(shown, [*value][:4]))}" if type(value) is dict and value else f" but a {kind}"
    )
