"""What users get wrong: one line that says what was received, no traceback, a non-zero exit status."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from divco_tf.data.pipeline import ViewPipeline
from divco_tf.data.sources import ArraySource, open_source
from divco_tf.runs import experiment
from divco_tf.runs.model_dir import claim_model_dir
from tests.data.images import image_folder
from tests.runs import runs

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = ("--config=digits/wide_resnet10_2_split4", '--bind=experiment.Experiment.backbone="tiny"')
FOLDER = ("--config=image_folder/wide_resnet16_8_split4", '--bind=experiment.Experiment.backbone="tiny"')
CIFAR = ("--config=cifar10/wide_resnet10_2_split4_cpu", '--bind=experiment.Experiment.backbone="tiny"')


@pytest.fixture
def config(tmp_path):
    """Writes a config that includes digits' and says one thing more; returns its flag."""

    def write(line: str) -> str:
        path = tmp_path / "mine.gin"
        head = "from __gin__ import dynamic_registration\nfrom divco_tf.runs import experiment\n"
        path.write_text(f'{head}include "digits/wide_resnet10_2_split4.gin"\n{line}\n')
        return f"--config={path}"

    return write


NAMES = [
    ('experiment.Experiment.backbone = "wide_resent28_10"', "Did you mean wide_resnet28_10"),
    ('experiment.Experiment.dataset = "digts"', "Did you mean digits"),
    ("experiment.Experiment.split_facter = 2", "split_factor"),
    ("experiment.Experiment.split_factor = 0", "0"),
    ('experiment.Experiment.split_factor = "two"', "two"),
    ("experiment.Experimant.split_factor = 2", "Experiment"),
    ('experiment.Experiment.backbone = "wide_resnet11_2"', "6 n + 4"),
    ('experiment.Experiment.views = "crop_flop"', "crop_flip"),
    ('experiment.Experiment.precision = "float23"', "mixed_bfloat16"),
    ("experiment.Experiment.epochs = 0", "epochs"),
    ("experiment.Experiment.overrides = {'widen': 3}", "widen_factor"),
]


