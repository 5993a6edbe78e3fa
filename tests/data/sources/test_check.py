"""Reading a whole source, and what is told of it."""

import numpy as np
import pytest
from PIL import Image

from divco_tf.data.sources import ArraySource, open_source
from divco_tf.data.sources.check import check, tell_unusual
from tests.data.images import encoded, image_folder, photograph


@pytest.fixture
def folder(tmp_path):
    """A folder whose images for training are all those of train/."""
    image_folder(tmp_path / "train", classes=2, images=4)
    image_folder(tmp_path / "validation", classes=2, images=1)
    return tmp_path


def opened(root):
    return open_source("image_folder", "train", data_dir=str(root), image_size=8, on_error="skip")


def lines(root) -> list[str]:
    return check(opened(root), threads=2).lines()


def test_a_good_source_has_counts_and_no_problems():
    source = ArraySource(np.zeros((6, 4, 4, 3), np.uint8), np.arange(6) % 2, ("a", "b"))
    findings = check(source, threads=2)
    assert findings.problems == [] and findings.images == 6 and findings.by_class == {"a": 3, "b": 3}


def test_each_kind_of_bad_file_has_its_line(folder):
    train = folder / "train"
    cut = train / "class0" / "1.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    (train / "class0" / "empty.jpg").write_bytes(b"")
    (train / "class1" / "notes.jpg").write_text("no image")
    turned = photograph(30, 20)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(train / "class1" / "turned.jpg", exif=exif)
    photograph(8, 8).save(train / "class1" / "moves.gif", save_all=True, append_images=[photograph(8, 8, seed=1)])
    told = lines(folder)
    assert told[3] == "12 images, of which 3 cannot be read"
    for name, cause in (("1.jpg", "truncated"), ("empty.jpg", "it is empty"), ("notes.jpg", "it is no JPEG")):
        [line] = [line for line in told[:3] if name in line]
        assert line.startswith("An image cannot be read (") and cause in line and line.endswith("the file.")
    assert f"1 have an EXIF rotation, which is not applied: {train}/class1/turned.jpg" in told
    assert f"1 are animated; their first frame counts: {train}/class1/moves.gif" in told
    assert any(line.startswith("2 classes, from ") for line in told)


def test_a_gif_that_is_cut_in_a_later_frame_is_good_for_its_first(folder):
    frames = [photograph(20, 16, seed=seed).quantize(16) for seed in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    for length in range(len(data) // 2, len(data), 29):
        (folder / "train" / "class0" / f"{length}.gif").write_bytes(data[:length])
    findings = check(opened(folder), threads=2)
    assert findings.problems == [] and findings.images == sum(findings.formats.values()) > 20
    assert len(findings.animated) == findings.formats["GIF"]
    tell_unusual(opened(folder), report=print)


def test_several_sources_are_counted_together(folder):
    parts = [
        open_source("image_folder", split, data_dir=folder, held_out=0.4, image_size=8)
        for split in ("train", "held_out", "test")
    ]
    findings = check(*parts, threads=2)
    assert findings.images == 10 == sum(findings.by_class.values())


def test_rotated_and_animated_images_are_told_of_once_from_a_sample(folder):
    told = []
    tell_unusual(opened(folder), report=told.append)
    assert told == []
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(3):
        photograph(30, 20).save(folder / "train" / "class0" / f"turned{number}.jpg", exif=exif)
    photograph(8, 8).save(
        folder / "train" / "class1" / "moves.gif", save_all=True, append_images=[photograph(8, 8, seed=1)]
    )
    (folder / "train" / "class1" / "0.png").write_bytes(b"")
    tell_unusual(opened(folder), report=told.append)
    turned, moves = folder / "train" / "class0" / "turned0.jpg", folder / "train" / "class1" / "moves.gif"
    assert told == [
        f"3 of 12 images that were looked at have an EXIF rotation, which is not applied: {turned} and 2 more",
        f"1 of 12 images that were looked at are animated; their first frame counts: {moves}",
    ]
    tell_unusual(ArraySource(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1), ("a",)), report=told.append)
    tell_unusual(opened(folder), report=told.append, sample=1)
    assert len(told) == 2
