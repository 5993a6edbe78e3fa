"""divco-predict on a run and its export: three formats, folders, what cannot be read, and mistakes."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

from divco_tf.serving.classifier import Classifier
from divco_tf.serving.export import export
from tests.data.images import image_folder
from tests.runs import runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, its export without branches, and photographs in two folders."""
    root = tmp_path_factory.mktemp("predict")
    runs.run(root / "run", runs.experiment(epochs=1))
    export(root / "run", export_dir=root / "export")
    image_folder(root / "photos", classes=2, images=4)
    (root / "bad").mkdir()
    shutil.copy(root / "photos" / "class0" / "0.png", root / "bad" / "good.png")
    (root / "bad" / "a.jpg").write_text("no image")
    (root / "bad" / "z.png").touch()
    (root / "bad" / "notes.txt").write_text("notes")
    (root / "nothing").mkdir()
    return root


@pytest.fixture(scope="module")
def answers(folder):
    return Classifier.load(folder / "run").predict(sorted((folder / "photos").rglob("*.*")))


def test_a_table_has_the_most_probable_classes_first(divco, folder, answers):
    result = divco("predict", f"--model_dir={folder / 'run'}", str(folder / "photos"), "--batch_size=3")
    assert (result.status, result.stderr) == (0, "")
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["file", "1.", "2.", "3.", "disagreement"] and len(rows) == 8
    best = np.argsort(-answers.probabilities, axis=1)
    for row, order, probabilities, disagreement in zip(
        rows, best, answers.probabilities, answers.disagreement, strict=True
    ):
        expected = [cell for number in order[:3] for cell in (str(number), f"{probabilities[number]:.3f}")]
        assert row.split()[1:] == [*expected, f"{disagreement:.4f}"]
    assert [row.split()[0] for row in rows] == [str(path) for path in sorted((folder / "photos").rglob("*.*"))]
    assert len({len(row) for row in rows}) == 1


def test_csv_and_json_have_the_same_answers_and_the_branches(divco, folder, answers):
    asked = (f"--model_dir={folder / 'run'}", str(folder / "photos"), "--top=2", "--branches")
    table = list(csv.DictReader(io.StringIO(divco("predict", *asked, "--format=csv").stdout)))
    objects = json.loads(divco("predict", *asked, "--format=json").stdout)
    assert len(table) == len(objects) == 8
    for row, told, label, branches, disagreement in zip(
        table, objects, answers.labels, answers.branch_probabilities, answers.disagreement, strict=True
    ):
        assert row["file"] == told["file"] and row["error"] == ""
        assert row["class_1"] == told["top"][0]["class"] == label and len(told["top"]) == 2
        assert float(row["probability_2"]) == told["top"][1]["probability"]
        assert float(row["disagreement"]) == told["disagreement"] == pytest.approx(disagreement, rel=1e-4)
        named = [(branch["class"], branch["probability"]) for branch in told["branches"]]
        assert [name for name, _ in named] == [str(branch.argmax()) for branch in branches]
        assert [probability for _, probability in named] == pytest.approx(branches.max(axis=1), rel=1e-5)
        assert row["branch_1"] == named[1][0] and float(row["branch_1_probability"]) == named[1][1]


def test_more_classes_than_there_are_are_all(divco, folder):
    image = str(folder / "photos" / "class0" / "0.png")
    (told,) = json.loads(
        divco("predict", f"--saved_model={folder / 'export'}", image, "--format=json", "--top=99").stdout
    )
    assert len(told["top"]) == 10 and sum(each["probability"] for each in told["top"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("format", ["table", "csv", "json"])
def test_what_cannot_be_read_is_named_and_passed_over(divco, folder, format):
    result = divco("predict", f"--model_dir={folder / 'run'}", str(folder / "bad"), f"--format={format}")
    assert result.status == 1
    bad = folder / "bad"
    assert result.stderr.splitlines() == [
        f"left out: files that are no images, {bad / 'notes.txt'}",
        f"cannot be read: {bad / 'a.jpg'} (it is no JPEG, PNG, WebP, GIF or BMP image)",
        f"cannot be read: {bad / 'z.png'} (it is empty)",
        "divco-predict: error: 2 of 3 images cannot be read.",
    ]
    if format == "json":
        told = {answer["file"]: answer.get("error") for answer in json.loads(result.stdout)}
    elif format == "csv":
        told = {row["file"]: row["error"] or None for row in csv.DictReader(io.StringIO(result.stdout))}
    else:
        told = {row.split()[0]: None for row in result.stdout.splitlines()[1:]}
        assert list(told) == [str(bad / "good.png")]
    assert told[str(bad / "good.png")] is None and (format == "table" or told[str(bad / "z.png")] == "it is empty")


def test_a_file_is_whole_or_as_it_was(divco, folder, tmp_path, monkeypatch):
    out = tmp_path / "new" / "answers.csv"
    asked = (f"--model_dir={folder / 'run'}", "--format=csv", f"--out={out}")
    result = divco("predict", *asked, str(folder / "photos"))
    assert (result.status, result.stdout) == (0, f"{out}: 8 answers\n")
    before = out.read_text()
    assert len(before.splitlines()) == 9 and list(out.parent.iterdir()) == [out]

    def stop(*arguments, **options):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Classifier, "stream", stop)
    assert divco("predict", *asked, str(folder / "bad")).status == 130
    assert out.read_text() == before and list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["IMAGE"], "Give either --model_dir or --saved_model"),
        (["--model_dir=ROOT/run"], "FILE"),
        (["--model_dir=ROOT/rnu", "IMAGE"], "No run lies there"),
        (["--saved_model=ROOT/run", "IMAGE"], "No SavedModel lies there"),
        (["--model_dir=ROOT/run", "ROOT/photo"], "No such file or folder. Received: ROOT/photo"),
        (["--model_dir=ROOT/run", "ROOT/nothing"], "No image lies in a folder"),
        (["--model_dir=ROOT/run", "--weights=best", "IMAGE"], "held no images out"),
        (["--saved_model=ROOT/export", "--weights=best", "IMAGE"], "--weights is not of --saved_model"),
        (["--saved_model=ROOT/export", "--branches", "IMAGE"], "does not return each branch's probabilities"),
        (["--model_dir=ROOT/run", "--top=0", "IMAGE"], "--top=0"),
        (["--model_dir=ROOT/run", "--format=xml", "IMAGE"], "table|csv|json"),
        (["--model_dir=ROOT/run", "--out=ROOT", "IMAGE"], "--out is a file"),
    ],
)
def test_bad_input_is_refused_in_one_line(divco, folder, arguments, says):
    image = str(folder / "photos" / "class0" / "0.png")
    arguments = [argument.replace("ROOT", str(folder)).replace("IMAGE", image) for argument in arguments]
    assert says.replace("ROOT", str(folder)) in divco.refusal("predict", *arguments)
