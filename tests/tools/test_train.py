"""divco-train from a config to its table, the same command again, and on a folder of images."""

import json
import pathlib
import re

import gin
import pytest

from divco_tf.data.sources import open_source
from divco_tf.runs.model_dir import load
from divco_tf.runtime import compute
from divco_tf.tools.shared import configs
from tests.data.images import image_folder, photograph
from tests.runs import runs

ROOT = pathlib.Path(__file__).resolve().parents[2]

TINY = (
    '--bind=experiment.Experiment.backbone="tiny"',
    "--bind=experiment.Experiment.epochs=1",
    "--bind=learning_rate.LearningRate.warmup_epochs=0",
    "--bind=options.Options.threads=1",
)
DIGITS = ("--config=digits/wide_resnet10_2_split4", *TINY, "--bind=experiment.Experiment.batch_size=256")
FOLDER = ("--config=image_folder/wide_resnet16_8_split4", *TINY, "--bind=experiment.Experiment.batch_size=8")

ROWS = [name for name in configs.config_names() if re.search(r"/\w+_split\d+", name)]
SOME_ROWS = ("digits/wide_resnet10_2_split4", "cifar10/resnext29_8x64d_split2", "imagenet/wide_resnet50_2_split2")


def test_a_run_ends_with_a_table_of_the_ensemble_and_every_branch(divco, tmp_path):
    result = divco("train", *DIGITS, f"--model_dir={tmp_path / 'digits'}")
    assert (result.status, result.stderr) == (0, "")
    *progress, head, rule, ensemble, branch0, _, _, branch3 = result.stdout.splitlines()
    assert head.split() == ["accuracy", "%", "NLL", "ECE", "s", "/", "step"] and set(rule) == {"-", " "}
    assert any(line.startswith("epoch 1: test accuracy") for line in progress)
    record = runs.records(tmp_path / "digits")[-1]
    assert ensemble.startswith("digits  (last step 5, 387 test images)")
    assert f"{100 * record['accuracy']:.2f}" in ensemble
    assert branch0.split() == ["branch", "0", f"{100 * record['branch_accuracies'][0]:.2f}"]
    assert branch3.split()[:2] == ["branch", "3"]


@pytest.mark.parametrize(("in_turn", "branches"), [(False, 4), (True, 1)])
def test_branches_share_the_cores_with_those_that_run_beside_them(divco, tmp_path, monkeypatch, in_turn, branches):
    shared = []
    monkeypatch.setattr(compute, "share_cores", shared.append)
    command = ("train", *DIGITS, f"--bind=options.Options.branches_in_turn={in_turn}", f"--model_dir={tmp_path}")
    assert divco(*command).status == 0
    assert shared == [branches]


def test_the_same_command_again_answers_the_same(divco, tmp_path):
    command = ("train", *DIGITS, f"--model_dir={tmp_path}")
    first, again = divco(*command), divco(*command)
    assert again.stdout.splitlines()[0].startswith("finished already: step 5 of 5")
    assert again.stdout.splitlines()[-6:] == first.stdout.splitlines()[-6:]


def test_more_epochs_are_trained_with_extend(divco, tmp_path):
    divco("train", *DIGITS, f"--model_dir={tmp_path}")
    longer = ("train", *DIGITS, "--bind=experiment.Experiment.epochs=2", f"--model_dir={tmp_path}")
    assert "pass --extend" in divco.refusal(*longer)
    assert divco(*longer, "--extend").status == 0
    assert [record["step"] for record in runs.records(tmp_path)] == [5, 10]


def test_config_gin_describes_the_run_again(divco, tmp_path):
    first = divco("train", *DIGITS, f"--model_dir={tmp_path / 'one'}")
    config = tmp_path / "one" / "config.gin"
    again = divco("train", f"--config={config}", f"--model_dir={tmp_path / 'two'}")
    assert first.status == again.status == 0
    one, two = (json.loads((tmp_path / name / "experiment.json").read_text()) for name in ("one", "two"))
    assert one == two
    runs.assert_same_run(tmp_path / "one", tmp_path / "two")
    configs.parse_config(str(config))
    assert configs.experiment().batch_size == 256 and configs.options().threads == 1
    gin.clear_config()


def test_a_folder_of_images_trains_and_evaluates(divco, tmp_path):
    folder = image_folder(tmp_path / "images", images=10)
    result = divco("train", *FOLDER, f"--data_dir={folder}", f"--model_dir={tmp_path / 'run'}")
    assert (result.status, result.stderr) == (0, "")
    assert load(tmp_path / "run").num_classes == 3
    evaluated = divco("evaluate", f"--model_dir={tmp_path / 'run'}", f"--data_dir={folder}", "--json")
    (evaluation,) = json.loads(evaluated.stdout).values()
    recorded = runs.records(tmp_path / "run")[-1]
    assert recorded["split"] == evaluation["split"] == "test"
    assert evaluation["accuracy"] == recorded["accuracy"] and evaluation["images"] == recorded["images"]


