"""Which files of a folder are listed, and what is told of the rest."""

import os
import tracemalloc

import pytest

from divco_tf.data.sources import BadImage, cached, open_source
from divco_tf.data.sources.check import check, tell_unusual
from divco_tf.data.sources.listing import why_no_bytes
from divco_tf.errors import InputError
from tests.data.images import photograph
from tests.data.sources.test_layout import PIXELS, images, opened, refusal

JPEG = b"\xff\xd8\xff\xe0"


def paths(root) -> list[str]:
    return list(opened(root, on_error="skip").paths)


@pytest.fixture
def folder(tmp_path):
    return images(tmp_path / "photos", "train/cat*2", "train/dog*2", "val/cat", "val/dog")


def test_linked_subfolders_are_followed_and_links_to_nowhere_told(folder):
    images(folder.parent / "more", "deeper*2")
    (folder / "train" / "cat" / "more").symlink_to(folder.parent / "more")
    for number in range(3):
        (folder / "train" / "dog" / f"gone{number}.jpg").symlink_to("/mnt/not-here")
    (folder / "train" / "dog" / "itself").symlink_to("itself")
    source = opened(folder)
    assert [path for path in source.paths if "more" in path] == ["cat/more/deeper/0.bmp", "cat/more/deeper/1.bmp"]
    assert len(source) == 6 and source.read(1).shape == (8, 8, 3)
    assert source.notes == (f"left out: links that lead nowhere, {folder}/train/dog/gone0.jpg and 3 more",)


def test_circles_and_folders_that_are_linked_twice_are_listed_once(folder):
    cat = folder / "train" / "cat"
    images(cat, "a/b")
    before = paths(folder)
    for name, target in {"up": cat, "root": folder, "0": cat / "a", "z": cat / "a" / "b"}.items():
        (cat / name).symlink_to(target)
    assert paths(folder) == before
    [note] = opened(folder).notes
    assert (
        note.startswith("left out: linked folders that are listed already, or lead in a circle,") and "3 more" in note
    )
    (folder / "train" / "dog" / "cats").symlink_to(cat / "a")  # within another class: as the user says
    assert [path for path in paths(folder) if path not in before] == ["dog/cats/b/0.bmp"]


def test_a_class_of_links_to_nowhere_says_so(folder):
    (folder / "train" / "fox").mkdir()
    (folder / "train" / "fox" / "0.jpg").symlink_to("/mnt/not-here")
    assert "A class has no images. Received: " in refusal(folder) and "where 1 links lead nowhere" in refusal(folder)


def test_what_a_system_leaves_there_is_named_as_what_it_is(folder):
    cat = folder / "train" / "cat"
    (cat / ".DS_Store").write_text("rubbish")
    images(cat, "@eaDir/0.bmp", ".ipynb_checkpoints")
    assert len(paths(folder)) == 4
    assert opened(folder).notes == (
        f"left out: folders that a system has left there, {cat}/@eaDir (Synology's folder of thumbnails)",
        f"left out: hidden files and folders, {cat}/.DS_Store (macOS's settings of a folder) and 1 more",
    )
    (cat / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (cat / "desktop.ini").write_text("[.ShellClassInfo]")
    assert "A file is Windows's cache of thumbnails, no image. Received: " in refusal(folder)
    problems = check(opened(folder, on_error="skip"), threads=2).problems
    assert sorted(problem.split("Received")[0] for problem in problems) == [
        "An image cannot be read (it is Windows's cache of thumbnails, no image). ",
        "An image cannot be read (it is Windows's settings of a folder, no image). ",
    ]


def test_a_pipe_is_left_out(folder):
    os.mkfifo(folder / "train" / "cat" / "pipe.jpg")
    assert len(paths(folder)) == 4 and "pipes, sockets and devices" in opened(folder).notes[0]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_of_what_is_no_image_only_the_first_bytes_are_read(folder, on_error):
    with open(folder / "train" / "cat" / "cats.zip", "wb") as file:
        file.write(b"PK\3\4")
        file.truncate(3_000_000_000)  # sparse
    tracemalloc.start()
    try:
        if on_error == "raise":
            assert "is no JPEG, PNG, WebP, GIF or BMP image. Received: " in refusal(folder)
            return
        source = opened(folder, on_error="skip")
        tell_unusual(source, report=print)
        kept = cached(source, stored=True, memory_budget=1000)
        assert len(check(kept, threads=2).problems) == len(check(source, threads=2).problems) == 1
        source.fingerprint()
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_file_that_no_decoder_takes_is_not_read(folder):
    film = folder / "train" / "cat" / "film.jpg"
    with open(film, "wb") as file:
        file.write(JPEG)
        file.truncate(3_000_000_000)
    assert "A file is too large for an image, 3,000,000,000 bytes" in refusal(folder)
    source = opened(folder, on_error="skip")
    with pytest.raises(BadImage, match="it is too large for an image"):
        source.read(source.paths.index("cat/film.jpg"))
    assert why_no_bytes("a.jpg", JPEG, 10**6) is None


def test_a_name_that_is_no_utf8_is_escaped_wherever_it_is_told(folder):
    name = os.fsencode(folder / "train" / "cat") + b"/\xb9\xb7.jpg"
    with open(name, "wb") as file:
        file.write(JPEG)
    told = rf"{folder}/train/cat/\xb9\xb7.jpg"
    source = opened(folder)
    index = next(index for index, path in enumerate(source.paths) if not path.isprintable())
    with pytest.raises(BadImage) as caught:
        source.read(index)
    assert source.name_of(index) == told == caught.value.name and told in str(caught.value)
    assert check(source, threads=2).lines()[0].isprintable()
    assert source.stamp() and source.fingerprint()
    os.remove(name)
    with pytest.raises(BadImage, match="No such file"):
        source.read(index)


@pytest.mark.parametrize("split", ["held_out", "test"])
def test_a_bad_file_bears_on_the_splits_that_read_it(tmp_path, split):
    images(tmp_path, "cat*20", "dog*20")
    good, train = (opened(tmp_path, name, held_out=0.2) for name in (split, "train"))
    (tmp_path / train.paths[0]).write_text("text")
    assert opened(tmp_path, split, held_out=0.2).paths == good.paths
    assert "is no JPEG" in refusal(tmp_path)
    (tmp_path / good.paths[0]).write_text("text")
    with pytest.raises(InputError, match="is no JPEG"):
        opened(tmp_path, split, held_out=0.2)


def test_an_unreadable_file_is_named(folder, monkeypatch):
    denied = f"{folder}/train/cat/0.bmp"

    def refuses(path, *arguments, **named):
        if str(path) == denied:
            raise PermissionError(13, "Permission denied", denied)
        return open(path, *arguments, **named)

    monkeypatch.setattr("divco_tf.data.sources.listing.open", refuses, raising=False)
    assert f"A file cannot be read (Permission denied). Received: {denied};" in refusal(folder)


def test_names_in_any_order_of_a_disk_give_one_order(folder):
    photograph(8, 8).save(folder / "train" / "cat" / "B.png")
    PIXELS.save(folder / "train" / "cat" / "a.bmp")
    assert paths(folder) == ["cat/0.bmp", "cat/1.bmp", "cat/B.png", "cat/a.bmp", "dog/0.bmp", "dog/1.bmp"]
    assert open_source("image_folder", "test", data_dir=folder, image_size=8).labels.tolist() == [0, 1]
