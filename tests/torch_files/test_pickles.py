"""What a pickle makes, and what is refused and never executed."""

import collections
import datetime
import os
import pathlib
import pickle
import pickletools

import numpy as np
import pytest

from divco_tf.torch_files import pickles
from tests.torch_files import made as files
from tests.torch_files.made import Call, Global, Storage, rebuilt

HOSTILE = [
    Call(Global("os", "system"), ("touch owned",)),
    Call(Global("posix", "system"), ("touch owned",)),
    Call(Global("subprocess", "Popen"), (["touch", "owned"],)),
    Call(Global("builtins", "eval"), ("open('owned', 'w')",)),
    Call(Global("builtins", "exec"), ("open('owned', 'w')",)),
    Call(Global("builtins", "open"), ("owned", "w")),
    Call(Global("pathlib", "Path.touch"), ("owned",)),
    Call(Global("pickle", "loads"), (pickle.dumps(1),)),
    Call(Global("torch", "load"), ("owned",)),
    Call(Global("torch.storage", "_load_from_bytes"), ("owned",)),
    Call(Global("numpy", "fromfile"), ("owned",)),
    Call(Global("numpy._core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (0,), "b")),
    Call(Global("argparse", "Namespace"), ()),
    Global("torch.nn.modules.conv", "Conv2d"),
    Global("torch.FloatStorage", "__reduce__"),
]
PLACES = {
    "value": lambda hostile: hostile,
    "state dict": lambda hostile: {"state_dict": {"fc.weight": hostile}},
    "argument": lambda hostile: {"w": rebuilt(hostile, 0, (1,), (1,))},
    "hooks": lambda hostile: {"w": Call(Global("torch._utils", "_rebuild_tensor_v2"), (0, 0, 0, 0, 0, hostile))},
}


@files.FORMATS
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: str(getattr(hostile, "function", hostile)))
def test_what_is_no_tensor_is_refused_by_name_and_not_executed(refused, tmp_path, monkeypatch, write, place, hostile):
    monkeypatch.chdir(tmp_path)
    named = getattr(hostile, "function", hostile)
    assert f"it names '{named.module}.{named.name}', which is not executed" in refused(write(place(hostile)))
    assert os.listdir(tmp_path) == ["net.pth.tar"]


@files.FORMATS
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: str(getattr(hostile, "function", hostile)))
def test_beside_the_weights_it_is_passed_over_and_not_executed(read, tmp_path, monkeypatch, write, hostile):
    monkeypatch.chdir(tmp_path)
    beside = {"args": hostile, "list": [hostile, {"deep": (hostile,)}], "epoch": 3}
    found = read(write({"state_dict": files.state_dict(files.ARRAYS), **beside}))
    files.assert_equal(found.tensors, files.ARRAYS)
    assert found.facts == {"epoch": 3} and found.unreadable == {}
    assert os.listdir(tmp_path) == ["net.pth.tar"]


class Config:
    """An object of training's own, as argparse's and many others."""

    def __init__(self) -> None:
        self.rate, self.names = 0.1, {"a": [1]}


ZERO = Storage(np.zeros(0, np.float32))
BESIDE = {
    "a counter": collections.Counter("aab"),
    "a default dict": collections.defaultdict(list, {"a": [1]}),
    "a deque": collections.deque([1, 2], maxlen=3),
    "a filled ordered dict": Call(Global("collections", "OrderedDict"), ([["a", 1]],)),
    "a set": {1, 2},
    "a frozen set": frozenset("a"),
    "bytes": b"\xff\x00",
    "a byte array": bytearray(b"abc"),
    "a complex number": 1j,
    "a large number": 2**127,
    "a path": pathlib.PurePosixPath("/data"),
    "a time": datetime.datetime(2026, 1, 2),
    "a number of numpy": np.float64(0.5),
    "an array": np.arange(3),
    "a random generator": np.random.default_rng(0),
    "an object": Config(),
    "a class": Config,
    "a function": os.path.join,
    "a device": Call(Global("torch", "device"), ("cuda", 0)),
    "a dtype": Global("torch", "float32"),
    "an empty tensor": rebuilt(ZERO, 0, (0,), (1,)),
    "an expanded tensor": rebuilt(Storage(np.ones(1)), 0, (1000,), (0,)),
    "a parameter with a state": Call(
        Global("torch._utils", "_rebuild_parameter_with_state"), (files.tensor(np.ones(2)), True, {}, {"a": 1})
    ),
    "a tensor of a later kind": Call(Global("torch._utils", "_rebuild_tensor_v3"), (1, 0, (1,), (1,), False, {})),
    "a key of another kind": {(1, 2): 3, None: 4, b"a": 5},
    "a name that is no UTF-8": os.fsdecode(b"caf\xe9"),
}


