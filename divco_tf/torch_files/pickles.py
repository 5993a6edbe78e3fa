"""The pickles inside PyTorch's checkpoints, read by an interpreter of our own that executes nothing.

Python's unpickler calls what a file names, and lets a small file ask for much memory (a memo index of 2^31, a string
of 2^63 bytes). This one knows the opcodes that torch.save writes (protocol 2), makes containers, numbers, strings and
descriptions of tensors only, and counts what it does. In the place of all else, of what training keeps beside its
weights, stands an `Opaque`. What it makes may be cyclic or deep: nothing here walks it.
"""

import dataclasses
import math
import pickle
import pickletools
import struct
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

MAX_PICKLE = 16 << 20
"""Bytes. PyramidNet-272 at S=8 with its momentum, the largest of the paper's, has 4.6 MB."""

_FREE_STEPS, _BYTES_PER_STEP = 1_000_000, 100
"""A step makes at most about 150 bytes of objects (tests/torch_files/test_checkpoint_fuzz.py measures), so 10^6 steps
and one more for each 100 bytes of the file stay below 200 MB and twice the file. That PyramidNet-272
needs 1,018,000, in a file of 200 MB."""

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


@dataclasses.dataclass(frozen=True, slots=True)
class _Global:
    """What a pickle may name: something called with arguments, or the type of a storage."""

    name: str
    call: Callable[[tuple], Any] | None = None
    dtype: np.dtype | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """Something else: no more of it is known than why it is no weight."""

    why: str


class Malformed(Exception):
    """Why a file is no checkpoint, in a few words."""


def shown(name: object) -> str:
    """What a file says, fit for a line of an error: nothing nested, nothing long, no control characters."""
    if isinstance(name, _Global):
        return name.name
    return ascii(name if len(name) <= 80 else f"{name[:80]}...") if isinstance(name, str) else type(name).__name__


