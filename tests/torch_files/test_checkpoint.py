"""The authors' files: what comes out, and what is refused and never executed."""

import collections
import dataclasses
import datetime
import json
import os
import pathlib
import pickle
import pickletools

import ml_dtypes
import numpy as np
import pytest

from divco_tf.errors import InputError
from divco_tf.models.torch_weights import import_state_dict
from divco_tf.torch_files import pickles
from divco_tf.torch_files.checkpoint import read_checkpoint
from tests import tiny
from tests.models.test_torch_weights import state_dict
from tests.torch_files import made as files
from tests.torch_files.made import Call, Global, Record, Storage, rebuilt

ARRAYS = {"fc.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "fc.bias": np.ones(3, np.float32)}
FORMATS = pytest.mark.parametrize("write", files.WRITERS.values(), ids=files.WRITERS)


@pytest.fixture
def read(tmp_path):
    """Reads a file of these bytes."""

    def read(content: bytes):
        path = tmp_path / "net.pth.tar"
        path.write_bytes(content)
        return read_checkpoint(path)

    return read


@pytest.fixture
def refused(read):
    """The one line with which a file of these bytes is refused."""

    def refused(content: bytes) -> str:
        with pytest.raises(InputError) as error:
            read(content)
        assert tiny.one_line(error.value, says="net.pth.tar"), error.value
        return str(error.value)

    return refused


def assert_equal(tensors, arrays) -> None:
    assert list(tensors) == list(arrays)
    for name, array in arrays.items():
        assert (tensors[name].dtype, tensors[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(tensors[name], array)


@FORMATS
@pytest.mark.parametrize(
    "dtype", [*(name for name in files.STORAGES if name != "bfloat16"), ml_dtypes.bfloat16], ids=str
)
def test_tensors_of_every_type_come_back(read, write, dtype):
    arrays = {"a": np.arange(-6, 6).reshape(2, 3, 2).astype(dtype), "b": np.array(3).astype(dtype)}
    assert_equal(read(write(files.state_dict(arrays))).tensors, arrays)


@FORMATS
def test_what_training_saves_is_its_state_dict_without_the_prefix(read, write):
    found = read(write(files.checkpoint(ARRAYS)))
    assert_equal(found.tensors, ARRAYS)
    assert found.facts == {"epoch": 300, "arch": "resnet110"}


def test_a_prefix_that_only_some_names_have_is_part_of_them(read):
    arrays = {"module.a": np.ones(1), "b": np.ones(1)}
    assert_equal(read(files.zip_file(files.state_dict(arrays))).tensors, arrays)


@FORMATS
def test_views_of_one_storage_come_back(read, write):
    flat = np.arange(24, dtype=np.float32)
    storage = Storage(flat)
    views = {
        "transposed": rebuilt(storage, 0, (4, 6), (1, 4)),
        "rows": rebuilt(storage, 12, (2, 6), (6, 1)),
        "every second": rebuilt(storage, 1, (3,), (2,)),
        "repeated row": rebuilt(storage, 2, (2, 4), (0, 1)),
        "number": rebuilt(storage, 23, (), ()),
    }
    expected = {
        "transposed": flat.reshape(6, 4).T,
        "rows": flat[12:].reshape(2, 6),
        "every second": flat[1:7:2],
        "repeated row": np.stack([flat[2:6]] * 2),
        "number": flat[23],
    }
    assert_equal(read(write(views)).tensors, expected)


@FORMATS
def test_parameters_and_sizes_are_read_as_what_they_hold(read, write):
    size = Call(Global("torch", "Size"), ((2, 3),))
    tensor = rebuilt(Storage(np.arange(6.0)), 0, size, (3, 1))
    hooks = collections.OrderedDict()
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (tensor, True, hooks))
    assert_equal(read(write({"w": parameter})).tensors, {"w": np.arange(6.0).reshape(2, 3)})


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats_are_imported_as_float32(read, dtype):
    stack = tiny.tiny_stack()
    state = {name: array.astype(dtype) for name, array in state_dict(stack).items()}
    import_state_dict(stack, read(files.zip_file(files.checkpoint(state))).tensors)
    one = stack.branch(1)
    expected = state["models.1.conv.weight"].astype(np.float32).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(one.get_layer("conv").kernel, expected)


def test_arrays_are_views_that_cannot_be_written(read):
    array = read(files.zip_file(files.state_dict(ARRAYS))).tensors["fc.weight"]
    assert not array.flags.writeable and not array.flags.owndata


def test_archives_without_64_bit_fields_are_read(read):
    records = files.zip_records(files.state_dict(ARRAYS))
    assert_equal(read(files.archive(records, zip64=False, comment=b"saved by hand")).tensors, ARRAYS)


@pytest.mark.slow  # the import of PyTorch
@pytest.mark.parametrize("form", files.WRITERS)
def test_what_pytorch_itself_writes_is_read_and_it_reads_what_the_tests_write(read, tmp_path, form):
    torch = pytest.importorskip("torch")
    net = torch.nn.DataParallel(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net.module[0].weight.grad = torch.ones_like(net.module[0].weight)
    optimizer.step()
    state = net.state_dict()
    state["module.view"] = torch.arange(24.0).reshape(4, 6).T[1::2].half()
    value = {"epoch": 3, "state_dict": state, "optimizer": optimizer.state_dict(), "best_acc1": torch.tensor(0.5)}
    path = tmp_path / "theirs.pth.tar"
    torch.save(value, path, _use_new_zipfile_serialization=form == "zip")
    found = read_checkpoint(path)
    assert_equal(found.tensors, {name.removeprefix("module."): tensor.numpy() for name, tensor in state.items()})
    assert found.facts == {"epoch": 3}
    path.write_bytes(files.WRITERS[form](files.checkpoint(ARRAYS)))
    loaded = torch.load(path, weights_only=True)["state_dict"]
    assert_equal({name.removeprefix("module."): tensor.numpy() for name, tensor in loaded.items()}, ARRAYS)


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


@FORMATS
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: str(getattr(hostile, "function", hostile)))
def test_what_is_no_tensor_is_refused_by_name_and_not_executed(refused, tmp_path, monkeypatch, write, place, hostile):
    monkeypatch.chdir(tmp_path)
    named = getattr(hostile, "function", hostile)
    assert f"it names '{named.module}.{named.name}', which is not executed" in refused(write(place(hostile)))
    assert os.listdir(tmp_path) == ["net.pth.tar"]


@FORMATS
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: str(getattr(hostile, "function", hostile)))
def test_beside_the_weights_it_is_passed_over_and_not_executed(read, tmp_path, monkeypatch, write, hostile):
    monkeypatch.chdir(tmp_path)
    beside = {"args": hostile, "list": [hostile, {"deep": (hostile,)}], "epoch": 3}
    found = read(write({"state_dict": files.state_dict(ARRAYS), **beside}))
    assert_equal(found.tensors, ARRAYS)
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


@FORMATS
@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
def test_whatever_stands_beside_the_weights_they_are_read(read, refused, write, beside):
    value = {"epoch": 3, "args": beside, "state_dict": files.state_dict(ARRAYS), "last": [beside]}
    found = read(write(value))
    assert_equal(found.tensors, ARRAYS)
    assert found.facts["epoch"] == 3
    inside = read(write({"state_dict": {**files.state_dict(ARRAYS), "extra": beside}}))
    readable = "a parameter with a state" in BESIDE and beside is BESIDE["a parameter with a state"]
    assert_equal({name: inside.tensors[name] for name in ARRAYS}, ARRAYS)
    assert ("extra" in inside.tensors, "extra" in inside.unreadable) == (readable, not readable)
    if not readable:
        assert "'extra' is no tensor" in inside.unreadable["extra"]
        assert "'w' is no tensor" in refused(write({"state_dict": {"w": beside}}))


@FORMATS
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_the_weights_are_found_under_the_usual_names(read, write, key):
    found = read(write({"epoch": 1, key: files.state_dict(ARRAYS), "best": files.tensor(np.ones(1))}))
    assert_equal(found.tensors, ARRAYS)
    assert (found.key, found.facts) == (key, {"epoch": 1})
    assert read(write(files.state_dict(ARRAYS))).key is None


@FORMATS
def test_another_entry_is_taken_when_it_is_asked_for(tmp_path, write):
    others = {name: array + 1 for name, array in ARRAYS.items()}
    path = tmp_path / "net.pth.tar"
    value = {"state_dict": files.state_dict(ARRAYS), "state_dict_ema": files.state_dict(others), "epoch": 1}
    path.write_bytes(write(value))
    assert_equal(read_checkpoint(path).tensors, ARRAYS)
    assert_equal(read_checkpoint(path, key="state_dict_ema").tensors, others)
    for key in ("state_dict_emma", "epoch"):
        with pytest.raises(InputError) as error:
            read_checkpoint(path, key=key)
        assert tiny.one_line(error.value, says=f"no state dict '{key}', but 'state_dict', 'state_dict_ema'")


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module._orig_mod.module."]
)
def test_names_are_those_without_wrappers_in_any_order(read, prefix):
    assert_equal(read(files.zip_file(files.state_dict(ARRAYS, prefix))).tensors, ARRAYS)


