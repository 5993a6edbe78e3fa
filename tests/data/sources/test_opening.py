"""Digits, prepared data and image folders as sources."""

import shutil

import numpy as np
import pytest
from PIL import Image

from divco_tf.data.datasets import get_dataset
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import BadImage, ImageFolder, open_source
from divco_tf.errors import InputError
from tests.data.images import image_folder, photograph


def test_digits_are_scikit_learns_in_grey_rgb():
    from sklearn.datasets import load_digits

    parts = {split: open_source("digits", split, held_out=0.1) for split in ("train", "held_out", "test")}
    assert sum(map(len, parts.values())) == 1797
    assert 300 < len(parts["test"]) < 420 and 100 < len(parts["held_out"]) < 190
    stored = {image.astype(np.uint8).tobytes() for image in load_digits().images}
    for source in parts.values():
        image = source.read(3)
        assert image.shape == (8, 8, 3) and image.dtype == np.uint8
        assert (image[..., :1] == image).all()
        assert np.rint(image[..., 0] * (16 / 255)).astype(np.uint8).tobytes() in stored
        assert source.labels.dtype == np.int64 and source.num_classes == 10
        np.testing.assert_array_equal(source.read_batch(np.array([2, 3]))[1], image)


def test_the_test_split_does_not_depend_on_what_is_held_out():
    plain, held = (open_source("digits", "test", held_out=share) for share in (0.0, 0.3))
    np.testing.assert_array_equal(plain.images, held.images)


def test_images_in_memory_take_another_size():
    source = open_source("digits", "test", image_size=16)
    original = open_source("digits", "test").read(0)
    expected = np.asarray(Image.fromarray(original).resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
    assert source.image_size == 16 and np.abs(source.read(0) - expected).max() <= 2


def test_cifar10_is_read_from_prepared_data(cifar10_dir):
    held = open_source("cifar10", "held_out", data_dir=cifar10_dir, held_out=0.02)
    assert 850 < len(held) < 1150
    assert held.read(0).shape == (32, 32, 3) and held.class_names[0] == "airplane"
    test = open_source("cifar10", "test", data_dir=cifar10_dir)
    assert len(test) == 10_000
    np.testing.assert_array_equal(np.bincount(test.labels), [1000] * 10)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"dataset": "cifar11"}, r"Received: cifar11\. Did you mean cifar10"),
        ({"split": "trian"}, r"Received: trian\. Did you mean train"),
        ({"split": "held_out"}, "held_out=0; held_out=0.1 would"),
        ({"held_out": 1.0}, r"Received: 1\.0"),
        ({"image_size": 0}, "Received: 0"),
        ({"on_error": "ignore"}, "Received: ignore; raise or skip"),
        ({"memory_budget": -1}, "Received: -1; 0"),
        ({"dataset": "cifar10"}, "Received: no data_dir"),
        ({"dataset": "cifar10", "data_dir": "nowhere"}, "Received: nowhere"),
        ({"dataset": "imagenet"}, "Received: none"),
        ({"dataset": "image_folder", "data_dir": "nowhere"}, "does not exist. Received: nowhere"),
    ],
)
def test_wrong_arguments_get_one_line(arguments, line):
    with pytest.raises(InputError, match=line) as caught:
        open_source(**{"dataset": "digits", "split": "train"} | arguments)
    assert "\n" not in str(caught.value)


def test_a_dataset_that_is_not_prepared_is_named_with_those_that_are(tmp_path):
    (tmp_path / "cifar10" / "3.0.2").mkdir(parents=True)
    (tmp_path / "cifar10" / "3.0.2" / "dataset_info.json").write_text("{}")
    with pytest.raises(InputError, match=r"cifar100 is not prepared.*with cifar10"):
        open_source("cifar100", "train", data_dir=str(tmp_path))


def test_imagenet_in_an_unprepared_folder_of_tfds_is_refused(tmp_path):
    (tmp_path / "imagenet2012").mkdir()
    with pytest.raises(InputError, match=r"imagenet2012 is not prepared. Received: data_dir .*, with nothing"):
        open_source("imagenet", "train", data_dir=str(tmp_path))