class Unpickler:
    """Reads pickles that stand one after the other.

    Args:
      data: at most MAX_PICKLE bytes.
      file_size: of the whole checkpoint, which bounds the number of steps.
      storage: called with the storages that are named; raises Malformed for one that is not in the file.
    """

    def __init__(self, data: bytes, *, file_size: int, storage: Callable[[Storage], None]) -> None:
        self.position = 0
        self._data, self._storage = data, storage
        self._steps = _FREE_STEPS + file_size // _BYTES_PER_STEP
        self._opaques: dict[str, Opaque] = {}

    def load(self) -> Any:
        """The value of the pickle at `position`, behind which `position` then is.

        Raises:
          Malformed: anything but a whole pickle of the kinds above.
        """
        self._stack: list = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        while (code := self.take(1)[0]) != pickle.STOP[0]:
            self._steps -= 1
            if self._steps < 0:
                raise Malformed("its pickle has more steps than that of any network of its size")
            if code not in _OPCODES:
                raise Malformed(f"its pickle has the opcode {_opcode_name(code)}, which torch.save does not write")
            _OPCODES[code](self)
        value = self._pop()
        if self._stack or self._marks:
            raise Malformed("its pickle ends in the middle of a value")
        self._memo = {}
        return value

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        start, self.position = self.position, self.position + count
        if self.position > len(self._data):
            raise Malformed("its pickle is truncated" if len(self._data) < MAX_PICKLE else "its pickle is too long")
        return self._data[start : self.position]

    def _unpack(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def _line(self) -> str:
        end = self._data.find(b"\n", self.position, self.position + 200)
        if end < 0:
            raise Malformed("its pickle names something without an end")
        return self.take(end + 1 - self.position)[:-1].decode("ascii", "backslashreplace")

    def _opaque(self, why: str) -> Opaque:
        if why not in self._opaques and len(self._opaques) >= _MAX_REASONS:
            why = "it is one of many things that are no weights"
        return self._opaques.setdefault(why, Opaque(why))

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise Malformed("its pickle takes a value that is not there")
        return self._stack.pop()

    def _pop_mark(self) -> list:
        """All values above the last mark."""
        if not self._marks:
            raise Malformed("its pickle takes values that are not there")
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _pop_several(self, count: int) -> tuple:
        return tuple(self._pop() for _ in range(count))[::-1]

    def _top(self, kind: type) -> Any:
        """The value on top, of a kind; None for one that is opaque, which keeps nothing."""
        value = self._pop()
        if type(value) is not kind and type(value) is not Opaque:
            raise Malformed(f"its pickle adds an item to a {shown(value)}")
        self._push(value)
        return value if type(value) is kind else None

    def _mark(self) -> None:
        self._marks.append(len(self._stack))

    def _protocol(self) -> None:
        if (version := self.take(1)[0]) != 2:
            raise Malformed(f"its pickle's protocol is {version}; torch.save writes 2 unless told otherwise")

    def _unicode(self) -> None:
        text = self.take(self._unpack("<I"))
        try:
            self._push(text.decode("utf-8", "surrogatepass"))  # names of files that are no UTF-8
        except UnicodeDecodeError:
            raise Malformed("its pickle has a string that is no UTF-8") from None

    def _long(self) -> None:
        size = self.take(1)[0]
        number = self.take(size)
        if size > 8:  # longer ones could be made to collide as a dict's keys
            self._push(self._opaque("its pickle has a number of more than 64 bits"))
        else:
            self._push(int.from_bytes(number, "little", signed=True))

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise Malformed("its pickle repeats a value that is not there")
        self._push(self._memo[index])

    def _put(self, index: int) -> None:
        value = self._pop()
        self._memo[index] = value
        self._push(value)

    def _append(self, items: list) -> None:
        target = self._top(list)
        if target is not None:
            target.extend(items)

    def _set_items(self, items: list) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise Malformed("its pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | Opaque | None):  # a tuple's hash is recursive, and may be deep
                key = self._opaque(f"its pickle has a {shown(key)} as a key")
            if target is not None:
                target[key] = value

    def _global(self) -> None:
        name = f"{self._line()}.{self._line()}"
        self._push(_GLOBALS.get(name) or self._opaque(f"it names {shown(name)}, which is not executed"))

    def _reduce(self) -> None:
        function, arguments = self._pop_several(2)
        if type(function) is Opaque:
            self._push(function)
            return
        if type(function) is not _Global or function.call is None or type(arguments) is not tuple:
            raise Malformed(f"its pickle calls {shown(function)}")
        try:
            self._push(function.call(arguments))
        except Malformed as error:
            self._push(next((value for value in arguments if type(value) is Opaque), None) or self._opaque(str(error)))

    def _new_object(self) -> None:
        kind, _ = self._pop_several(2)
        if type(kind) is not Opaque:
            raise Malformed(f"its pickle makes a new {shown(kind)}")
        self._push(kind)

    def _build(self) -> None:
        self._pop()  # an ordered dict's attributes: the versions of its modules
        self._top(dict)

    def _persistent(self) -> None:
        match self._pop():
            case ("storage", _Global(dtype=np.dtype() as dtype), str(key), str(_), int(size), *views):
                if views not in ([], [None]) or type(size) is not int or size < 0:
                    raise Malformed(f"its storage {shown(key)} is a part of another")
                storage = Storage(key, dtype, size)
                self._storage(storage)
                self._push(storage)
            case ("storage", Opaque() as kind, *_):  # of complex numbers, say
                self._push(kind)
            case _:
                raise Malformed("its pickle refers to something else than a storage")


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


_CALLS = {
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_GLOBALS = {name: _Global(name, call=call) for name, call in _CALLS.items()} | {
    f"torch.{name}": _Global(f"torch.{name}", dtype=np.dtype(dtype)) for name, dtype in _DTYPES.items()
}


def _opcode_name(code: int) -> str:
    names = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
    return names.get(code, f"0x{code:02x}")


_OPCODES: dict[int, Callable[[Unpickler], None]] = {
    code[0]: step
    for code, step in (
        (pickle.PROTO, Unpickler._protocol),
        (pickle.MARK, Unpickler._mark),
        (pickle.NONE, lambda self: self._push(None)),
        (pickle.NEWTRUE, lambda self: self._push(True)),
        (pickle.NEWFALSE, lambda self: self._push(False)),
        (pickle.BININT, lambda self: self._push(self._unpack("<i"))),
        (pickle.BININT1, lambda self: self._push(self._unpack("<B"))),
        (pickle.BININT2, lambda self: self._push(self._unpack("<H"))),
        (pickle.LONG1, Unpickler._long),
        (pickle.BINFLOAT, lambda self: self._push(self._unpack(">d"))),
        (pickle.BINUNICODE, Unpickler._unicode),
        (pickle.EMPTY_DICT, lambda self: self._push({})),
        (pickle.EMPTY_LIST, lambda self: self._push([])),
        (pickle.EMPTY_TUPLE, lambda self: self._push(())),
        (pickle.TUPLE, lambda self: self._push(tuple(self._pop_mark()))),
        (pickle.TUPLE1, lambda self: self._push(self._pop_several(1))),
        (pickle.TUPLE2, lambda self: self._push(self._pop_several(2))),
        (pickle.TUPLE3, lambda self: self._push(self._pop_several(3))),
        (pickle.BINGET, lambda self: self._get(self._unpack("<B"))),
        (pickle.LONG_BINGET, lambda self: self._get(self._unpack("<I"))),
        (pickle.BINPUT, lambda self: self._put(self._unpack("<B"))),
        (pickle.LONG_BINPUT, lambda self: self._put(self._unpack("<I"))),
        (pickle.APPEND, lambda self: self._append([self._pop()])),
        (pickle.APPENDS, lambda self: self._append(self._pop_mark())),
        (pickle.SETITEM, lambda self: self._set_items(list(self._pop_several(2)))),
        (pickle.SETITEMS, lambda self: self._set_items(self._pop_mark())),
        (pickle.GLOBAL, Unpickler._global),
        (pickle.REDUCE, Unpickler._reduce),
        (pickle.NEWOBJ, Unpickler._new_object),
        (pickle.BUILD, Unpickler._build),
        (pickle.BINPERSID, Unpickler._persistent),
    )
}