def test_a_folder_listed_in_another_order_is_the_same_data(divco, tmp_path, monkeypatch):
    folder = image_folder(tmp_path / "images", images=10)
    divco("train", *FOLDER, f"--data_dir={folder}", f"--model_dir={tmp_path / 'one'}")
    listed = []
    for name in ("iterdir", "rglob"):
        original = getattr(pathlib.Path, name)

        def backwards(self, *arguments, original=original):
            paths = sorted(original(self, *arguments), reverse=True)
            listed.append(len(paths))
            return iter(paths)

        monkeypatch.setattr(pathlib.Path, name, backwards)
    divco("train", *FOLDER, f"--data_dir={folder}", f"--model_dir={tmp_path / 'two'}")
    assert listed
    monkeypatch.undo()
    runs.assert_same_run(tmp_path / "one", tmp_path / "two")
    assert open_source("image_folder", "train", data_dir=str(folder)).class_names == ("class0", "class1", "class2")


def test_imagenets_row_trains_on_a_folder_like_imagenets(divco, tmp_path):
    image = photograph(40, 30)
    for split, each in (("train", 2), ("validation", 1)):
        for label in range(1000):
            folder = tmp_path / "imagenet" / split / f"n{label:08}"
            folder.mkdir(parents=True)
            for number in range(each):
                image.save(folder / f"{number}.JPEG")
    result = divco(
        "train",
        "--config=imagenet/se_resnet50_split1",
        *TINY,
        "--bind=losses.CoTraining.warmup_epochs=1",
        "--bind=experiment.Experiment.image_size=16",
        "--bind=experiment.Experiment.batch_size=500",
        f"--data_dir={tmp_path / 'imagenet'}",
        f"--model_dir={tmp_path / 'run'}",
    )
    assert (result.status, result.stderr) == (0, "")
    assert "(last step 4, 1000 test images)" in result.stdout and "decoded images: " in result.stdout
    identity = json.loads((tmp_path / "run" / "experiment.json").read_text())["identity"]
    assert identity["views"]["augment"] == ["rand-m6-mstd0.5"] and identity["views"]["resized_crop"] is not None


@pytest.mark.parametrize(
    "name", [name if name in SOME_ROWS else pytest.param(name, marks=pytest.mark.slow) for name in ROWS]
)
def test_a_dry_run_prints_the_plan_of_any_config_without_data(divco, tmp_path, name):
    result = divco("train", "--dry_run", f"--config={name}", f"--model_dir={tmp_path / 'run'}")
    lines = dict(line.split(":", 1) for line in result.stdout.splitlines())
    there = name.startswith("digits/")
    assert (result.status, result.stderr) == (0 if there else 1, "")
    assert ("MISSING" in lines["data"]) is not there
    assert lines["ready"].strip() == ("yes" if there else "no, see data")
    assert {"trains", "devices", "batch", "steps", "rates", "network", "memory", "model_dir", "disk"} <= set(lines)
    assert not (tmp_path / "run").exists()


def test_a_plan_is_json_on_request(divco, tmp_path):
    result = divco(
        "train", "digits/*_split*", "--set=epochs=1", "--dry_run", "--json", "--quiet", f"--model_dir={tmp_path / 'x'}"
    )
    told = json.loads(result.stdout)
    assert result.status == 2 and result.stderr.startswith("divco-train: error: 2 of 2 configs are refused.")
    assert {name: (plan["ready"], "warm-up" in plan["refused"]) for name, plan in told.items()} == dict.fromkeys(
        ("digits/wide_resnet10_2_split1", "digits/wide_resnet10_2_split4"), (False, True)
    )
    result = divco("train", "digits/wide_resnet10_2_split4", "--dry_run", "--json", f"--model_dir={tmp_path / 'x'}")
    (plan,) = json.loads(result.stdout).values()
    assert plan["ready"] and {"trains", "steps", "network"} <= {line["topic"] for line in plan["plan"]}


def test_a_dry_run_plans_all_that_a_pattern_finds(divco, tmp_path):
    command = ("train", "--dry_run", "--config=digits/*_split*", f"--model_dir={tmp_path}")
    names = [name for name in ROWS if name.startswith("digits/")]
    result = divco(*command)
    assert (result.status, result.stderr) == (0, "")
    assert [line for line in result.stdout.splitlines() if line in names] == names
    assert result.stdout.count("ready:       yes") == len(names) >= 2
    wrong = divco(*command, "--bind=experiment.Experiment.overrides={'width': -1}")
    assert wrong.status == 2 and f"{len(names)} of {len(names)} configs are refused" in wrong.stderr
    assert wrong.stdout.count("Received: ") == len(names)


def test_a_dry_run_on_real_images_is_ready(divco, tmp_path, cifar10_dir):
    command = ("--config=cifar10/wide_resnet10_2_split4_cpu", f"--data_dir={cifar10_dir}", "--dry_run")
    result = divco("train", *command, f"--model_dir={tmp_path / 'run'}")
    assert (result.status, result.stderr) == (0, "")
    assert "50,000 train, 10,000 test images of 10 classes" in result.stdout
    assert result.stdout.splitlines()[-1].split() == ["ready:", "yes"]