def test_broken_prepared_data_gets_one_line(tmp_path, cifar10_dir):
    copy = tmp_path / "cifar10"
    shutil.copytree(f"{cifar10_dir}/cifar10", copy, copy_function=shutil.copyfile)
    record = copy / "3.0.2" / "cifar10-test.tfrecord-00000-of-00001"
    record.write_bytes(record.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"record \d+ is damaged or cut off\). Received: .*cifar10-test") as caught:
        open_source("cifar10", "test", data_dir=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_folder_is_parted_the_same_way_in_any_order_and_place(tmp_path):
    here, there = tmp_path / "here", tmp_path / "elsewhere" / "there"
    image_folder(here)
    for file in sorted(here.rglob("*.*"), reverse=True):
        (there / file.relative_to(here)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, there / file.relative_to(here))
    parts = {}
    for split in ("train", "held_out", "test"):
        first, second = (
            open_source("image_folder", split, data_dir=str(folder), held_out=0.3, image_size=8)
            for folder in (here, there)
        )
        assert first.paths == second.paths and first.paths
        assert first.class_names == ("class0", "class1", "class2")
        assert [f"class{label}" for label in first.labels] == [path.split("/")[0] for path in first.paths]
        parts[split] = set(first.paths)
    assert len(set().union(*parts.values())) == sum(map(len, parts.values())) == 36


def test_a_folder_with_train_and_validation_is_taken_as_it_is(tmp_path):
    image_folder(tmp_path / "train")
    image_folder(tmp_path / "validation", images=2)
    for dataset in ("image_folder", "imagenet"):
        sizes = [
            len(open_source(dataset, split, data_dir=str(tmp_path), held_out=held_out, image_size=8))
            for split, held_out in (("train", 0.0), ("test", 0.0), ("train", 0.3), ("held_out", 0.3))
        ]
        assert sizes[0] == 36 == sizes[2] + sizes[3] and sizes[1] == 6 and sizes[3] > 0


def test_an_image_of_a_folder_is_what_evaluation_would_see(tmp_path):
    image_folder(tmp_path)
    source = open_source("image_folder", "test", data_dir=str(tmp_path), image_size=16)
    preprocessing = Preprocessing.for_dataset(get_dataset("image_folder"), 16)
    for index in range(len(source)):
        stored = source.read_stored(index)
        assert stored.shape == np.asarray(Image.open(tmp_path / source.paths[index])).shape
        off = np.abs(source.read(index).astype(int) - preprocessing.resized(stored[None])[0])
        assert off.max() <= 2 and (off == 0).mean() > 0.9  # Pillow's arithmetic beside TensorFlow's


IMAGENET = ("n01440764", "n01443537", "n01484850")


@pytest.fixture
def imagenet(tmp_path):
    """ImageNet's layout, small: photographs of several sizes, a PNG and a CMYK file called .JPEG, as it has them."""
    for split, images in (("train", 7), ("validation", 3)):
        for label, name in enumerate(IMAGENET):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(images):
                image = photograph(60 + 9 * number, 75 - 4 * number, seed=100 * label + number)
                file = tmp_path / split / name / f"{name}_{number}.JPEG"
                image.convert("CMYK" if number == 1 else "RGB").save(file, "PNG" if number == 2 else "JPEG")
    return tmp_path


def test_imagenets_layout_is_read(imagenet):
    for split, images in (("train", 21), ("test", 9)):
        source = open_source("imagenet", split, data_dir=str(imagenet), image_size=32)
        assert len(source) == images and source.class_names == IMAGENET
        assert {path.split("/")[0] for path in source.paths} == set(IMAGENET)
        for index in range(len(source)):
            region = source.read_region(index, lambda height, width: (2, 3, height // 2, width // 3))
            stored = source.read_stored(index)
            np.testing.assert_array_equal(region, stored[2 : 2 + len(stored) // 2, 3 : 3 + stored.shape[1] // 3])
            assert source.read(index).shape == (32, 32, 3)
            assert region.flags.c_contiguous and region.flags.writeable


def test_a_wrong_box_is_no_bad_image(tmp_path):
    source = open_source("image_folder", "train", data_dir=str(image_folder(tmp_path)), image_size=8)
    with pytest.raises(InputError, match="A part .* of an image") as caught:
        source.read_region(0, lambda height, width: (0, 0, height + 1, width))
    assert not isinstance(caught.value, BadImage)


def test_with_skip_bad_files_are_left_to_reading(tmp_path):
    folder = image_folder(tmp_path)
    good = {path for split in ("train", "test") for path in opened_paths(folder, split, on_error="raise")}
    spoilt = {"class1/notes.jpg": b"text", "class2/zero.png": b"", "class0/cut.jpg": b"\xff\xd8\xff\xe0"}
    for path, content in spoilt.items():
        (folder / path).write_bytes(content)
    with pytest.raises(InputError, match=r"Received: .*class1/notes\.jpg; remove or convert it"):
        opened_paths(folder, "train", on_error="raise")
    sources = [
        open_source("image_folder", split, data_dir=str(folder), image_size=8, on_error="skip")
        for split in ("train", "test")
    ]
    bad = {}
    for source in sources:
        for index, path in enumerate(source.paths):
            try:
                source.read(index)
            except BadImage as error:
                assert (error.index, error.name) == (index, f"{folder}/{path}")
                bad[path] = error.cause
    assert {path for source in sources for path in source.paths} == good | set(spoilt)
    assert bad == {
        "class1/notes.jpg": "it is no JPEG, PNG, WebP, GIF or BMP image",
        "class2/zero.png": "it is empty",
        "class0/cut.jpg": "the header of its JPEG data is truncated or corrupt",
    }


def opened_paths(folder, split, **arguments):
    return open_source("image_folder", split, data_dir=str(folder), image_size=8, **arguments).paths


def test_all_formats_are_read_from_a_folder(tmp_path):
    image_folder(tmp_path, classes=2)
    for suffix in ("webp", "gif", "bmp"):
        photograph(20, 24).save(tmp_path / "class0" / f"x.{suffix}")
    parts = [open_source("image_folder", split, data_dir=str(tmp_path), image_size=8) for split in ("train", "test")]
    assert sum(len([source.read(index) for index in range(len(source))]) for source in parts) == 27


def test_links_in_circles_do_not_hang_the_listing(tmp_path):
    folder = image_folder(tmp_path)
    (folder / "class0" / "again").symlink_to(folder / "class0", target_is_directory=True)
    (folder / "class0" / "broken.jpg").symlink_to(folder / "nowhere")
    assert sum(len(opened_paths(folder, split)) for split in ("train", "test")) == 36


def test_a_file_replaced_under_a_run_is_read_as_it_is_now(tmp_path):
    source = open_source("image_folder", "train", data_dir=str(image_folder(tmp_path)), image_size=8)
    stamp, file = source.stamp(), tmp_path / source.paths[0]
    photograph(70, 50).save(file)
    assert source.read_stored(0).shape == (50, 70, 3) and source.stamp() != stamp
    file.unlink()
    with pytest.raises(BadImage, match=r"No such file or directory\). Received: .*class0"):
        source.read(0)


def test_hidden_files_are_ignored_and_subfolders_read(tmp_path):
    image_folder(tmp_path, classes=2)
    (tmp_path / ".git").mkdir()
    (tmp_path / "class0" / ".DS_Store").write_text("rubbish")
    (tmp_path / "README.txt").write_text("beside the classes, not in one")
    (tmp_path / "class0" / "deeper").mkdir()
    photograph(20, 20).save(tmp_path / "class0" / "deeper" / "x.png")
    parts = [open_source("image_folder", split, data_dir=str(tmp_path), image_size=8) for split in ("train", "test")]
    paths = [path for part in parts for path in part.paths]
    assert len(paths) == 25 and "class0/deeper/x.png" in paths


def remove_classes(root):
    for folder in root.iterdir():
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (remove_classes, "has no classes. Received: {root};"),
        (lambda root: [shutil.rmtree(root / f"class{i}") for i in (1, 2)], "only one class, class0. Received: {root};"),
        (lambda root: (root / "empty").mkdir(), "A class has no images. Received: {root}/empty;"),
        (
            lambda root: (root / "class1" / "notes.txt").write_text("text"),
            "is no JPEG, PNG, WebP, GIF or BMP image. Received: {root}/class1/n",
        ),
        (
            lambda root: (root / "class1" / "zero.jpg").touch(),
            "A file is empty. Received: {root}/class1/zero.jpg;",
        ),
    ],
    ids=["no classes", "one class", "empty class", "no image", "empty file"],
)
def test_a_folder_that_cannot_be_used_is_refused_by_name(tmp_path, spoil, line):
    spoil(image_folder(tmp_path))
    with pytest.raises(InputError) as caught:
        open_source("image_folder", "train", data_dir=str(tmp_path))
    assert line.format(root=tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_validation_class_that_training_lacks_is_named(tmp_path):
    image_folder(tmp_path / "train", classes=2)
    image_folder(tmp_path / "validation", classes=3)
    with pytest.raises(InputError, match=r"not in train.*class2"):
        open_source("image_folder", "test", data_dir=str(tmp_path))


def test_a_split_without_images_is_refused(tmp_path):
    image_folder(tmp_path, images=1)
    with pytest.raises(InputError, match="Too few images for split"):
        for split in ("train", "test"):
            open_source("image_folder", split, data_dir=str(tmp_path))


def test_a_truncated_image_is_named_when_it_is_read(tmp_path):
    file = image_folder(tmp_path) / "class1" / "1.jpg"
    file.write_bytes(file.read_bytes()[:400])
    sources = [open_source("image_folder", split, data_dir=str(tmp_path), image_size=8) for split in ("train", "test")]
    [source] = [source for source in sources if "class1/1.jpg" in source.paths]
    with pytest.raises(InputError, match=r"cannot be read.*Received: .*class1/1\.jpg;") as caught:
        source.read(source.paths.index("class1/1.jpg"))
    assert "\n" not in str(caught.value)


def test_an_image_that_vanished_is_named(tmp_path):
    source = ImageFolder(tmp_path, ["gone.jpg"], [0], ["a", "b"], Preprocessing(8, (0.0,) * 3, (1.0,) * 3))
    with pytest.raises(InputError, match=r"No such file.*Received: .*gone\.jpg;"):
        source.read(0)
