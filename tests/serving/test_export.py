"""What a process without divco_tf gets from an export, and what is there after a kill."""

import collections
import io
import json
import multiprocessing
import os
import pathlib
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.protobuf import saved_model_pb2

from divco_tf.data.preprocessing import Preprocessing
from divco_tf.errors import InputError, RunError
from divco_tf.models.backbones.resnest import ResNeXStSpec
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.layers import grouped
from divco_tf.runs.model_dir import load, open_model_dir
from divco_tf.runs.records.checkpoints import Checkpoint
from divco_tf.serving.export import (
    export,
    export_stack,
    read_class_names,
    read_record,
    signature_lines,
    version_folders,
)
from divco_tf.training import losses
from tests.data.images import photograph
from tests.test_files import at_once
from tests.tiny import lively, one_line, tiny_stack

FORMATS = ("JPEG", "WEBP", "GIF", "BMP")
PREPROCESSING = Preprocessing(image_size=8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))

# Reads (signature, inputs) pairs, writes the outputs of each and the class names.
CONSUMER = """
import pathlib, pickle, sys

sys.modules["divco_tf"] = None  # an import of it raises
import tensorflow as tf

version_dir, inputs, outputs = map(pathlib.Path, sys.argv[1:])
model = tf.saved_model.load(str(version_dir))
results = {}
for name, (signature, feed) in pickle.loads(inputs.read_bytes()).items():
    result = model.signatures[signature](**{key: tf.constant(value) for key, value in feed.items()})
    results[name] = {key: value.numpy() for key, value in result.items()}
results["class_names"] = (version_dir / "assets" / "class_names.txt").read_text().splitlines()
outputs.write_bytes(pickle.dumps(results))
"""


def small_export(export_dir: pathlib.Path, **options: Any) -> pathlib.Path:
    settings = {"preprocessing": PREPROCESSING, "class_names": ("cat", "dog", "owl"), "export_dir": export_dir}
    return export_stack(options.pop("stack", None) or tiny_stack(), **settings | options)


def encoded(images: np.ndarray | list, kind: str = "PNG") -> list[bytes]:
    streams = [io.BytesIO() for _ in images]
    for image, stream in zip(images, streams, strict=True):
        Image.fromarray(np.asarray(image)).save(stream, kind)
    return [stream.getvalue() for stream in streams]


def expected(model_dir: pathlib.Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """The signatures' outputs, computed by the run's own stack."""
    experiment = open_model_dir(model_dir).experiment
    logits = load(model_dir)(experiment.preprocessing(tf.constant(images)))
    probabilities = losses.ensemble_probabilities(logits, experiment.ensembling).numpy()
    return {
        "probabilities": probabilities,
        "classes": probabilities.argmax(axis=1),
        "disagreement": losses.jensen_shannon(logits).numpy(),
        "branch_probabilities": tf.nn.softmax(logits).numpy(),
    }


def assert_same(outputs: dict, others: dict, *, atol: float = 1e-5) -> None:
    assert outputs.keys() == others.keys()
    for name, values in outputs.items():
        np.testing.assert_allclose(values, others[name], rtol=0, atol=atol, err_msg=name)


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    """Photographs uint8 [N, H, W, 3]: of the network's size, and of another."""
    return {
        name: np.stack([np.asarray(photograph(*size, seed=seed)) for seed in range(4)])
        for name, size in (("fitting", (8, 8)), ("other", (23, 14)))
    }


@pytest.fixture(scope="module")
def served(digits_export, images, tmp_path_factory) -> dict[str, Any]:
    """What a second process that cannot import divco_tf gets."""
    sizes = [(8, 8), (31, 20), (9, 40), (64, 64)]
    mixed = [np.asarray(photograph(*size, seed=seed)) for seed, size in enumerate(sizes)]
    feeds = {
        "fitting": ("images", {"images": images["fitting"].astype(np.float32)}),
        "other": ("images", {"images": images["other"].astype(np.float32)}),
        "other as PNG": ("serving_default", {"image_bytes": encoded(images["other"])}),
        "mixed": ("serving_default", {"image_bytes": encoded(mixed[:2]) + encoded(mixed[2:], "JPEG")}),
        **{kind: ("serving_default", {"image_bytes": encoded(images["other"], kind)}) for kind in FORMATS},
        "no images": ("images", {"images": np.zeros((0, 9, 7, 3), np.float32)}),
        "no bytes": ("serving_default", {"image_bytes": np.zeros(0, "S1")}),
    }
    folder = tmp_path_factory.mktemp("served")
    (folder / "inputs").write_bytes(pickle.dumps(feeds))
    arguments = [sys.executable, "-c", CONSUMER, digits_export, folder / "inputs", folder / "outputs"]
    subprocess.run(list(map(str, arguments)), check=True, cwd=folder)
    return {"mixed sizes": sizes, "fed": feeds} | pickle.loads((folder / "outputs").read_bytes())


@pytest.mark.parametrize("name", ["fitting", "other"])
def test_a_process_without_the_package_predicts_as_the_trained_stack_does(served, images, digits_run, name):
    assert_same(served[name], expected(digits_run, images[name]))
    assert served[name]["classes"].dtype == np.int64
    np.testing.assert_allclose(served[name]["probabilities"].sum(axis=1), 1, atol=1e-5)
    assert (served[name]["disagreement"] > 0).all()


def test_png_bytes_are_the_images(served):
    assert_same(served["other as PNG"], served["other"], atol=0)


@pytest.mark.parametrize("kind", FORMATS)
def test_bytes_are_decoded_as_pillow_does(kind, served, digits_run):
    files = [io.BytesIO(data) for data in served["fed"][kind][1]["image_bytes"]]
    assert_same(
        served[kind], expected(digits_run, np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]))
    )


