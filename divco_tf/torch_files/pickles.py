"""The pickles inside PyTorch's checkpoints, read by the standard library's unpickler without executing anything.

An allow-list (`find_class`) is not enough for `pickle.Unpickler`, which is C: a file of 9 bytes asks it for 64 GB (a
memo index of 2^32), one of 540 keeps it busy for ever and one of 800,000 ends the process (a dict's key of nested
tuples). So this is its Python twin, which joblib and dill build upon too, with the opcodes that torch.save writes
(protocol 2), keys that are no containers, and reads that are counted: 200 MB and twice the file are enough.

In the place of all that is no container, number, string or tensor stands an `Opaque`. What comes out may be cyclic or
deep: nothing here walks it.
"""

import dataclasses
import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

MAX_PICKLE = 16 << 20
"""Bytes. PyramidNet-272 at S=8 with its momentum, the largest of the paper's, has 4.6 MB."""

_FREE_READS, _BYTES_PER_READ = 2_000_000, 50
"""A read makes at most about 75 bytes of objects (tests/torch_files/test_checkpoint_fuzz.py measures). That
PyramidNet-272, in a file of 200 MB, needs 1.7 million."""

_MAX_REASONS = 1000  # to be told apart: what a file names makes no objects without end

_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class Malformed(Exception):
    """Why a file is no checkpoint, in a few words."""


def shown(name: object) -> str:
    """What a file says, fit for a line of an error: nothing nested, nothing long, no control characters."""
    return ascii(name if len(name) <= 80 else f"{name[:80]}...") if isinstance(name, str) else type(name).__name__


@dataclasses.dataclass(frozen=True, slots=True)
class Storage:
    """A flat array that tensors are views of, by its key in the checkpoint."""

    key: str
    dtype: np.dtype
    size: int  # elements

    @property
    def nbytes(self) -> int:
        """Bytes."""
        return self.size * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """A view of a storage; offset and strides in elements. All of them lie inside the storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, buffer: memoryview) -> np.ndarray:
        """The tensor, read-only, as a view of its storage's bytes."""
        dtype = self.storage.dtype
        strides = [stride * dtype.itemsize for stride in self.strides]
        return np.ndarray(self.shape, dtype, buffer, offset=self.offset * dtype.itemsize, strides=strides)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """Something else: no more of it is known than why it is no weight."""

    why: str

    def append(self, *_: Any) -> None:
        """Keeps nothing, as do the others by which an unpickler fills what it made."""

    extend = __setitem__ = append


class _Counted(io.BytesIO):
    """A file that may be read so many times."""

    def __init__(self, data: bytes, reads: int) -> None:
        super().__init__(data)
        self._left = reads

    def read(self, size: int | None = -1) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise Malformed("its pickle has more steps than that of any network of its size")
        return super().read(size)


_AS_THEY_ARE = (
    *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.BINFLOAT),
    *(pickle.BINUNICODE, pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_TUPLE, pickle.MARK, pickle.STOP),
    *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.APPEND, pickle.APPENDS),
    *(pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.GLOBAL, pickle.BINPERSID),
)


class _Opcodes(dict):
    """What to do at each opcode."""

    def __missing__(self, code: int) -> None:
        names = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
        raise Malformed(
            f"its pickle has the opcode {names.get(code, f'0x{code:02x}')}, which torch.save does not write"
        )


