"""Decoded images that are kept, in memory or on the disk."""

import concurrent.futures
import os
import shutil
import subprocess
import sys
import types
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import ArraySource, BadImage, ImageFolder, cached, open_source
from divco_tf.data.sources import cache as cache_module
from divco_tf.data.sources.cache import DiskCache, MemoryCache
from divco_tf.data.sources.encoded import EncodedSource
from divco_tf.errors import InputError
from tests.data.images import encoded, image_folder, photograph
from tests.data.sources.prepared_data import prepare

STORED = pytest.mark.parametrize("stored", [True, False], ids=["stored", "resized"])


@pytest.fixture
def source(tmp_path) -> ImageFolder:
    return open_source("image_folder", "train", data_dir=str(image_folder(tmp_path / "images")), image_size=8)


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The images that were decoded."""
    indices, decode = [], EncodedSource._decoded
    monkeypatch.setattr(
        EncodedSource, "_decoded", lambda self, index, choose: indices.append(index) or decode(self, index, choose)
    )
    return indices


def quarter(height: int, width: int) -> tuple[int, int, int, int]:
    return height // 4, width // 3, height // 2, width // 2


def assert_equal(one, other) -> None:
    assert len(one) == len(other) and one.class_names == other.class_names and one.image_size == other.image_size
    assert one.fingerprint() == other.fingerprint() and one.same_size == other.same_size
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.labels_of(np.array([1, 0])), other.labels_of(np.array([1, 0])))
    for index in range(len(one)):
        np.testing.assert_array_equal(one.read(index), other.read(index))
        np.testing.assert_array_equal(one.read_stored(index), other.read_stored(index))
        region = one.read_region(index, quarter)
        np.testing.assert_array_equal(region, other.read_region(index, quarter))
        assert region.flags.c_contiguous and region.flags.writeable and region.base is None
        assert one.name_of(index) == other.name_of(index) and one.encoded(index) == other.encoded(index)


@STORED
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_images_are_the_same_whether_they_are_kept_or_not(source, tmp_path, place, stored):
    cache_dir = str(tmp_path / "cache") if place == "disk" else None
    kept = cached(source, stored=stored, cache_dir=cache_dir)
    assert isinstance(kept, DiskCache if place == "disk" else MemoryCache)
    for _ in range(2):
        assert_equal(kept, source)


@STORED
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_an_image_is_decoded_once(source, tmp_path, decoded, place, stored):
    kept = cached(source, stored=stored, cache_dir=str(tmp_path / "cache") if place == "disk" else None)
    for _ in range(3):
        for index in range(len(kept)):
            kept.read(index)
            if stored:
                kept.read_region(index, quarter)
    assert sorted(decoded) == list(range(len(source)))


def test_regions_of_images_of_one_size_come_from_what_is_kept(tmp_path, decoded):
    examples = [(encoded(photograph(32, 32, seed=i), "PNG"), i) for i in range(4)]
    prepare(tmp_path, "cifar10", {"train": examples, "test": examples}, size=32)
    source = open_source("cifar10", "train", data_dir=str(tmp_path), memory_budget=0)
    kept = cached(source, stored=True, cache_dir=str(tmp_path / "cache"))
    assert_equal(kept, source)
    decoded.clear()
    kept.read_region(2, quarter)
    assert not decoded


def test_images_in_memory_come_back_as_they_are():
    source = ArraySource(np.zeros((3, 4, 4, 3), np.uint8), [0, 1, 0], ("a", "b"))
    assert cached(source, stored=True) is source


@STORED
def test_the_decision_is_reported_and_what_does_not_fit_is_not_kept(source, stored):
    lines = []
    exact = sum(source.read_stored(index).nbytes for index in range(len(source))) if stored else 192 * len(source)
    needed = exact + cache_module._OVERHEAD * len(source)
    assert isinstance(cached(source, stored=stored, memory_budget=needed, report=lines.append), MemoryCache)
    assert cached(source, stored=stored, memory_budget=needed - 1, report=lines.append) is source
    said = f"decoded images: {needed / 1e3:.1f} kB of a budget of "
    assert lines[0] == f"{said}{needed / 1e3:.1f} kB, kept in memory"
    assert lines[1].startswith(said) and lines[1].endswith(", decoded whenever they are read")


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    budget=st.integers(0, 30_000),
    order=st.lists(st.integers(0, 19), max_size=40),
)
def test_memory_never_holds_more_than_the_budget(sizes, budget, order):
    source = mock.MagicMock(spec=EncodedSource, class_names=("a", "b"), image_size=8, same_size=False)
    source.__len__.return_value = len(sizes)
    source.read_region = lambda index: np.full((sizes[index], sizes[index], 3), index, np.uint8)
    kept = MemoryCache(source, stored=True, memory_budget=budget)
    for index in order:
        assert (kept.image(index % len(sizes)) == index % len(sizes)).all()
    assert sum(image.nbytes for image in kept._images if image is not None) <= budget


def test_many_threads_find_the_same_images(source, tmp_path):
    expected = [source.read(index) for index in range(len(source))]
    for kept in (
        cached(source, stored=False),
        cached(source, stored=True),
        cached(source, stored=True, cache_dir=str(tmp_path / "cache")),
    ):
        indices = np.random.default_rng(0).integers(0, len(source), 200).tolist()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for index, image in zip(indices, pool.map(kept.read, indices), strict=True):
                np.testing.assert_array_equal(image, expected[index])


@STORED
def test_a_second_run_finds_the_folder_and_a_changed_file_is_decoded_anew(source, tmp_path, decoded, stored):
    arguments = {"stored": stored, "cache_dir": str(tmp_path / "cache")}
    cached(source, **arguments)
    decoded.clear()
    lines = []
    assert_equal(cached(source, **arguments, report=lines.append), cached(source, **arguments))
    assert not set(decoded) - set(range(len(source))) and len(lines) == 1
    file = tmp_path / "images" / source.paths[4]
    photograph(25, 19, seed=99).save(file)
    os.utime(file, ns=(1, 1))
    changed = cached(source, **arguments, report=lines.append)
    assert lines[-1].startswith("decoded: ")
    np.testing.assert_array_equal(changed.read(4), source.read(4))
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_splits_and_sizes_have_folders_of_their_own(source, tmp_path):
    test = open_source("image_folder", "test", data_dir=str(tmp_path / "images"), image_size=8)
    larger = open_source("image_folder", "train", data_dir=str(tmp_path / "images"), image_size=12)
    sources = [(source, True), (source, False), (test, False), (larger, False)]
    kept = [cached(one, stored=stored, cache_dir=str(tmp_path / "cache")) for one, stored in sources]
    for one, (other, _) in zip(kept, sources, strict=True):
        assert_equal(one, other)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 4


KILLED = """
import os, pathlib, sys
from divco_tf import files
with files.new_directory(pathlib.Path(sys.argv[1])) as folder:
    (folder / "pixels.bin").write_bytes(b"half of them")
    os.kill(os.getpid(), 9)