def test_images_of_one_request_may_differ_in_size_and_kind(served, digits_run):
    data = served["fed"]["mixed"][1]["image_bytes"]
    alone = [expected(digits_run, np.asarray(Image.open(io.BytesIO(one)))[None]) for one in data]
    assert len({Image.open(io.BytesIO(one)).size for one in data}) == len(served["mixed sizes"])
    assert_same(served["mixed"], {name: np.concatenate([one[name] for one in alone]) for name in alone[0]})


@pytest.mark.parametrize("name", ["no images", "no bytes"])
def test_an_empty_batch_gives_empty_outputs(served, name):
    shapes = {key: value.shape for key, value in served[name].items()}
    assert shapes == {
        "probabilities": (0, 10),
        "classes": (0,),
        "disagreement": (0,),
        "branch_probabilities": (0, 2, 10),
    }


def test_class_names_are_an_asset(served):
    assert served["class_names"] == list("0123456789")


def test_signatures_leave_the_batch_open_and_have_branches_only_when_asked(digits_export, tmp_path):
    outputs = "classes: int64 [?], disagreement: float32 [?], probabilities: float32 [?, {}]"
    assert signature_lines(digits_export) == [
        f"{taken} -> branch_probabilities: float32 [?, 2, 10], {outputs.format(10)}"
        for taken in ("serving_default(image_bytes: string [?])", "images(images: float32 [?, ?, ?, 3])")
    ]
    assert signature_lines(small_export(tmp_path))[1] == f"images(images: float32 [?, ?, ?, 3]) -> {outputs.format(3)}"


def test_the_record_says_what_the_export_was_made_of(digits_run, digits_export):
    record = read_record(digits_export)
    assert record["weights_from"] == load(digits_run).weights_from
    assert record["experiment"]["backbone"] == "wide_resnet10_2"
    assert record["preprocessing"]["image_size"] == 8 and "tensorflow" in record["versions"]


def test_best_weights_are_those_exported(digits_run, tmp_path):
    best = read_record(export(digits_run, export_dir=tmp_path, weights="best"))["weights_from"]
    assert best == load(digits_run, weights="best").weights_from


def test_the_networks_stand_in_the_graph_once_and_need_neither_xla_nor_python(tmp_path):
    def operations(split_factor: int) -> collections.Counter:
        folder = small_export(tmp_path, stack=tiny_stack(split_factor=split_factor))
        graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
        functions = graph.library.function
        assert not any(function.attr["_XlaMustCompile"].b for function in functions)
        return collections.Counter(node.op for function in functions for node in function.node_def)

    one, four = operations(1), operations(4)
    assert one["Conv2D"] == four["Conv2D"] == 1
    assert not {"PyFunc", "EagerPyFunc", "PyFuncStateless"} & four.keys()


def test_half_precision_networks_give_float32(tmp_path):
    stack = lively(tiny_stack(precision="mixed_bfloat16"))
    model = tf.saved_model.load(str(small_export(tmp_path, stack=stack)))
    outputs = model.signatures["images"](images=tf.random.stateless_uniform([3, 8, 8, 3], [0, 1]) * 255)
    assert outputs["probabilities"].dtype == outputs["disagreement"].dtype == tf.float32


def test_versions_count_up_and_none_is_overwritten(tmp_path):
    for name in ("notes", "8x", "-9", str(2**63), "٣"):  # nothing that TF Serving takes for a version
        (tmp_path / name).mkdir()
    assert small_export(tmp_path) == tmp_path / "1"
    assert small_export(tmp_path, version=10) == tmp_path / "10"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InputError) as caught:
        small_export(tmp_path, version=1)
    assert one_line(caught.value, says="11 would work")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path != tmp_path} == before
    assert small_export(tmp_path) == tmp_path / "11"
    assert list(version_folders(tmp_path)) == [1, 10, 11]


