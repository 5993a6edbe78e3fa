"""Data sets that TensorFlow Datasets has prepared: in memory, or record by record."""

import io
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from divco_tf.data.datasets import get_dataset
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import ArraySource, BadImage, RecordSource, open_source
from divco_tf.data.sources.records import Records
from divco_tf.errors import InputError
from tests.data.images import encoded, photograph
from tests.data.sources.prepared_data import as_tfds_reads, prepare

FORMATS = pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
WNIDS = ("n01440764", "n01443537", "n01484850")
NO_MEMORY = {"memory_budget": 0}


def small(count: int, *, first: int = 0, size: int = 32) -> list[tuple[bytes, int]]:
    """PNG images of one size; their labels go round."""
    return [(encoded(photograph(size, size, seed=first + i), "PNG"), (first + i) % 10) for i in range(count)]


def large(count: int, *, first: int = 0) -> list[tuple[bytes, int]]:
    """JPEG images of many sizes, as ImageNet has them."""
    return [
        (encoded(photograph(40 + 7 * i, 90 - 5 * i, seed=first + i), "JPEG"), (first + i) % 3) for i in range(count)
    ]


def cifar10(folder: pathlib.Path, **changes) -> pathlib.Path:
    return prepare(folder, "cifar10", {"train": small(11), "test": small(5, first=50)}, size=32, **changes)


def imagenet(folder: pathlib.Path, **changes) -> pathlib.Path:
    splits = {"train": large(9), "validation": large(4, first=50)}
    return prepare(folder, "imagenet2012", splits, class_names=WNIDS, **changes)


def opened(folder: pathlib.Path, split: str = "train", *, dataset: str = "cifar10", **arguments):
    return open_source(dataset, split, data_dir=str(folder), **arguments)


def every_image(source) -> list[np.ndarray]:
    return [source.read(index) for index in range(len(source))]


@pytest.fixture
def read_records(monkeypatch) -> list[int]:
    """The numbers of the records that were read."""
    numbers, read = [], Records.read
    monkeypatch.setattr(Records, "read", lambda self, number: numbers.append(number) or read(self, number))
    return numbers


@FORMATS
@pytest.mark.parametrize("split", ["train", "test"])
def test_images_are_equal_in_memory_and_record_by_record(tmp_path, file_format, split):
    cifar10(tmp_path, file_format=file_format)
    memory, records = opened(tmp_path, split), opened(tmp_path, split, **NO_MEMORY)
    assert isinstance(memory, ArraySource) and isinstance(records, RecordSource)
    assert len(memory) == len(records) == (11 if split == "train" else 5)
    np.testing.assert_array_equal(every_image(records), memory.images)
    np.testing.assert_array_equal(records.labels, memory.labels)
    assert records.labels.dtype == np.int64 and records.class_names == memory.class_names
    assert records.same_size and records.image_size == 32


def test_the_order_is_that_of_tfds(tmp_path):
    folder = cifar10(tmp_path)
    images, labels = as_tfds_reads(folder, "train")
    for budget in (0, None):
        source = opened(tmp_path, memory_budget=budget)
        np.testing.assert_array_equal(every_image(source), images)
        np.testing.assert_array_equal(source.labels, labels)


def test_images_take_another_size_alike_in_memory_and_record_by_record(tmp_path):
    cifar10(tmp_path)
    memory, records = (opened(tmp_path, image_size=20, **budget) for budget in ({}, NO_MEMORY))
    np.testing.assert_array_equal(every_image(records), memory.images)
    for source in (memory, records):
        assert source.read_stored(2).shape == (20, 20, 3)
        np.testing.assert_array_equal(
            source.read_region(2, lambda height, width: (3, 1, height - 5, width - 2)), source.read(2)[3:18, 1:19]
        )