@pytest.mark.parametrize(("line", "says"), NAMES)
def test_a_wrong_line_of_a_config_is_refused(divco, config, tmp_path, line, says):
    assert says in divco.refusal("train", config(line), f"--model_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("line", "says"), NAMES)
def test_a_wrong_binding_is_refused(divco, tmp_path, line, says):
    flags = ("--config=digits/wide_resnet10_2_split4", f"--bind={line}", f"--model_dir={tmp_path / 'run'}")
    assert says in divco.refusal("train", *flags)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--config=digits/wide_resnet10_2_splt4"], "Did you mean digits/wide_resnet10_2_split4"),
        ([], "CONFIG is missing"),
        (["--config=base"], "backbone"),
        ([*DIGITS, "--bind=learning_rate.LearningRate.warmup_epochs=20"], "warm-up"),
        ([*DIGITS, "--bind=optimizer.OptimizerConfig.name='sdg'"], "sgd"),
        ([*DIGITS, "--bind=losses.CoTraining.loss='jsd'"], "js"),
        ([*DIGITS, "--bind=options.Options.strategy='mirored'"], "mirrored"),
        ([*DIGITS, "--bind=options.Options.log_every=0"], "log_every"),
        ([*DIGITS, "--bind=experiment.Experiment.batch_size=5000"], "5000"),
        ([*CIFAR], "no data_dir"),
        ([*CIFAR, '--bind=experiment.Experiment.views="cifar10+rand-9"'], "rand-m<magnitude>"),
        ([*CIFAR, "--data_dir=/nowhere/at/all"], "/nowhere/at/all"),
        ([*FOLDER], "needs a data_dir"),
        ([*FOLDER, "--data_dir=/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_what_cannot_be_trained_is_refused(divco, tmp_path, flags, says):
    assert says in divco.refusal("train", *flags, f"--model_dir={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


def test_a_data_dir_without_the_dataset_is_refused(divco, tmp_path):
    line = divco.refusal("train", *CIFAR, f"--data_dir={tmp_path}", f"--model_dir={tmp_path / 'run'}")
    assert "cifar10 is not prepared" in line and str(tmp_path) in line


@pytest.fixture
def images(tmp_path) -> pathlib.Path:
    return image_folder(tmp_path / "images", images=4)


def no_classes(folder: pathlib.Path) -> str:
    for path in folder.iterdir():
        shutil.rmtree(path)
    return "no classes"


def one_class(folder: pathlib.Path) -> str:
    for name in ("class0", "class1"):
        shutil.rmtree(folder / name)
    return "only one class, class2"


def no_image(folder: pathlib.Path) -> str:
    (folder / "class1" / "notes.txt").write_text("not an image")
    return str(folder / "class1" / "notes.txt")


def empty_class(folder: pathlib.Path) -> str:
    (folder / "empty").mkdir()
    return str(folder / "empty")


def half_an_image(folder: pathlib.Path) -> str:
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:80])
    return ".png; replace or remove the file"


@pytest.mark.parametrize("spoil", [no_classes, one_class, no_image, empty_class, half_an_image])
def test_a_folder_that_is_none_of_images_is_refused(divco, images, tmp_path, spoil):
    says = spoil(images)
    flags = ["--bind=experiment.Experiment.batch_size=2", "--bind=experiment.Experiment.held_out=0.0"]
    line = divco.refusal("train", *FOLDER, *flags, f"--data_dir={images}", f"--model_dir={tmp_path / 'run'}")
    assert says in line


def test_a_folder_of_other_classes_than_the_datasets_is_refused(divco, images, tmp_path):
    flags = [*FOLDER, "--bind=experiment.Experiment.dataset='imagenet'", "--bind=experiment.Experiment.held_out=0.0"]
    line = divco.refusal("train", *flags, f"--data_dir={images}", f"--model_dir={tmp_path / 'run'}")
    assert "imagenet of 1000 classes" in line and "3 classes" in line


def test_data_of_another_number_of_classes_than_the_datasets_is_refused(divco, tmp_path, monkeypatch):
    three = ArraySource(np.zeros((300, 8, 8, 3), np.uint8), np.arange(300) % 3, "abc")
    monkeypatch.setattr(experiment, "open_splits", lambda *_, **__: iter([("train", three)]))
    line = divco.refusal("train", *DIGITS, f"--model_dir={tmp_path / 'run'}")
    assert "digits of 10 classes" in line and "3 classes" in line


def test_a_run_is_not_evaluated_on_other_classes(divco, images, tmp_path):
    described = runs.experiment(dataset="image_folder", image_size=8, batch_size=2, epochs=1)
    runs.run(tmp_path / "run", described, data_dir=str(images))
    four = image_folder(tmp_path / "four", classes=4, images=4)
    assert "4 classes" in divco.refusal("evaluate", f"--model_dir={tmp_path / 'run'}", f"--data_dir={four}")


def test_a_loss_that_is_not_finite_ends_the_run_with_status_1(divco, tmp_path, monkeypatch):
    views_at = ViewPipeline.views_at

    def spoilt(self, step):
        views, labels = views_at(self, step)
        return (views * np.nan if step == 3 else views), labels

    monkeypatch.setattr(ViewPipeline, "views_at", spoilt)
    flags = ["--bind=options.Options.checkpoint_every=1", "--bind=options.Options.progress_seconds=1000.0"]
    line = divco.refusal("train", *DIGITS, *flags, f"--model_dir={tmp_path}", status=1)
    assert "not finite" in line and str(tmp_path / "checkpoints" / "000000003") in line
    runs.assert_nothing_is_half_written(tmp_path)


def test_a_model_dir_of_another_experiment_is_refused(divco, tmp_path):
    claim_model_dir(tmp_path, runs.experiment(), open_source("digits", "train"))
    line = divco.refusal("train", *DIGITS, f"--model_dir={tmp_path}")
    assert "holds another experiment" in line and "split_factor 4 (there 2)" in line


@pytest.mark.parametrize("place", ["file/run", "file"])
def test_a_model_dir_that_cannot_be_written_is_refused(divco, tmp_path, place):
    (tmp_path / "file").write_text("")
    line = divco.refusal("train", *DIGITS, f"--model_dir={tmp_path / place}")
    assert "model_dir cannot be written" in line and str(tmp_path / place) in line


@pytest.mark.parametrize("place", ["file/exports", "file"])
def test_an_export_directory_that_cannot_be_written_is_refused(divco, tmp_path, place):
    run = claim_model_dir(tmp_path / "run", runs.experiment(), open_source("digits", "train"))
    run.checkpoints.save(0, {"stack": runs.experiment().build(10).variables})
    (tmp_path / "file").write_text("")
    line = divco.refusal("export", f"--model_dir={tmp_path / 'run'}", f"--export_dir={tmp_path / place}")
    assert "export directory cannot be written" in line and str(tmp_path / place) in line


ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
FOREVER = 600  # seconds: only what hangs takes as long
SEVERAL = """
import json, os, sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
from divco_tf.tools.shared import app

app.load_tensorflow()
import tests.tiny
from tests.tools.in_process import fresh_program

for arguments in map(json.loads, sys.argv[1:]):
    sys.argv = ["divco-train", *arguments]
    with fresh_program("train") as program:
        try:
            program.run()
        except SystemExit as ended:
            print(f"status {ended.code or 0}", flush=True)
            print(f"status {ended.code or 0}", file=sys.stderr, flush=True)
"""


def process(*arguments: str) -> subprocess.Popen:
    """A process with nothing replaced: absl, logging, TensorFlow and tf.data's threads have their say too."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=ENVIRONMENT, text=True, **pipes)


def test_a_process_tells_how_each_run_ended_and_ends_itself(images, tmp_path):
    """One that is whole, one with a loss that is not finite, and one with images that cannot be read."""
    half_an_image(images)
    short = ["--bind=experiment.Experiment.epochs=1", "--bind=losses.CoTraining.warmup_epochs=0"]
    short += ["--bind=learning_rate.LearningRate.warmup_epochs=0", "--bind=options.Options.contact_sheet=False"]
    wild = ["--bind=learning_rate.LearningRate.rule='constant'", "--bind=learning_rate.LearningRate.learning_rate=1e30"]
    bad = ["--bind=experiment.Experiment.batch_size=2", "--bind=experiment.Experiment.held_out=0.0"]
    runs_of = [
        [*DIGITS, *short, f"--model_dir={tmp_path / 'whole'}"],
        [*DIGITS, *short, *wild, "--bind=options.Options.max_bad_steps=1", f"--model_dir={tmp_path / 'wild'}"],
        [*FOLDER, *short, *bad, f"--data_dir={images}", f"--model_dir={tmp_path / 'bad'}"],
    ]
    started = process("-c", SEVERAL, *map(json.dumps, runs_of))
    try:
        stdout, stderr = started.communicate(timeout=FOREVER)
    finally:
        started.kill()
    whole, not_finite, one, unreadable, two = stderr.splitlines()
    assert (started.returncode, whole, one, two) == (0, "status 0", "status 1", "status 2")
    assert not_finite.startswith("divco-train: error: ") and "not finite" in not_finite and "Received: " in not_finite
    assert unreadable.startswith("divco-train: error: ") and ".png" in unreadable and "Received: " in unreadable
    assert "branch 3" in stdout.split("status 0")[0]
    versions = json.loads((tmp_path / "whole" / "experiment.json").read_text())["versions"]
    assert versions["divco_tf"] and versions["tensorflow"]


def test_an_interrupted_process_ends(tmp_path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits that it is ignored
    flags = ["--bind=experiment.Experiment.backbone='wide_resnet10_1'", "--bind=experiment.Experiment.epochs=1000"]
    flags += ["--bind=options.Options.progress_seconds=0.0", f"--model_dir={tmp_path}"]
    started = process("tools/train.py", DIGITS[0], *flags)
    try:
        while not next(started.stdout).startswith("step 1/"):
            pass
        started.send_signal(signal.SIGINT)
        _, stderr = started.communicate(timeout=FOREVER)
    finally:
        started.kill()
    assert (started.returncode, stderr) == (130, "divco-train: error: interrupted\n")
    runs.assert_nothing_is_half_written(tmp_path)


def test_images_that_lie_about_their_format_are_read_for_what_they_are(tmp_path, images):
    path = images / "class0" / "1.jpg"
    Image.open(path).save(path.with_suffix(".bmp.png"), format="PNG")
    assert len(open_source("image_folder", "train", data_dir=str(images))) > 0
