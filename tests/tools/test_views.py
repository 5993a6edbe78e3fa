"""divco-views: contact sheets and checked data."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from divco_tf.data.datasets import SPLITS
from divco_tf.data.sources import open_source
from tests.data.images import image_folder

DIGITS = "--config=digits/wide_resnet10_2_split4"
FOLDER = "--config=image_folder/wide_resnet16_8_split4"


def test_a_sheet_of_digits_is_drawn(divco, tmp_path):
    out = tmp_path / "sheets" / "digits.png"
    result = divco("views", DIGITS, "--bind=experiment.Experiment.views='digits+rand-m9-mstd0.5'", f"--out={out}")
    notes = [line for line in result.stderr.splitlines() if not line.startswith("compil")]  # where no cache has them
    assert (result.status, notes) == (0, [])
    sheet = np.asarray(Image.open(out))
    assert f"{sheet.shape[1]} x {sheet.shape[0]} pixels" in result.stdout
    assert sheet.shape[1] == 5 * (128 + 6) + 6 and sheet.shape[0] >= 8 * 128


def test_the_step_and_the_number_of_images_can_be_chosen(divco, tmp_path):
    sheets = []
    for step in (0, 0, 1):
        out = tmp_path / f"{len(sheets)}.png"
        assert divco("views", DIGITS, f"--out={out}", f"--step={step}", "--images=2").status == 0
        sheets.append(np.asarray(Image.open(out)))
    np.testing.assert_array_equal(sheets[0], sheets[1])
    assert sheets[0].shape != sheets[2].shape or (sheets[0] != sheets[2]).any()
    assert sheets[0].shape[0] < 3 * 160


def test_what_is_found_is_json_on_request(divco):
    found = json.loads(divco("views", DIGITS, "--check", "--split=test", "--json", "--quiet").stdout)
    assert (found["splits"], found["images"], found["problems"], found["refused"]) == ({"test": 387}, 387, [], [])
    assert sum(found["by_class"].values()) == 387


def test_good_data_are_told_in_a_few_lines(divco):
    result = divco("views", DIGITS, "--check", "--split=test")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.splitlines()[0] == "387 images, of which 0 cannot be read"


def test_bad_data_are_listed_and_end_with_status_1(divco, tmp_path):
    images = image_folder(tmp_path / "images", classes=2, images=20)
    for file in sorted(images.rglob("*.jpg")):
        file.write_bytes(b"")
    result = divco("views", FOLDER, "--bind=experiment.Experiment.held_out=0.0", "--check", f"--data_dir={images}")
    assert result.status == 1 and result.stderr.startswith("divco-views: error: ") and "cannot be read" in result.stderr
    listed = [line for line in result.stdout.splitlines() if line.startswith("An image cannot be read (")]
    assert listed == sorted(listed) and all(".jpg; " in line for line in listed) and len(listed) > 10


def test_every_image_of_all_splits_is_read_once(divco, tmp_path):
    images = image_folder(tmp_path / "images", classes=2, images=30)
    parts = {split: open_source("image_folder", split, data_dir=images, held_out=0.1) for split in SPLITS}
    cut = pathlib.Path(parts["test"].name_of(3))
    cut.write_bytes(cut.read_bytes()[:-100])
    (images / "class0" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (images / "class0" / "gone.jpg").symlink_to("/mnt/not-here")
    told = divco("views", FOLDER, "--check", f"--data_dir={images}")
    assert told.status == 1 and told.stderr == "divco-views: error: 2 images cannot be read.\n"
    lines = told.stdout.splitlines()
    assert str(cut) in "".join(lines[:2]) and "Windows's cache of thumbnails" in "".join(lines[:2])
    assert lines[2] == "61 images, of which 2 cannot be read" and "gone.jpg" in lines[-1]
    counts = [int(part.split()[0]) for part in lines[-2].split(", ")]
    assert sum(counts) == 61 and len(counts) == 3


def test_a_split_that_cannot_be_listed_does_not_keep_others_from_being_read(divco, tmp_path):
    image_folder(tmp_path / "train", classes=2)
    image_folder(tmp_path / "val", classes=3, images=1)
    told = divco("views", FOLDER, "--check", f"--data_dir={tmp_path}")
    assert told.status == 1 and told.stderr.endswith("0 images cannot be read, and 1 splits cannot be listed.\n")
    assert told.stdout.startswith("The test images cannot be listed: A class of val/ is not in train/.")
    assert "24 images, of which 0 cannot be read" in told.stdout


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([DIGITS], "either --out or --check"),
        ([DIGITS, "--check", "--out=a.png"], "either --out or --check"),
        ([DIGITS, "--out=sheet.jpg"], "sheet.jpg"),
        ([DIGITS, "--out=/proc/nowhere/sheet.png"], "/proc/nowhere"),
        (["--out=a.png"], "CONFIG is missing"),
        ([DIGITS, "--out=a.png", "--bind=experiment.Experiment.views='digits+salz'"], "Received: salz"),
        ([DIGITS, "--check", "--split=tset"], "tset"),
        ([FOLDER, "--check", "--data_dir=/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_what_cannot_be_shown_is_refused(divco, tmp_path, monkeypatch, flags, says):
    monkeypatch.chdir(tmp_path)
    assert says in divco.refusal("views", *flags)
    assert list(tmp_path.iterdir()) == []