@files.FORMATS
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_whatever_stands_beside_the_weights_they_are_read(read, refused, write, beside):
    value = {"epoch": 3, "args": beside, "state_dict": files.state_dict(files.ARRAYS), "last": [beside]}
    found = read(write(value))
    files.assert_equal(found.tensors, files.ARRAYS)
    assert found.facts["epoch"] == 3
    inside = read(write({"state_dict": {**files.state_dict(files.ARRAYS), "extra": beside}}))
    readable = "a parameter with a state" in BESIDE and beside is BESIDE["a parameter with a state"]
    files.assert_equal({name: inside.tensors[name] for name in files.ARRAYS}, files.ARRAYS)
    assert ("extra" in inside.tensors, "extra" in inside.unreadable) == (readable, not readable)
    if not readable:
        assert "'extra' is no tensor" in inside.unreadable["extra"]
        assert "'w' is no tensor" in refused(write({"state_dict": {"w": beside}}))


READ_OPCODES = {opcode.name for opcode in pickletools.opcodes if ord(opcode.code) in pickles.Unpickler.dispatch}


@pytest.mark.parametrize("name", sorted({opcode.name for opcode in pickletools.opcodes} - READ_OPCODES))
def test_opcodes_that_torch_does_not_write_are_refused_by_name(refused, name):
    (code,) = (opcode.code.encode("latin-1") for opcode in pickletools.opcodes if opcode.name == name)
    pickled = b"\x80\x02}" + code + b"\x01" * 20 + b"\n."
    assert f"the opcode {name}," in refused(files.zip_file(None, pickle_bytes=pickled))


TENSOR = Global("torch._utils", "_rebuild_tensor_v2")
ONES = Storage(np.ones(6, np.float32))
BAD_VALUES = {
    "a number": (1, "no state dict but a int"),
    "nothing": ({}, "no state dict but a dict"),
    "a list": ([files.tensor(np.ones(1))], "no state dict but a list"),
    "no tensors": ({"model": 1}, "'model' is no tensor but a int"),
    "a model of another name": ({"epoch": 1, "student": files.state_dict(files.ARRAYS)}, "'epoch' is no tensor"),
    "a dict of dicts": (
        {"state_dict": {"fc": files.state_dict(files.ARRAYS)}},
        "'fc' is no tensor but a dict of 'fc.weight'",
    ),
    "no name": ({1: files.tensor(np.ones(1))}, "no tensor is called int"),
    "two lines": ({"a\nb": files.tensor(np.ones(1))}, r"no tensor is called 'a\nb'"),
    "a long name": ({"a" * 1000: files.tensor(np.ones(1))}, "no tensor is called 'aaaaaaaa"),
    "a class": ({"w": Global("torch", "FloatStorage")}, "'w' is no tensor but a"),
    "a storage": ({"w": ONES}, "'w' is no tensor but a Storage"),
    "a called storage": ({"w": Call(Global("torch", "FloatStorage"), ())}, "its pickle is damaged"),
    "beyond the end": ({"w": rebuilt(ONES, 1, (6,), (1,))}, "outside its storage"),
    "a far stride": ({"w": rebuilt(ONES, 0, (2, 2), (2**40, 1))}, "outside its storage"),
    "a far offset": ({"w": rebuilt(ONES, 2**62, (1,), (1,))}, "outside its storage"),
    "a negative offset": ({"w": rebuilt(ONES, -1, (1,), (1,))}, "storage and whole numbers"),
    "a negative stride": ({"w": rebuilt(ONES, 5, (6,), (-1,))}, "storage and whole numbers"),
    "a repeated element": ({"w": rebuilt(ONES, 0, (2**40,), (0,))}, "outside its storage"),
    "an empty tensor": ({"w": rebuilt(ONES, 0, (0, 2**62), (1, 1))}, "is empty"),
    "too few strides": ({"w": rebuilt(ONES, 0, (2, 3), (1,))}, "storage and whole numbers"),
    "many axes": ({"w": rebuilt(ONES, 0, (1,) * 65, (1,) * 65)}, "storage and whole numbers"),
    "half an element": ({"w": rebuilt(ONES, 0.5, (1,), (1,))}, "storage and whole numbers"),
    "a true element": ({"w": rebuilt(ONES, True, (1,), (1,))}, "storage and whole numbers"),
    "no storage": ({"w": rebuilt("0", 0, (1,), (1,))}, "storage and whole numbers"),
    "few arguments": ({"w": Call(TENSOR, (ONES,))}, "storage and whole numbers"),
    "no parameter": ({"w": Call(Global("torch._utils", "_rebuild_parameter"), (1, 2, 3))}, "a parameter of something"),
    "no size": ({"w": Call(Global("torch", "Size"), (3,))}, "torch.Size of something"),
    "filled": (Call(Global("collections", "OrderedDict"), ([["a", 1]],)), "ordered dict of something"),
    "a tuple as key": ({(1, 2): 3}, "has a tuple as a key"),
    "a huge number": ({"w": 2**64}, "more than 64 bits"),
    "a huge storage": ({"w": files.rebuilt(Storage(ONES.array, 2**60), 0, (1,), (1,))}, "storage '0' of"),
    "a small storage": ({"w": files.rebuilt(Storage(ONES.array, 5), 0, (1,), (1,))}, "storage '0' of 20 bytes"),
    "less than no storage": ({"w": files.rebuilt(Storage(ONES.array, -6), 0, (1,), (1,))}, "is a part of another"),
}