def test_svhn_is_trained_on_with_its_extra_split(tmp_path):
    splits = {"train": small(4), "extra": small(6, first=20), "test": small(2, first=40)}
    folder = prepare(tmp_path, "svhn_cropped", splits, size=32, shards=2)
    images, labels = as_tfds_reads(folder, "train+extra")
    for budget in (0, None):
        source = opened(tmp_path, dataset="svhn", memory_budget=budget)
        np.testing.assert_array_equal(every_image(source), images)
        np.testing.assert_array_equal(source.labels, labels)
        assert len(opened(tmp_path, "test", dataset="svhn", memory_budget=budget)) == 2


def test_held_out_images_are_those_that_training_lacks(tmp_path):
    cifar10(tmp_path)
    whole = {image.tobytes() for image in every_image(opened(tmp_path))}
    for budget in (0, None):
        parts = [opened(tmp_path, split, held_out=0.4, memory_budget=budget) for split in ("train", "held_out")]
        train, held = ({image.tobytes() for image in every_image(part)} for part in parts)
        assert train and held and not train & held and train | held == whole


@FORMATS
def test_imagenet_is_read_from_prepared_records_as_from_files(tmp_path, file_format):
    imagenet(tmp_path, file_format=file_format)
    files = tmp_path / "files"
    for split, examples in (("train", large(9)), ("validation", large(4, first=50))):
        for number, (data, label) in enumerate(examples):
            (files / split / WNIDS[label]).mkdir(parents=True, exist_ok=True)
            (files / split / WNIDS[label] / f"{number}.JPEG").write_bytes(data)
    for split in ("train", "test"):
        records, folder = (opened(path, split, dataset="imagenet", image_size=24) for path in (tmp_path, files))
        assert isinstance(records, RecordSource) and not records.same_size
        assert records.class_names == folder.class_names == WNIDS
        views = [
            {(source.read(i).tobytes(), source.read_stored(i).tobytes(), source.labels[i]) for i in range(len(source))}
            for source in (records, folder)
        ]
        assert views[0] == views[1] and len(views[0]) == (9 if split == "train" else 4)