def test_exports_at_once_take_a_number_each_and_one_given_number_goes_to_one(tmp_path):
    stacks = [lively(tiny_stack(seed=seed), seed) for seed in range(4)]

    def write(stack: BranchStack, folder: str, version: int | None = None) -> pathlib.Path:
        record = {"bias": stack.trainable_variables[-1].numpy().tolist()}
        return small_export(tmp_path / folder, stack=stack, version=version, record=record)

    counted = at_once(*(lambda stack=stack: write(stack, "counted") for stack in stacks))
    given = at_once(*(lambda stack=stack: write(stack, "given", 7) for stack in stacks))
    assert sorted(path.name for path in counted) == sorted(os.listdir(tmp_path / "counted")) == list("1234")
    assert sorted(type(said) is InputError and "there already" in str(said) for said in given) == [False] + [True] * 3
    assert os.listdir(tmp_path / "given") == ["7"]
    for path in (*counted, tmp_path / "given" / "7"):
        weights = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        last = f"weights/{len(stacks[0].trainable_variables) - 1}/.ATTRIBUTES/VARIABLE_VALUE"
        assert weights.get_tensor(last).tolist() == read_record(path)["bias"]


def test_a_version_is_what_tf_serving_takes_for_one(tmp_path):
    for name in ("7", "0000008", "0"):
        (tmp_path / name).mkdir()
    assert list(version_folders(tmp_path)) == [0, 7, 8]
    for number, there in ((7, "7"), (8, "0000008")):
        with pytest.raises(InputError) as caught:
            small_export(tmp_path, version=number)
        assert one_line(caught.value, says=f"{tmp_path / there}; 9 would work")
    assert small_export(tmp_path) == tmp_path / "9"
    assert small_export(tmp_path, version=2**63 - 1) == tmp_path / "9223372036854775807"
    for number in (None, 2**63, 20260101123045123456):
        with pytest.raises(InputError) as caught:
            small_export(tmp_path, version=number)
        assert one_line(caught.value, says="TF Serving ignores versions above 9223372036854775807")
    assert sorted(os.listdir(tmp_path)) == ["0", "0000008", "7", "9", "9223372036854775807"]


def test_every_name_that_a_class_can_have_is_exported(tmp_path):
    names = ("do\u2028g", "o\nw\\l", os.fsdecode(b"ca\xe9"))
    folder = small_export(tmp_path, class_names=names)
    assert read_class_names(folder) == names
    lines = (folder / "assets" / "class_names.txt").read_text("utf-8").splitlines()
    assert lines == [r"do\u2028g", r"o\nw\l", r"ca\xe9"]
    assert os.listdir(folder.parent) == ["1"]


def test_an_export_of_0_1_0_has_its_class_names_in_a_file_alone(tmp_path):
    folder = small_export(tmp_path, class_names=("cat", "dög", " owl "))
    record = read_record(folder)
    del record["class_names"]
    (folder / "assets.extra" / "divco.json").write_text(json.dumps(record))
    assert read_class_names(folder) == ("cat", "dög", " owl ")