@files.FORMATS
@pytest.mark.parametrize(("value", "says"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_values_that_are_no_network_are_refused(refused, write, value, says):
    assert says in refused(write(value))


BAD_PICKLES = {
    "nothing": (b"", "truncated"),
    "no value": (b"\x80\x02.", "is damaged"),
    "two values": (b"\x80\x02NN.", "in the middle of a value"),
    "an open mark": (b"\x80\x02(N.", "in the middle of a value"),
    "a value below a mark": (b"\x80\x02]N(a.", "is damaged"),
    "no mark": (b"\x80\x02t.", "is damaged"),
    "protocol 4": (pickle.dumps({}, protocol=4), "protocol is 4"),
    "protocol 0": (pickle.dumps({"a": 1}, protocol=0), "the opcode"),
    "a memo that is empty": (b"\x80\x02h\x05.", "is damaged"),
    "a text without an end": (b"\x80\x02X\xff\xff\xff\xffabc.\xff", "is damaged"),
    "a text of other bytes": (b"\x80\x02X\x02\x00\x00\x00\xff\xfe.", "is damaged"),
    "a name without an end": (b"\x80\x02c" + b"a" * 500 + b".", "cannot be read: "),
    "a name of control characters": (b"\x80\x02c\x1b[2J\nx\n.", r"it names '\x1b[2J.x'"),
    "an item of a number": (b"\x80\x02K\x01K\x02a.", "is damaged"),
    "an odd number of items": (b"\x80\x02}(NNNu.", "is damaged"),
    "a call of a number": (b"\x80\x02K\x01)R.", "is damaged"),
    "an item of a text": (b"\x80\x02X\x01\x00\x00\x00aK\x00Ns.", "is damaged"),
    "a reference to a number": (b"\x80\x02K\x01Q.", "something else than a storage"),
    "a cycle": (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "'a' is no tensor but a dict"),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "no state dict but a list"),
    "an unknown opcode": (b"\x80\x02\xff.", "the opcode 0xff"),
}


@pytest.mark.parametrize(("pickled", "says"), BAD_PICKLES.values(), ids=BAD_PICKLES)
@files.FORMATS
def test_pickles_that_are_none_are_refused(refused, write, pickled, says):
    assert says in refused(write(None, pickle_bytes=pickled))