def test_a_region_is_that_part_of_the_stored_image(tmp_path):
    imagenet(tmp_path)
    source = opened(tmp_path, dataset="imagenet", image_size=24)
    for index in range(len(source)):
        region = source.read_region(index, lambda height, width: (5, 3, height - 20, width // 2))
        height, width, _ = source.read_stored(index).shape
        np.testing.assert_array_equal(region, source.read_stored(index)[5 : height - 15, 3 : 3 + width // 2])
        assert region.flags.c_contiguous and region.flags.writeable


@FORMATS
def test_only_the_records_that_are_asked_for_are_read(tmp_path, file_format, read_records):
    imagenet(tmp_path, file_format=file_format)
    source = opened(tmp_path, dataset="imagenet", image_size=24, held_out=0.3)
    fingerprint = source.fingerprint()
    assert fingerprint["images"] == len(source) < 9 and not read_records
    labels = source.labels_of(np.array([2, 0, 2]))
    assert set(read_records) == {source.numbers[2], source.numbers[0]}
    source.read_region(1)
    read_records.clear()
    assert source.labels_of(np.array([0, 1, 2])).tolist()[::2] == labels[1::-1].tolist()
    assert not read_records  # the label of an image that was read is known


def test_the_fingerprint_depends_on_the_data_alone(tmp_path):
    folder = cifar10(tmp_path)
    memory, records = opened(tmp_path), opened(tmp_path, **NO_MEMORY)
    assert memory.fingerprint() == records.fingerprint() != opened(tmp_path, "test").fingerprint()
    assert set(memory.fingerprint()) == {"images", "labels_crc32"}
    imagenet(tmp_path)
    first = opened(tmp_path, dataset="imagenet").fingerprint()
    moved = folder.parents[1].rename(tmp_path.with_name(f"{tmp_path.name}_moved"))
    assert opened(moved, dataset="imagenet").fingerprint() == first
    imagenet(tmp_path / "other", shards=2)
    assert opened(tmp_path / "other", dataset="imagenet").fingerprint() != first


def test_what_was_decided_is_reported(tmp_path):
    cifar10(tmp_path)
    lines = []
    for budget in (200_000, 20_000):
        opened(tmp_path, memory_budget=budget, report=lines.append)
    assert lines == [
        "cifar10 train: 11 images, 33.8 kB of a budget of 200.0 kB, kept in memory",
        "cifar10 train: 11 images, 33.8 kB of a budget of 20.0 kB, read from the disk when they are needed",
    ]


def test_names_say_where_an_image_is(tmp_path):
    folder = cifar10(tmp_path)
    assert opened(tmp_path).name_of(3) == "cifar10 train[3]"
    name = opened(tmp_path, **NO_MEMORY).name_of(5)
    assert name == f"{folder}/cifar10-train.tfrecord-00001-of-00003, record 1"


def damage(folder: pathlib.Path, number: int = 0) -> pathlib.Path:
    """Changes a byte of the first record of a file for training."""
    file = sorted(folder.glob("*-train.*-of-*"))[number]
    content = bytearray(file.read_bytes())
    content[content.index(b"IHDR") + 40] ^= 1
    file.write_bytes(content)
    return file


def test_a_damaged_record_is_named_at_once_or_left_to_reading(tmp_path):
    file = damage(cifar10(tmp_path), 1)
    line = rf"^An image cannot be read \(the record's checksum differs\). Received: {file}, record \d; prepare the data"
    with pytest.raises(BadImage, match=line) as caught:
        opened(tmp_path)
    lines = []
    source = opened(tmp_path, on_error="skip", report=lines.append)
    assert lines[0].endswith(f"since one cannot be read: {caught.value.name}")
    with pytest.raises(BadImage, match=line) as caught:
        every_image(source)
    assert source.name_of(caught.value.index) == caught.value.name
    good = [index for index in range(11) if index != caught.value.index]
    assert len([source.read(index) for index in good]) == 10
    assert set(source.fingerprint()) == {"images", "shards_crc32"}  # labels are not all known


def rewritten(folder: pathlib.Path, change) -> None:
    """Changes every example for training; the files are whole."""
    for file in folder.glob("*-train.tfrecord-*"):
        examples = [
            tf.train.Example.FromString(record) for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
        ]
        with tf.io.TFRecordWriter(str(file)) as writer:
            for example in examples:
                changed = change(example.features.feature)
                writer.write(example.SerializeToString() if changed is None else changed)


def set_image(features, data: bytes) -> None:
    features["image"].bytes_list.value[0] = data


BAD_EXAMPLES = {
    "label too large": (lambda features: features["label"].int64_list.value.__setitem__(0, 10), "label is 10, of 10"),
    "label negative": (lambda features: features["label"].int64_list.value.__setitem__(0, -1), "label is -1, of 10"),
    "no label": (lambda features: features.pop("label") and None, "lacks its label"),
    "no image": (lambda features: features.pop("image") and None, "lacks its image"),
    "no example": (lambda features: b"\xff\xff", "no tf.train.Example"),
    "empty image": (lambda features: set_image(features, b""), "it is empty"),
    "text": (lambda features: set_image(features, b"text"), "it is no JPEG, PNG, WebP, GIF or BMP image"),
    "truncated": (
        lambda features: set_image(features, features["image"].bytes_list.value[0][:-99]),
        "PNG data is truncated or corrupt",
    ),
    "another size": (lambda features: set_image(features, small(1, size=31)[0][0]), "it has 31x31 pixels, not 32x32"),
}


@pytest.mark.parametrize("budget", [0, None], ids=["record by record", "in memory"])
@pytest.mark.parametrize(("change", "cause"), BAD_EXAMPLES.values(), ids=BAD_EXAMPLES)
def test_each_kind_of_bad_example_gets_one_line(tmp_path, change, cause, budget):
    rewritten(cifar10(tmp_path), change)
    with pytest.raises(BadImage, match=rf"\(.*{cause}.*\)\. Received: .*-of-00003, record \d+; prepare") as caught:
        opened(tmp_path, memory_budget=budget).read(0)
    assert "\n" not in str(caught.value)


def json_changed(folder: pathlib.Path, **changes) -> None:
    path = folder / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda folder: (folder / "dataset_info.json").write_text("{"), "cifar10 cannot be read .*dataset_info.json"),
        (lambda folder: json_changed(folder, fileFormat="riegeli"), "without random access. Received: riegeli"),
        (lambda folder: json_changed(folder, splits=[]), "lacks split train. Received: "),
        (lambda folder: next(folder.glob("*-train.*-00002-of*")).unlink(), "No such file.*Received: .*-00002-of-00003"),
        (lambda folder: next(folder.glob("*-train.*-00001-of*")).write_bytes(b""), r"ends after 0 records of \d\)"),
    ],
    ids=["damaged facts", "other format", "no split", "missing file", "empty file"],
)
def test_prepared_data_that_cannot_be_used_get_one_line(tmp_path, spoil, line):
    spoil(cifar10(tmp_path))
    with pytest.raises(InputError, match=line) as caught:
        opened(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_split_without_images_is_refused(tmp_path):
    cifar10(tmp_path)
    with pytest.raises(InputError, match="Split held_out of cifar10 has no images. Received: .*held_out=0.0001"):
        opened(tmp_path, "held_out", held_out=1e-4)


def test_a_file_that_goes_under_a_run_is_named(tmp_path):
    folder = imagenet(tmp_path)
    source = opened(tmp_path, dataset="imagenet", image_size=24)
    for file in folder.glob("*-train.*"):
        file.unlink()
    with pytest.raises(BadImage, match=r"No such file or directory\). Received: .*, record 0;") as caught:
        source.read(0)
    assert caught.value.index == 0


def test_real_cifar10_is_equal_record_by_record(cifar10_dir):
    memory, records = (open_source("cifar10", "test", data_dir=cifar10_dir, **budget) for budget in ({}, NO_MEMORY))
    for index in range(0, 10_000, 97):
        np.testing.assert_array_equal(records.read(index), memory.images[index])
        pillow = np.asarray(Image.open(io.BytesIO(records.encoded(index))))
        np.testing.assert_array_equal(pillow, memory.images[index])
    facts = Preprocessing.for_dataset(get_dataset("cifar10"))
    np.testing.assert_array_equal(facts.resized(memory.images[:9]), memory.images[:9])


def test_of_the_versions_that_lie_there_the_newest_whole_one_is_read(tmp_path):
    folder = cifar10(tmp_path / "with [brackets]")
    for name in ("5.1.0.backup20240101", "incomplete.9ZK41Q_6.0.0", "06.0.0", "7.0", "5.1.0-old", "10.0.0"):
        shutil.copytree(folder, folder.parent / name)
    (folder.parent / "10.0.0" / "dataset_info.json").unlink()
    shutil.copytree(folder, folder.parent / "5.0.9")
    for budget in (0, None):
        assert len(opened(tmp_path / "with [brackets]", memory_budget=budget)) == 11
    assert "/5.1.0/" in opened(tmp_path / "with [brackets]", **NO_MEMORY).name_of(0)
    for whole in ("5.1.0", "5.0.9"):
        shutil.rmtree(folder.parent / whole)
    with pytest.raises(InputError, match=r"is not prepared\. Received: data_dir .*, with only 06\.0\.0, 10\.0\.0"):
        opened(tmp_path / "with [brackets]")


def test_prepared_data_that_cannot_be_listed_are_told_in_one_line(tmp_path, monkeypatch):
    cifar10(tmp_path)

    def refuses(path="."):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", refuses)
    with pytest.raises(InputError, match=r"cannot be listed \(Permission denied\)\. Received: .*/cifar10;"):
        opened(tmp_path)