def test_parts_of_a_network_may_have_been_compiled(read, refused):
    arrays = {"a._orig_mod.weight": np.ones(1), "a.bias": np.ones(2)}
    assert list(read(files.zip_file(files.state_dict(arrays))).tensors) == ["a.weight", "a.bias"]
    arrays["a.weight"] = np.ones(3)
    assert "two of its tensors have one name" in refused(files.zip_file(files.state_dict(arrays)))


def test_checksums_that_were_not_computed_are_passed_over(read):
    unchecked = [dataclasses.replace(record, crc=0) for record in files.zip_records(files.state_dict(ARRAYS))]
    assert_equal(read(files.archive(unchecked)).tensors, ARRAYS)


def safetensors(arrays: dict, facts: dict | None = None, **changes) -> bytes:
    names = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "float64": "F64", "bool": "BOOL"}
    head, body = {"__metadata__": facts} if facts else {}, b""
    for name, array in arrays.items():
        end = len(body) + array.nbytes
        head[name] = {"dtype": names[array.dtype.name], "shape": array.shape, "data_offsets": [len(body), end]}
        head[name] |= changes
        body += array.tobytes()
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_safetensors_are_read(read):
    arrays = {
        **{"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(2, ml_dtypes.bfloat16)},
        **{"c": np.array(3), "d": np.ones(3, np.float16), "e": np.array([True])},
    }
    found = read(safetensors({f"module.{name}": array for name, array in arrays.items()}, {"format": "pt"}))
    assert_equal(found.tensors, arrays)
    assert (found.facts, found.key, found.unreadable) == ({"format": "pt"}, None, {})


def test_safetensors_that_are_none_are_refused(refused, read, tmp_path):
    whole = safetensors(ARRAYS)
    for content, says in [
        *((whole[:end], "net.pth.tar") for end in range(0, len(whole), 7)),
        (whole + b"x", "cannot be read"),
        (safetensors(ARRAYS, shape=[2**62]), "overflow"),
        (safetensors(ARRAYS, dtype="F99"), "unknown variant"),
        (safetensors({}, {"format": "pt"}), "it is empty"),
        (safetensors({"a\nb": np.ones(1)}), r"no tensor is called 'a\nb'"),
        (safetensors({"w": np.ones(1, np.float32)}, dtype="F8_E4M3", shape=[4]), "'w' is F8_E4M3"),
        (b"\xff" * 8 + b"{" + b"x" * 99, "header"),
    ]:
        assert says in refused(content)
    (tmp_path / "net.pth.tar").write_bytes(whole)
    with pytest.raises(InputError, match="without entries such as 'state_dict'"):
        read_checkpoint(tmp_path / "net.pth.tar", key="state_dict")


def test_home_is_expanded(tmp_path, monkeypatch):
    (tmp_path / "net.pth").write_bytes(files.zip_file(files.state_dict(ARRAYS)))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_equal(read_checkpoint("~/net.pth").tensors, ARRAYS)


READ_OPCODES = {opcode.name for opcode in pickletools.opcodes if ord(opcode.code) in pickles._OPCODES} | {"STOP"}


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
    "a model of another name": ({"epoch": 1, "student": files.state_dict(ARRAYS)}, "'epoch' is no tensor"),
    "a dict of dicts": (
        {"state_dict": {"fc": files.state_dict(ARRAYS)}},
        "'fc' is no tensor but a dict of 'fc.weight'",
    ),
    "no name": ({1: files.tensor(np.ones(1))}, "no tensor is called int"),
    "two lines": ({"a\nb": files.tensor(np.ones(1))}, r"no tensor is called 'a\nb'"),
    "a long name": ({"a" * 1000: files.tensor(np.ones(1))}, "no tensor is called 'aaaaaaaa"),
    "a class": ({"w": Global("torch", "FloatStorage")}, "is no tensor but a _Global"),
    "a storage": ({"w": ONES}, "'w' is no tensor but a Storage"),
    "a called storage": ({"w": Call(Global("torch", "FloatStorage"), ())}, "its pickle calls torch.FloatStorage"),
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


@FORMATS
@pytest.mark.parametrize(("value", "says"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_values_that_are_no_network_are_refused(refused, write, value, says):
    assert says in refused(write(value))


BAD_PICKLES = {
    "nothing": (b"", "truncated"),
    "no value": (b"\x80\x02.", "not there"),
    "two values": (b"\x80\x02NN.", "in the middle of a value"),
    "an open mark": (b"\x80\x02(N.", "in the middle of a value"),
    "a value below a mark": (b"\x80\x02]N(a.", "not there"),
    "no mark": (b"\x80\x02t.", "not there"),
    "protocol 4": (pickle.dumps({}, protocol=4), "protocol is 4"),
    "protocol 0": (pickle.dumps({"a": 1}, protocol=0), "the opcode"),
    "a memo that is empty": (b"\x80\x02h\x05.", "repeats a value that is not there"),
    "a text without an end": (b"\x80\x02X\xff\xff\xff\xffabc.", "truncated"),
    "a text of other bytes": (b"\x80\x02X\x02\x00\x00\x00\xff\xfe.", "no UTF-8"),
    "a name without an end": (b"\x80\x02c" + b"a" * 500 + b".", "without an end"),
    "a name of control characters": (b"\x80\x02c\x1b[2J\nx\n.", r"it names '\x1b[2J.x'"),
    "an item of a number": (b"\x80\x02K\x01K\x02a.", "adds an item to a int"),
    "an odd number of items": (b"\x80\x02}(NNNu.", "key without a value"),
    "a call of a number": (b"\x80\x02K\x01)R.", "calls int"),
    "a call with a dict": (b"\x80\x02ccollections\nOrderedDict\n}R.", "calls collections.OrderedDict"),
    "a state of a number": (b"\x80\x02K\x01}b.", "adds an item to a int"),
    "a reference to a number": (b"\x80\x02K\x01Q.", "something else than a storage"),
    "a cycle": (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "'a' is no tensor but a dict"),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "no state dict but a list"),
    "an unknown opcode": (b"\x80\x02\xff.", "the opcode 0xff"),
}


@pytest.mark.parametrize(("pickled", "says"), BAD_PICKLES.values(), ids=BAD_PICKLES)
@FORMATS
def test_pickles_that_are_none_are_refused(refused, write, pickled, says):
    assert says in refused(write(None, pickle_bytes=pickled))


def records(**changes):
    """The records of a good file, the first storage's changed."""
    found = files.zip_records(files.state_dict(ARRAYS))
    for name, value in changes.items():
        setattr(found[2], name, value)
    return found


def named(name: str, content: bytes = b"") -> list[Record]:
    return [*records(), Record(name, content)]


BAD_ARCHIVES = {
    "a compressed record": (records(method=8), "'net/data/0' is compressed"),
    "an encrypted record": (records(flags=0x809), "'net/data/0' is compressed or encrypted"),
    "a record that says it unpacks to more": (records(size=2**40), "compressed"),
    "a record larger than the file": (records(size=2**40, packed=2**40), "overlap"),
    "a record of 2^64 bytes": (records(size=2**64 - 1, packed=2**64 - 1), "overlap"),
    "a record behind the file": (records(offset=2**40), "points outside the file"),
    "a record in the place of another": (records(offset=0), "two names"),
    "a record too short for its storage": (records(content=b"1234"), "storage '0' of 48 bytes is of 4 bytes"),
    "another checksum": (records(crc=1), "storage '0' is damaged"),
    "another name in place": (records(local_name="net/data/9"), "two names"),
    "no such storage": (records()[:2] + records()[3:], "storage '0' of 48 bytes is missing"),
    "a record twice": (named("net/version"), "there twice"),
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


def test_records_that_share_bytes_are_refused(refused):
    inner = files.archive([Record("net/data/0", b"x" * 48)])
    content = files.archive([Record("net/data.pkl", inner), Record("net/data/0", b"", offset=0)])
    start = content.index(b"PK\x03\x04", 1)  # of the record inside the first
    changed = files.archive([Record("net/data.pkl", inner), Record("net/data/0", b"", offset=start)])
    assert "overlap" in refused(changed)


@pytest.mark.parametrize(("count", "says"), [(2**32, "more than any network"), (50, "its directory"), (1, "data.pkl")])
def test_a_directory_of_another_length_than_it_says_is_refused(refused, count, says):
    reordered = records()[::-1]
    assert says in refused(files.archive(reordered, count=count))


def test_numbers_of_a_big_endian_machine_are_refused_in_the_old_format(refused):
    content = files.legacy_file(files.state_dict(ARRAYS), system={**files.SYSTEM, "little_endian": False})
    assert "not little-endian" in refused(content)


@pytest.mark.parametrize("left", [b"\x00", b"\x00" * 100])
def test_bytes_behind_the_old_format_are_refused(refused, left):
    assert f"{len(left)} bytes are left" in refused(files.legacy_file(files.state_dict(ARRAYS)) + left)


@FORMATS
def test_a_file_cut_anywhere_is_refused(refused, write):
    whole = write(files.state_dict({"w": np.ones(3, np.float32)}))
    for end in range(1, len(whole)):
        refused(whole[:end])


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
            assert_equal(found.tensors, {"w": np.ones(3, np.float32)})
            assert found.facts == {"epoch": 300}
    assert noticed > len(files.pickled(value)[0])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"not a checkpoint", "does not begin as one"),
        (pickle.dumps({"fc.weight": 1}, protocol=2), "does not begin as one"),
        (b"pickle\x00".ljust(257, b"\x00") + b"ustar  \x00".ljust(300, b"\x00"), "before 0.1.10"),
        (b"PK\x03\x04" + b"\x00" * 200, "no directory"),
        (b"\x1f\x8b\x08" + b"\x00" * 200, "does not begin as one"),
    ],
)
def test_files_of_other_kinds_are_refused(refused, content, says):
    assert says in refused(content)


@pytest.mark.parametrize("kind", ["absent", "folder", "pipe", "device", "zero"])
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    path = {"device": "/dev/zero", "zero": f"{tmp_path}/a\0b"}.get(kind, path)
    with pytest.raises(InputError) as error:
        read_checkpoint(path)
    assert tiny.one_line(error.value, says="it is no file")
