"""How a folder of images is laid out: whatever its splits are called, and never a classifier of train against val."""

import os
import unicodedata

import pytest

from divco_tf.data.sources import open_source
from divco_tf.data.sources.layout import SPLIT_FOLDERS, composed
from divco_tf.errors import InputError, shown
from tests.data.images import photograph

PIXELS = photograph(8, 8)


def images(root, *paths):
    """An image at each path; "a*3" are three of them."""
    for path in paths:
        path, _, count = path.partition("*")
        for number in range(int(count or 1)):
            file = root / path / f"{number}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            PIXELS.save(file)
    return root


def opened(root, split="train", *, dataset="image_folder", **how):
    return open_source(dataset, split, data_dir=root, image_size=8, **how)


def counts(root, *, held_out=0.25, **how) -> dict[str, int]:
    return {split: len(opened(root, split, held_out=held_out, **how)) for split in ("train", "held_out", "test")}


def refusal(root, **how) -> str:
    with pytest.raises(InputError) as caught:
        opened(root, **how)
    assert "\n" not in str(caught.value) and "Received: " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "validation", [*SPLIT_FOLDERS["validation"], "VAL", "Validation", *SPLIT_FOLDERS["test"], "Test"]
)
@pytest.mark.parametrize("train", ["train", "Training"])
def test_splits_have_their_usual_names_in_any_case(tmp_path, train, validation):
    images(tmp_path, f"{train}/cat*8", f"{train}/dog*8", f"{validation}/cat*2", f"{validation}/dog")
    assert opened(tmp_path).class_names == ("cat", "dog")
    found = counts(tmp_path)
    assert found["test"] == 3 and found["train"] + found["held_out"] == 16 and found["held_out"] > 0


def test_of_three_splits_validation_is_held_out_and_test_is_reported_on(tmp_path):
    images(tmp_path, "train/a*4", "train/b*4", "valid/a*2", "valid/b", "test/b*2")
    images(tmp_path, "test/a*3")
    assert counts(tmp_path) == {"train": 8, "held_out": 3, "test": 5}
    assert "valid/ is what is held out, whatever its share" in "".join(opened(tmp_path, held_out=0.1).notes)
    assert len(opened(tmp_path)) == 8 and "valid/ is not used" in "".join(opened(tmp_path).notes)
    assert {path.split("/")[0] for path in opened(tmp_path, "held_out", held_out=0.1).paths} == {"a", "b"}
    images(tmp_path, "valid/c")
    assert "A class of valid/ is not in train/" in refusal(tmp_path, split="held_out", held_out=0.1)


