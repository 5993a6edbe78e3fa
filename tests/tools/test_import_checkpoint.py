"""divco-import: a checkpoint file becomes a model_dir that evaluate and export take, or nothing is left behind."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import divco_tf
from divco_tf.data.sources import open_source
from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import BACKBONES, backbone_of
from divco_tf.runs import imported
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import claim_model_dir, load, open_model_dir
from divco_tf.runs.records.checkpoints import Checkpoints
from divco_tf.serving.export import read_record
from divco_tf.torch_files.checkpoint import TorchCheckpoint
from tests import tiny
from tests.data.images import image_folder
from tests.models import goldens
from tests.models.test_torch_weights import state_dict
from tests.test_files import at_once
from tests.torch_files import made as files
from tests.torch_files.test_pickles import HOSTILE

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "tools" / "import_checkpoint.py"
LICENCE = "CC BY-NC 4.0"
SLOW_FROM = 6_000_000  # parameters


def tiny_state(num_classes: int = 10, seed: int = 0) -> dict[str, np.ndarray]:
    return state_dict(tiny.tiny_stack(num_classes=num_classes), seed)


@pytest.fixture
def checkpoint(tmp_path) -> pathlib.Path:
    """A file of two tiny networks for digits."""
    path = tmp_path / "tiny.pth.tar"
    path.write_bytes(files.zip_file(files.checkpoint(tiny_state())))
    return path


def flags(checkpoint: pathlib.Path, model_dir: pathlib.Path, **changes) -> list[str]:
    values = {"backbone": "tiny", "split_factor": 2, "num_classes": 10, "dataset": "digits", **changes}
    values = {"checkpoint": checkpoint, "model_dir": model_dir, **values}
    return [f"--{name}={value}" for name, value in values.items() if value is not None]


def test_evaluate_and_export_take_what_was_imported(divco, checkpoint, tmp_path):
    run, exports = tmp_path / "runs" / "theirs", tmp_path / "exports"
    result = divco("import_checkpoint", *flags(checkpoint, run))
    assert (result.status, result.stderr) == (0, "")
    assert f"to {run}, for digits images of 8 pixels" in result.stdout
    assert {path.name for path in run.iterdir()} == {"experiment.json", "checkpoints"}
    assert [path.name for path in run.parent.iterdir()] == ["theirs"]

    evaluated = json.loads(divco("evaluate", f"--model_dir={run}", "--json").stdout)[str(run)]
    assert evaluated["images"] == 387 and "tiny.pth.tar" in evaluated["weights"]
    stack = load(run)
    test = open_source("digits", "test")
    logits = stack(open_model_dir(run).experiment.preprocessing(test.images)).numpy()
    assert evaluated["accuracy"] == np.mean(logits.mean(1).argmax(-1) == test.labels)

    assert divco("export", f"--model_dir={run}", f"--export_dir={exports}").status == 0
    served = divco("evaluate", f"--saved_model={exports}", "--dataset=digits", "--json")
    assert json.loads(served.stdout)[str(exports)]["accuracy"] == evaluated["accuracy"]


def test_the_licence_is_told_recorded_and_handed_on(divco, checkpoint, tmp_path):
    run = tmp_path / "run"
    assert LICENCE in divco("import_checkpoint", *flags(checkpoint, run)).stdout
    record = json.loads((run / "experiment.json").read_text())["imported"]
    assert LICENCE in record["licence"] and record["file"] == "tiny.pth.tar"
    assert record["facts"] == {"epoch": 300, "arch": "resnet110"}
    assert LICENCE in divco("evaluate", f"--model_dir={run}").stdout
    assert LICENCE in divco("export", f"--model_dir={run}", f"--export_dir={tmp_path / 'exports'}").stdout
    assert LICENCE in read_record(tmp_path / "exports" / "1")["weights_from"]
    assert LICENCE in divco("evaluate", f"--saved_model={tmp_path / 'exports'}", "--dataset=digits").stdout


def records_of_families() -> list:
    """For each family its record of fewest parameters; the large ones are slow."""
    smallest: dict[type, dict] = {}
    names = set(BACKBONES.names())
    for record in goldens.RECORDS.values():
        if (name := goldens.backbone_name(record)) in names:
            family = type(BACKBONES.get(name).spec)
            smallest[family] = min(smallest.get(family, record), record, key=lambda record: record["params_total"])
    return [
        pytest.param(record, id=record["key"], marks=[pytest.mark.slow] * (record["params_total"] > SLOW_FROM))
        for record in smallest.values()
    ]


@pytest.mark.parametrize("record", records_of_families())
def test_a_checkpoint_of_every_family_is_imported(divco, tmp_path, record):
    rng = np.random.default_rng(0)
    arrays = {}
    for branch in range(record["split_factor"]):
        for name, shape in goldens.state_shapes(record["key"]).items():
            dtype = np.int64 if name.endswith("num_batches_tracked") else np.float32
            arrays[f"models.{branch}.{name}"] = rng.integers(1000, size=shape).astype(dtype)
    path = tmp_path / "theirs.pth.tar"
    path.write_bytes(files.zip_file(files.checkpoint(arrays)))
    size = {"num_classes": record["num_classes"], "image_size": record["input_size"]}
    network = {"backbone": goldens.backbone_name(record), "split_factor": record["split_factor"]}
    with goldens.frugally():
        result = divco("import_checkpoint", *flags(path, tmp_path / "run", dataset=None, **network, **size))
        assert (result.status, result.stderr) == (0, "")
        stack = load(tmp_path / "run")
    assert open_model_dir(tmp_path / "run").experiment.dataset == record["dataset"]
    unused = backbone_of(stack.spec).unused_tensors(stack.spec)
    expected = [
        array.sum(dtype=np.float64)  # of whole numbers: exact, in any order
        for name, array in arrays.items()
        if array.dtype == np.float32 and name.split(".", 2)[2] not in unused
    ]
    found = [branch.sum(dtype=np.float64) for variable in stack.variables for branch in variable.numpy()]
    assert sorted(found) == sorted(expected)


def test_the_authors_example_gives_its_logits(divco, tmp_path, reference_dir):
    path, run = reference_dir / "resnet110_split4_cifar100.pth.tar", tmp_path / "run"
    network = {"backbone": "resnet110", "split_factor": 4, "num_classes": 100, "image_size": 32, "dataset": None}
    with np.load(path.with_name("resnet110_split4_cifar100_logits.npz")) as stored:
        expected = stored["logits"]  # [S, B, K]
    with goldens.frugally():
        assert divco("import_checkpoint", *flags(path, run, **network)).status == 0
        logits = load(run)(goldens.golden_input(32)).numpy().transpose(1, 0, 2)
    assert np.abs(logits - expected).max() <= goldens.TOLERANCE * np.abs(expected).max()


BAD_FLAGS = [
    ({"backbone": None}, "--backbone is missing"),
    ({"backbone": "tiny_no_nrom"}, "Did you mean tiny_no_norm"),
    ({"split_factor": 0}, "positive whole number"),
    ({"split_factor": 1}, "entries that are no weight"),
    ({"split_factor": 4}, "lacks"),
    ({"backbone": "tiny_no_norm"}, "lacks 2 entries. Received: no models.0.conv.bias"),
    ({"num_classes": 3, "dataset": None}, "models.0.fc.weight (10, 4); it must be (3, 4)"),
    ({"num_classes": 3}, "digits has 10 classes"),
    ({"num_classes": None}, "num_classes"),
    ({"dataset": "digts"}, "Did you mean digits"),
    ({"image_size": 0}, "image_size is out of range. Received: 0"),
    ({"checkpoint": "/nowhere/at/all"}, "/nowhere/at/all"),
]


@pytest.mark.parametrize(("changes", "says"), BAD_FLAGS, ids=str)
def test_what_does_not_fit_is_refused_and_nothing_is_left(divco, checkpoint, tmp_path, changes, says):
    values = {"checkpoint": checkpoint, **changes}
    arguments = flags(values.pop("checkpoint"), tmp_path / "runs" / "run", **values)
    if "num_classes" in changes and changes["num_classes"] is None:
        result = divco("import_checkpoint", *arguments)
        assert result.status == 2 and says in result.stderr
    else:
        assert says in divco.refusal("import_checkpoint", *arguments)
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_files_that_are_hostile_or_damaged_are_refused_and_nothing_is_left(divco, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = checkpoint.read_bytes()
    for content in (whole[:-100], whole[:1000], files.legacy_file(HOSTILE[0]), files.zip_file({"w": HOSTILE[3]})):
        checkpoint.write_bytes(content)
        divco.refusal("import_checkpoint", *flags(checkpoint, tmp_path / "run"))
        assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_hostile_file_is_refused_by_a_process_before_tensorflow_starts(checkpoint, tmp_path):
    checkpoint.write_bytes(files.zip_file(HOSTILE[0]))
    watched = "import sys, runpy\ntry: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    watched += "finally: print('tensorflow' in sys.modules)"
    arguments = flags(checkpoint, tmp_path / "run", backbone="resnet110", dataset="cifar10")
    command = [sys.executable, "-c", f"import sys; sys.argv[0] = {str(PROGRAM)!r}\n{watched}", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (process.returncode, process.stdout.split()) == (2, ["False"])
    (line,) = process.stderr.splitlines()
    assert line.startswith("divco-import: error: ") and "'os.system'" in line
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_a_folder_that_holds_something_is_left_as_it_is(divco, checkpoint, tmp_path):
    run = claim_model_dir(
        tmp_path / "run", Experiment(backbone="tiny", dataset="digits"), open_source("digits", "test")
    )
    before = (run.model_dir / "experiment.json").read_text()
    for _ in range(2):
        assert "lies there already" in divco.refusal("import_checkpoint", *flags(checkpoint, run.model_dir))
    assert (run.model_dir / "experiment.json").read_text() == before
    (tmp_path / "empty").mkdir()
    assert divco("import_checkpoint", *flags(checkpoint, tmp_path / "empty")).status == 0
    assert "lies there already" in divco.refusal("import_checkpoint", *flags(checkpoint, tmp_path / "empty"))


def test_a_folder_that_cannot_be_written_is_refused(divco, checkpoint):
    said = divco.refusal("import_checkpoint", *flags(checkpoint, checkpoint / "run"))
    assert "model_dir cannot be written" in said and str(checkpoint) in said


def test_an_import_that_is_cut_short_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        divco_tf.import_checkpoint(
            checkpoint, model_dir=tmp_path / "run", backbone="tiny", num_classes=10, split_factor=2, dataset="digits"
        )
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_of_imports_at_once_into_one_folder_one_is_made_and_the_others_are_refused(tmp_path):
    network = {"backbone": "tiny", "num_classes": 10, "split_factor": 2, "dataset": "digits"}
    checkpoints = [TorchCheckpoint(pathlib.Path(f"{n}.pth"), "", tiny_state(seed=n), {}) for n in range(3)]
    said = at_once(
        *(
            lambda one=one: divco_tf.import_checkpoint(one, model_dir=tmp_path / "runs" / "run", **network)
            for one in checkpoints
        )
    )
    (made,) = [one for one in said if not isinstance(one, Exception)]
    refused = [one for one in said if isinstance(one, InputError)]
    assert len(refused) == 2 and all("lies there already" in str(one) for one in refused)
    (state,) = [one.tensors for one in checkpoints if one.path.name == made.imported["file"]]
    bias = load(made.model_dir).branch(1).get_layer("fc").bias
    np.testing.assert_array_equal(bias, state["models.1.fc.bias"])
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run"]


def test_a_full_disk_is_told_in_one_line_and_nothing_is_left(divco, checkpoint, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "{{function_node f}} a; No space left on device [Op:SaveV2]")

    monkeypatch.setattr(Checkpoints, "save", full)
    result = divco("import_checkpoint", *flags(checkpoint, tmp_path / "run"))
    assert (result.status, len(result.stderr.splitlines())) == (1, 1)
    assert "The import could not be written (No space left on device)." in result.stderr
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_the_weights_that_are_taken_can_be_chosen(divco, tmp_path):
    path = tmp_path / "net.pth"
    states = {name: tiny_state(seed=seed) for seed, name in enumerate(("state_dict", "state_dict_ema"))}
    path.write_bytes(files.zip_file({name: files.state_dict(state) for name, state in states.items()}))
    for name, more in (("state_dict", []), ("state_dict_ema", ["--weights=state_dict_ema"])):
        assert divco("import_checkpoint", *flags(path, tmp_path / name), *more).status == 0
        bias = load(tmp_path / name).branch(0).get_layer("fc").bias
        np.testing.assert_array_equal(bias, states[name]["models.0.fc.bias"])
        assert open_model_dir(tmp_path / name).imported["key"] == name
    said = divco.refusal("import_checkpoint", *flags(path, tmp_path / "run"), "--weights=ema")
    assert "no state dict 'ema', but 'state_dict', 'state_dict_ema'" in said


def test_the_working_directory_and_what_is_no_local_path_are_refused(divco, checkpoint, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "working directory" in divco.refusal("import_checkpoint", *flags(checkpoint, "."))
    assert "not on this computer" in divco.refusal("import_checkpoint", *flags(checkpoint, "gs://bucket/run"))
    assert list((tmp_path / "here").iterdir()) == []


def test_what_was_imported_is_not_trained_on(divco, checkpoint, tmp_path):
    assert divco("import_checkpoint", *flags(checkpoint, tmp_path / "run")).status == 0
    config = ("--config=digits/wide_resnet10_2_split4", '--bind=experiment.Experiment.backbone="tiny"')
    said = divco.refusal("train", *config, f"--model_dir={tmp_path / 'run'}")
    assert "imported" in said and str(tmp_path / "run") in said


def test_classes_without_names_are_numbered_and_any_names_of_so_many_fit(divco, checkpoint, tmp_path):
    checkpoint.write_bytes(files.legacy_file(files.state_dict(tiny_state(num_classes=3))))
    run = tmp_path / "run"
    assert divco("import_checkpoint", *flags(checkpoint, run, num_classes=3, dataset=None, image_size=8)).status == 0
    assert open_model_dir(run).experiment.dataset == "image_folder"
    assert open_model_dir(run).class_names == ("0", "1", "2")
    three, four = (image_folder(tmp_path / str(classes), classes=classes, images=8) for classes in (3, 4))
    assert divco("evaluate", f"--model_dir={run}", f"--data_dir={three}").status == 0
    assert "4 classes" in divco.refusal("evaluate", f"--model_dir={run}", f"--data_dir={four}")


@pytest.mark.parametrize(
    ("num_classes", "dataset"), [(10, "cifar10"), (100, "cifar100"), (1000, "imagenet"), (7, "image_folder")]
)
def test_the_number_of_classes_tells_the_authors_dataset(num_classes, dataset):
    assert imported.dataset_of(num_classes) == dataset