class Unpickler(pickle._Unpickler):
    """Reads pickles that stand one after the other.

    Args:
      data: at most MAX_PICKLE bytes.
      file_size: of the whole checkpoint, which bounds the number of reads.
      storage: called with the storages that are named; raises Malformed for one that is not in the file.
    """

    def __init__(self, data: bytes, *, file_size: int, storage: Callable[[Storage], None]) -> None:
        self.file = _Counted(data, reads=_FREE_READS + file_size // _BYTES_PER_READ)
        super().__init__(self.file)
        self._storage = storage
        self._opaques: dict[str, Opaque] = {}

    def load(self) -> Any:
        """The value of the next pickle.

        Raises:
          Malformed: anything but a whole pickle of the kinds above.
        """
        self.memo = {}
        try:
            value = super().load()
        except (Malformed, MemoryError):
            raise
        except EOFError:
            raise Malformed("its pickle is truncated, or longer than that of any network") from None
        except Exception as error:  # of any kind, says pickle's documentation
            raise Malformed("its pickle is damaged") from error
        if self.stack or self.metastack:
            raise Malformed("its pickle ends in the middle of a value")
        return value

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may name: a function of ours that takes a tuple of arguments, or the type of a storage."""
        name = f"{module}.{name}"
        return _GLOBALS[name] if name in _GLOBALS else self._opaque(f"it names {shown(name)}, which is not executed")

    def persistent_load(self, pid: Any) -> Storage | Opaque:
        """The storage that a pickle refers to."""
        match pid:
            case ("storage", np.dtype() as dtype, str(key), str(_), int(size), *views):
                if views not in ([], [None]) or type(size) is not int or size < 0:
                    raise Malformed(f"its storage {shown(key)} is a part of another")
                storage = Storage(key, dtype, size)
                self._storage(storage)
                return storage
            case ("storage", Opaque() as kind, *_):  # of complex numbers, say
                return kind
        raise Malformed("its pickle refers to something else than a storage")

    def _opaque(self, why: str) -> Opaque:
        if why not in self._opaques and len(self._opaques) >= _MAX_REASONS:
            why = "it is one of many things that are no weights"
        return self._opaques.setdefault(why, Opaque(why))

    def _protocol(self) -> None:
        if (version := self.read(1)[0]) != 2:
            raise Malformed(f"its pickle's protocol is {version}; torch.save writes 2 unless told otherwise")

    def _long(self) -> None:
        self.load_long1()
        if self.stack[-1].bit_length() > 64:  # longer ones could be made to collide as a dict's keys
            self.stack[-1] = self._opaque("its pickle has a number of more than 64 bits")

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def _set_items(self) -> None:
        items = self.pop_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        if not isinstance(key, str | int | float | Opaque | None):  # a tuple's hash is recursive, and may be deep
            key = self._opaque(f"its pickle has a {shown(key)} as a key")
        self.stack[-1][key] = value

    def _call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        try:
            made = function if type(function) is Opaque else function(arguments)
        except Malformed as error:
            made = next((value for value in arguments if type(value) is Opaque), None) or self._opaque(str(error))
        self.append(made)

    def _build(self) -> None:
        self.stack.pop()  # an ordered dict's attributes: the versions of its modules

    dispatch = _Opcodes({code[0]: pickle._Unpickler.dispatch[code[0]] for code in _AS_THEY_ARE})
    dispatch |= {
        **{pickle.PROTO[0]: _protocol, pickle.LONG1[0]: _long, pickle.BUILD[0]: _build},
        **{pickle.SETITEM[0]: _set_item, pickle.SETITEMS[0]: _set_items},
        **{pickle.REDUCE[0]: _call, pickle.NEWOBJ[0]: _call},
    }


def _ordered_dict(arguments: tuple) -> dict:
    if arguments:
        raise Malformed("its pickle makes an ordered dict of something")
    return {}


def _size(arguments: tuple) -> tuple:
    if len(arguments) != 1 or type(arguments[0]) is not tuple:
        raise Malformed("its pickle makes a torch.Size of something else than a tuple")
    return arguments[0]


def _parameter(arguments: tuple) -> Tensor:
    """Of (tensor, requires_grad, hooks), and in one of the two functions a state."""
    if len(arguments) not in (3, 4) or type(arguments[0]) is not Tensor:
        raise Malformed("its pickle makes a parameter of something else than a tensor")
    return arguments[0]


def _tensor(arguments: tuple) -> Tensor:
    """Of (storage, offset, shape, strides, requires_grad, hooks), and in later versions metadata."""
    match arguments:
        case (Storage() as storage, int(offset), tuple(shape), tuple(strides), _, _, *_) if len(arguments) <= 7:
            numbers = (offset, *shape, *strides)
            if all(type(number) is int and number >= 0 for number in numbers) and len(shape) == len(strides) <= 32:
                extent = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
                # More elements than the storage has would be one element repeated, any number of times.
                if 0 in shape or extent >= storage.size or math.prod(shape) > storage.size:
                    key = shown(storage.key)
                    raise Malformed(f"a tensor lies outside its storage {key}, is empty or repeats elements")
                return Tensor(storage, offset, shape, strides)
    raise Malformed("its pickle makes a tensor of something else than a storage and whole numbers")


_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    **{f"torch.{name}": np.dtype(dtype) for name, dtype in _DTYPES.items()},
}