def test_imagenet_is_reported_on_validation_whatever_lies_in_test(tmp_path):
    images(tmp_path, "train/a*2", "train/b*2", "val/a", "val/b")
    images(tmp_path, "test")
    source = opened(tmp_path, "test", dataset="imagenet")
    assert len(source) == 2 and source.root == tmp_path / "val"
    assert source.notes == ("test/ is left out: results are reported on val/",)
    assert "test/ is the name of a split, and has no class folders" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("folders", "why"),
    [
        (["train", "val"], "train/ is the name of a split, and has no class folders"),
        (["train/a", "train/b", "val"], "val/ is the name of a split, and has no class folders"),
        (["train/a", "train/b"], "neither validation/ nor test/ beside it"),
        (["train/a", "train/b", "bus"], "neither validation/ nor test/ beside it"),
        (["val/a", "val/b", "test/a", "test/b"], "no train/ lies beside it"),
        (["cat", "dog", "test/cat", "test/dog"], "no train/ lies beside it"),
        (["valid", "val", "cat"], "val and valid may both be the validation images"),
        (["Train/a", "Train/b", "train/a", "train/b", "test/a"], "may both be the train images"),
        (["seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b"], "look like splits by their names"),
        (["train2017/a", "train2017/b", "val2017/a", "val2017/b"], "look like splits by their names"),
        (["training_set/a", "training_set/b", "test_set/a", "test_set/b", "notes"], "look like splits by their names"),
        (["trainset", "testset"], "look like splits by their names"),
        (["images/train", "images/val", "labels/train", "labels/val"], "Splits lie within a class"),
        (["train"], "train/ is the name of a split, and has no class folders"),
        (["cat/train", "cat/val", "dog/train", "dog/val"], "Splits lie within a class"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_what_may_be_read_in_two_ways_is_refused(tmp_path, folders, why):
    assert why in refusal(images(tmp_path, *(f"{folder}*2" for folder in folders)))


@pytest.mark.parametrize("name", ["train", "valid", "Test"])
def test_one_class_may_be_called_like_a_split_if_it_holds_images(tmp_path, name):
    source = opened(images(tmp_path, f"{name}*6", "bus*6", "car*6"))
    assert name in source.class_names and source.num_classes == 3
    assert source.notes == (f"{name}/ has images and no class folders, and is taken for a class",)


def test_classes_that_are_no_splits_by_their_names_stay_classes(tmp_path):
    assert opened(images(tmp_path, "train station*4", "test tube*4", "bullet*4")).num_classes == 3
    assert opened(images(tmp_path / "deep", "cat/2020*4", "cat/2021*4", "dog/2020*4", "dog/2021*4")).num_classes == 2


def test_classes_that_all_have_the_same_subfolders_are_told(tmp_path):
    source = opened(images(tmp_path, "fold1/cat*4", "fold1/dog*4", "fold2/cat*4", "fold2/dog*4"))
    assert source.class_names == ("fold1", "fold2")
    assert source.notes[0].startswith("all of the classes fold1 to fold2 have the same subfolders (cat, dog)")


@pytest.mark.parametrize(("link", "target"), [("cat", "."), ("kitty", "cat"), ("cat", "..")])
def test_a_class_that_is_a_link_to_another_is_refused(tmp_path, link, target):
    images(tmp_path / "photos", "dog*3", *["cat*3"] * (link != "cat"))
    (tmp_path / "photos" / link).symlink_to(target)
    assert "A class folder is a link to another one. Received: " in refusal(tmp_path / "photos")


def test_what_lies_beside_the_splits_is_told(tmp_path):
    images(tmp_path, "train/a*2", "train/b*2", "val/a", "notes", "__MACOSX/train/a", ".git/a")
    assert opened(tmp_path).notes == ("beside train and val, notes is left out",)


def test_class_names_are_composed_and_in_one_order(tmp_path):
    names, kept = ("caf\u00e9", "cafz"), {}
    for form in ("NFC", "NFD"):
        images(tmp_path / form, *(f"{unicodedata.normalize(form, name)}*9" for name in names))
        source = opened(tmp_path / form)
        kept[form] = (
            source.class_names,
            source.labels.tolist(),
            list(map(composed, source.paths)),
            source.fingerprint(),
        )
    assert kept["NFC"] == kept["NFD"] and kept["NFC"][0] == ("cafz", "caf\u00e9")


def test_a_run_that_sorted_decomposed_names_gets_its_labels(tmp_path):
    source = opened(images(tmp_path, "caf\u00e9*4", "cafz*4", "tea*4"))
    old = ("cafe\u0301", "cafz", "tea")  # 0.1.0's order on a disk that decomposes
    ordered = source.ordered_as(old)
    assert ordered.class_names == tuple(map(composed, old)) and ordered.paths == source.paths
    assert [ordered.class_names[label] for label in ordered.labels] == [source.class_names[i] for i in source.labels]
    assert source.ordered_as(("cafz", "tea", "fox")) is source


def test_spellings_of_a_class_are_one_across_splits_and_refused_within_one(tmp_path):
    composed_name, apart = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    images(tmp_path, f"train/{composed_name}*2", "train/tea*2", f"val/{apart}", "val/tea")
    assert opened(tmp_path, "test").labels.tolist() == [0, 1]
    images(tmp_path, f"train/{apart}")
    assert f"Two folders have one name, in two of Unicode's spellings. Received: {tmp_path}/train/caf" in refusal(
        tmp_path
    )


def test_a_class_that_is_a_link_to_nowhere_is_refused(tmp_path):
    images(tmp_path, "cat*3", "dog*3")
    (tmp_path / "labels.csv").symlink_to("/mnt/not-here")
    assert opened(tmp_path).num_classes == 2
    (tmp_path / "fox").symlink_to("/mnt/not-here/fox")
    assert f"A link leads nowhere, so its class is missing. Received: {tmp_path}/fox;" in refusal(tmp_path)


@pytest.mark.parametrize("path", ["", "train", "train/a"])
def test_a_folder_that_cannot_be_listed_is_refused_in_one_line(tmp_path, monkeypatch, path):
    images(tmp_path, "train/a*2", "train/b*2", "val/a", "val/b")
    listed, denied = os.scandir, str(tmp_path / path).rstrip("/")

    def scandir(folder):
        if os.fspath(folder) == denied:
            raise PermissionError(13, "Permission denied", os.fspath(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert f"cannot be listed (Permission denied). Received: {denied};" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("data_dir", "why"),
    [
        ("gs://bucket/photos", "not on this computer"),
        ("", "is empty"),
        ("~nobody-of-that-name/photos", "cannot be reached"),
        ("p" * 300, "cannot be reached (File name too long)"),
        (5, "is no path"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
@pytest.mark.parametrize("dataset", ["image_folder", "cifar10", "imagenet"])
def test_a_data_dir_that_is_no_local_folder_is_refused_in_one_line(dataset, data_dir, why):
    assert why in refusal(data_dir, dataset=dataset)


def test_a_file_is_no_folder_of_images(tmp_path):
    (tmp_path / "photos.zip").touch()
    assert "The folder of images is no folder. Received: " in refusal(tmp_path / "photos.zip")
    assert "The data_dir is no folder. Received: " in refusal(tmp_path / "photos.zip", dataset="cifar10")


def test_a_path_may_hold_what_patterns_are_made_of(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    images(tmp_path / "my [photos] *?", "cat*3", "[dog]*3")
    assert opened("~/my [photos] *?").class_names == ("[dog]", "cat")


def test_names_that_cannot_be_printed_are_escaped():
    assert shown("caf\udce9/a\nb\u2028\x1b") == r"caf\xe9/a\nb\u2028\x1b"
    for printable in ("caf\u00e9", "\u72d7 \u3000\u00a0", "\U0001f469\u200d\U0001f52c"):
        assert shown(printable) == printable
    assert str(InputError("Received: \udce9;")) == r"Received: \xe9;"