"""


def test_a_pass_that_was_killed_leaves_nothing_that_is_taken_for_whole(source, tmp_path):
    cached(source, stored=True, cache_dir=str(tmp_path / "elsewhere"))
    [name] = [path.name for path in (tmp_path / "elsewhere").iterdir() if path.is_dir()]
    cache_dir = tmp_path / "cache"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(cache_dir / name)], capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert len(list(cache_dir.glob(".unfinished-*"))) == 1 and not (cache_dir / name).exists()
    assert_equal(cached(source, stored=True, cache_dir=str(cache_dir)), source)
    assert not list(cache_dir.glob(".unfinished-*"))


def test_processes_that_want_the_same_folder_take_turns(source, tmp_path, decoded):
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # a lock of a file opened twice excludes threads, too
        made = [
            pool.submit(cached, source, stored=True, cache_dir=str(tmp_path / "cache"), threads=1) for _ in range(4)
        ]
        kept = [one.result() for one in made]
    assert sorted(decoded) == list(range(len(source)))
    for one in kept:
        assert_equal(one, source)


@STORED
def test_an_image_that_cannot_be_read_is_told_whenever_it_is_asked_for(source, tmp_path, stored):
    file = tmp_path / "images" / source.paths[5]
    file.write_bytes(file.read_bytes()[:-40])
    lines = []
    kept = cached(source, stored=stored, cache_dir=str(tmp_path / "cache"), report=lines.append)
    assert lines[-1] == f"1 images cannot be read, {file} first"
    for reader in (kept, source, cached(source, stored=stored)):
        with pytest.raises(BadImage, match=r"truncated or corrupt\). Received: ") as caught:
            reader.read(5)
        assert (caught.value.index, caught.value.name) == (5, str(file))
        assert reader.read(4).shape == (8, 8, 3)


def test_progress_is_reported(tmp_path, monkeypatch):
    paths = ["one.png"] * 1000
    photograph(4, 4).save(tmp_path / "one.png")
    source = ImageFolder(tmp_path, paths, [0] * 1000, ("a", "b"), Preprocessing(4, (0.0,) * 3, (1.0,) * 3))
    lines = []
    cached(source, stored=False, cache_dir=str(tmp_path / "cache"), report=lines.append)
    assert lines[1:] == [f"decoded: {count} of 1,000 images" for count in ("256", "512", "768", "1,000")]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=100))
    with pytest.raises(InputError, match=r"too small for the decoded images, about .* kB\. Received: .*0\.1 kB free;"):
        cached(source, stored=False, cache_dir=str(tmp_path / "cache"))
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_decoded_images_that_are_not_whole_are_refused(source, tmp_path):
    cached(source, stored=False, cache_dir=str(tmp_path / "cache"))
    [file] = (tmp_path / "cache").glob("*/pixels.bin")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"not whole\. Received: .*pixels\.bin; remove "):
        cached(source, stored=False, cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"memory_budget": -1}, "Received: -1; 0"),
        ({"threads": 0, "cache_dir": "cache"}, "threads. Received: 0;"),
        ({"cache_dir": "images/class0/0.png"}, "cannot be written"),
    ],
)
def test_wrong_arguments_get_one_line(source, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=line) as caught:
        cached(source, stored=True, **arguments)
    assert "\n" not in str(caught.value)
