"""The authors' files: what comes out of them."""

import collections
import json
import os
import pickle

import ml_dtypes
import numpy as np
import pytest

from divco_tf.errors import InputError
from divco_tf.models.torch_weights import import_state_dict
from divco_tf.torch_files.checkpoint import read_checkpoint
from tests import tiny
from tests.models.test_torch_weights import state_dict
from tests.torch_files import made as files
from tests.torch_files.made import Call, Global, Storage, rebuilt


@files.FORMATS
@pytest.mark.parametrize(
    "dtype", [*(name for name in files.STORAGES if name != "bfloat16"), ml_dtypes.bfloat16], ids=str
)
def test_tensors_of_every_type_come_back(read, write, dtype):
    arrays = {"a": np.arange(-6, 6).reshape(2, 3, 2).astype(dtype), "b": np.array(3).astype(dtype)}
    files.assert_equal(read(write(files.state_dict(arrays))).tensors, arrays)


@files.FORMATS
def test_what_training_saves_is_its_state_dict_without_the_prefix(read, write):
    found = read(write(files.checkpoint(files.ARRAYS)))
    files.assert_equal(found.tensors, files.ARRAYS)
    assert found.facts == {"epoch": 300, "arch": "resnet110"}


def test_a_prefix_that_only_some_names_have_is_part_of_them(read):
    arrays = {"module.a": np.ones(1), "b": np.ones(1)}
    files.assert_equal(read(files.zip_file(files.state_dict(arrays))).tensors, arrays)


@files.FORMATS
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
    files.assert_equal(read(write(views)).tensors, expected)


@files.FORMATS
def test_parameters_and_sizes_are_read_as_what_they_hold(read, write):
    size = Call(Global("torch", "Size"), ((2, 3),))
    tensor = rebuilt(Storage(np.arange(6.0)), 0, size, (3, 1))
    hooks = collections.OrderedDict()
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (tensor, True, hooks))
    files.assert_equal(read(write({"w": parameter})).tensors, {"w": np.arange(6.0).reshape(2, 3)})


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_floats_are_imported_as_float32(read, dtype):
    stack = tiny.tiny_stack()
    state = {name: array.astype(dtype) for name, array in state_dict(stack).items()}
    import_state_dict(stack, read(files.zip_file(files.checkpoint(state))).tensors)
    one = stack.branch(1)
    expected = state["models.1.conv.weight"].astype(np.float32).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(one.get_layer("conv").kernel, expected)


def test_arrays_are_views_that_cannot_be_written(read):
    array = read(files.zip_file(files.state_dict(files.ARRAYS))).tensors["fc.weight"]
    assert not array.flags.writeable and not array.flags.owndata


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
    files.assert_equal(found.tensors, {name.removeprefix("module."): tensor.numpy() for name, tensor in state.items()})
    assert found.facts == {"epoch": 3}
    path.write_bytes(files.WRITERS[form](files.checkpoint(files.ARRAYS)))
    loaded = torch.load(path, weights_only=True)["state_dict"]
    files.assert_equal({name.removeprefix("module."): tensor.numpy() for name, tensor in loaded.items()}, files.ARRAYS)


@files.FORMATS
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_the_weights_are_found_under_the_usual_names(read, write, key):
    found = read(write({"epoch": 1, key: files.state_dict(files.ARRAYS), "best": files.tensor(np.ones(1))}))
    files.assert_equal(found.tensors, files.ARRAYS)
    assert (found.key, found.facts) == (key, {"epoch": 1})
    assert read(write(files.state_dict(files.ARRAYS))).key is None


@files.FORMATS
def test_another_entry_is_taken_when_it_is_asked_for(tmp_path, write):
    others = {name: array + 1 for name, array in files.ARRAYS.items()}
    path = tmp_path / "net.pth.tar"
    value = {"state_dict": files.state_dict(files.ARRAYS), "state_dict_ema": files.state_dict(others), "epoch": 1}
    path.write_bytes(write(value))
    files.assert_equal(read_checkpoint(path).tensors, files.ARRAYS)
    files.assert_equal(read_checkpoint(path, key="state_dict_ema").tensors, others)
    for key in ("state_dict_emma", "epoch"):
        with pytest.raises(InputError) as error:
            read_checkpoint(path, key=key)
        assert tiny.one_line(error.value, says=f"no state dict '{key}', but 'state_dict', 'state_dict_ema'")


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module._orig_mod.module."]
)
def test_names_are_those_without_wrappers_in_any_order(read, prefix):
    files.assert_equal(read(files.zip_file(files.state_dict(files.ARRAYS, prefix))).tensors, files.ARRAYS)


def test_parts_of_a_network_may_have_been_compiled(read, refused):
    arrays = {"a._orig_mod.weight": np.ones(1), "a.bias": np.ones(2)}
    assert list(read(files.zip_file(files.state_dict(arrays))).tensors) == ["a.weight", "a.bias"]
    arrays["a.weight"] = np.ones(3)
    assert "two of its tensors have one name" in refused(files.zip_file(files.state_dict(arrays)))


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
    files.assert_equal(found.tensors, arrays)
    assert (found.facts, found.key, found.unreadable) == ({"format": "pt"}, None, {})


def test_safetensors_that_are_none_are_refused(refused, read, tmp_path):
    whole = safetensors(files.ARRAYS)
    for content, says in [
        *((whole[:end], "net.pth.tar") for end in range(0, len(whole), 7)),
        (whole + b"x", "cannot be read"),
        (safetensors(files.ARRAYS, shape=[2**62]), "overflow"),
        (safetensors(files.ARRAYS, dtype="F99"), "unknown variant"),
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
    (tmp_path / "net.pth").write_bytes(files.zip_file(files.state_dict(files.ARRAYS)))
    monkeypatch.setenv("HOME", str(tmp_path))
    files.assert_equal(read_checkpoint("~/net.pth").tensors, files.ARRAYS)


def test_numbers_of_a_big_endian_machine_are_refused_in_the_old_format(refused):
    content = files.legacy_file(files.state_dict(files.ARRAYS), system={**files.SYSTEM, "little_endian": False})
    assert "not little-endian" in refused(content)


@pytest.mark.parametrize("left", [b"\x00", b"\x00" * 100])
def test_bytes_behind_the_old_format_are_refused(refused, left):
    assert f"{len(left)} bytes are left" in refused(files.legacy_file(files.state_dict(files.ARRAYS)) + left)


@files.FORMATS
def test_a_file_cut_anywhere_is_refused(refused, write):
    whole = write(files.state_dict({"w": np.ones(3, np.float32)}))
    for end in range(1, len(whole)):
        refused(whole[:end])


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