@pytest.mark.parametrize("name", ["conv/kernel", "norm/moving_mean"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, name, value):
    stack = tiny_stack()
    variable = next(variable for variable in stack.variables if name.replace("/", ".") in variable.path)
    variable.assign(np.where(np.arange(variable.numpy().size).reshape(variable.shape) == 3, value, variable.numpy()))
    with pytest.raises(InputError) as caught:
        small_export(tmp_path / "exports", stack=stack)
    assert one_line(caught.value, says=f"NaN or infinity in {variable.path} of the stack")
    assert not (tmp_path / "exports").exists()


def test_no_temporary_folder_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    assert small_export(tmp_path) == tmp_path / "1"


@pytest.mark.parametrize("purpose", ["gs://bucket/models", "s3://bucket/models", "", "file:///models"])
def test_a_path_that_is_no_local_one_is_refused(tmp_path, monkeypatch, purpose):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        small_export(purpose)
    assert one_line(caught.value, says="export_dir")
    assert os.listdir(tmp_path) == []


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert small_export("~/exports") == tmp_path / "exports" / "1"


@pytest.mark.parametrize("weights", ["last", "best"])
def test_a_run_that_goes_on_meanwhile_is_exported_as_the_record_says(digits_run, tmp_path, monkeypatch, weights):
    run = tmp_path / "run"
    shutil.copytree(digits_run, run)
    first, later = open_model_dir(run).checkpoint(weights), open_model_dir(run).checkpoint(weights).step + 1
    check = Checkpoint.check

    def removed(self: Checkpoint) -> None:
        if self.step == first.step:  # is just going, for a later one
            first.path.rename(first.path.with_name(f"{later:09d}"))
            records = json.loads((run / "metrics.json").read_text())
            for record in records:
                record["step"] += record["step"] == first.step
            (run / "metrics.json").write_text(json.dumps(records))
        check(self)

    monkeypatch.setattr(Checkpoint, "check", removed)
    record = read_record(export(run, export_dir=tmp_path / "exports", weights=weights))
    assert record["weights_from"] == f"{run} {weights} step {later}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"class_names": ("cat", "dog")}, "2 for 3 classes"),
        ({"class_names": ("cat", "dog", 3)}, "a text a class"),
        ({"preprocessing": Preprocessing(image_size=16, mean=(0,) * 3, std=(1,) * 3)}, "image_size=8"),
        ({"ensembling": "vote"}, "vote"),
        ({"version": 0}, "positive"),
        ({"version": True}, "positive"),
        ({"version": "1"}, "positive"),
        ({"stack": "a stack"}, "branch stack"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path, options, says):
    with pytest.raises(InputError) as caught:
        small_export(tmp_path / "exports", **options)
    assert one_line(caught.value, says=says)
    assert not (tmp_path / "exports").exists()


def test_a_folder_that_cannot_be_written_is_refused(digits_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        export(digits_run, export_dir=tmp_path / "file" / "exports")
    assert one_line(caught.value, says="export directory cannot be written")


def test_a_run_without_such_weights_is_refused_before_anything_is_made(digits_run, tmp_path):
    for arguments in ({"weights": "ema"}, {"weights": "bset"}):
        with pytest.raises(InputError):
            export(digits_run, export_dir=tmp_path / "exports", **arguments)
    with pytest.raises(InputError):
        export(tmp_path, export_dir=tmp_path / "exports")
    assert not (tmp_path / "exports").exists()


def test_an_export_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(module: tf.Module, folder: str, **_: Any) -> None:
        (pathlib.Path(folder) / "saved_model.pb").write_bytes(b"half")
        raise tf.errors.ResourceExhaustedError(None, None, "{{function_node f}} a/b; no space left [Op:SaveV2]")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(RunError, match=r"could not be written \(no space left\)"):
        small_export(tmp_path)
    assert list(tmp_path.iterdir()) == []


def export_for_ever(export_dir: pathlib.Path, ready: Any) -> None:
    stack = tiny_stack()
    small_export(export_dir, stack=stack)  # what comes later takes shorter: most kills hit one of those
    ready.set()
    while True:
        small_export(export_dir, stack=stack)


def test_killed_at_random_moments_it_leaves_only_complete_versions(tmp_path):
    # The server of forks imports TensorFlow once, and starts none of its threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["divco_tf.serving.export", "tests.tiny"])
    whole = None
    for _ in range(3):
        ready = context.Event()
        process = context.Process(target=export_for_ever, args=(tmp_path, ready))
        process.start()
        assert ready.wait(60)
        time.sleep(random.uniform(0, 0.6))
        process.kill()
        process.join()
        for version in version_folders(tmp_path):
            folder = tmp_path / str(version)
            names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
            whole = whole or names
            assert names == whole
            json.loads((folder / "assets.extra" / "divco.json").read_text())
    last = list(version_folders(tmp_path))[-1]
    following = small_export(tmp_path)
    assert following == tmp_path / str(last + 1)
    assert all(entry.name.isdecimal() for entry in tmp_path.iterdir())
    for folder in (tmp_path / str(last), following):
        tf.saved_model.load(str(folder))


@pytest.mark.parametrize("trains", [True, False], ids=["native", "super-groups"])
def test_a_grouped_network_needs_no_xla(trains, tmp_path, monkeypatch):
    monkeypatch.setattr(grouped, "grouped_op_trains", lambda dtype: trains)
    spec = ResNeXStSpec((1,), groups=2, base_width=8)
    stack = build(spec=spec, copies=2, num_classes=3, input_shape=(8, 8, 3))
    version = small_export(tmp_path, stack=stack)
    graph = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    functions = graph.library.function
    nodes = [*graph.node, *(node for function in functions for node in function.node_def)]
    assert any(node.op == "Conv2D" for node in nodes)
    assert not any(item.attr["_XlaMustCompile"].b for item in (*nodes, *functions))
    images = np.zeros((2, 8, 8, 3), np.float32)
    served = tf.saved_model.load(str(version)).signatures["images"](tf.constant(images))
    expected = losses.ensemble_probabilities(stack(PREPROCESSING.normalise(images)))
    np.testing.assert_allclose(served["probabilities"], expected, rtol=1e-5)
