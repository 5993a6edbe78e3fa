"""Which files are images of those that a user names."""

import os

import pytest

from divco_tf.data.sources.search import find_images
from divco_tf.errors import InputError
from tests.data.images import encoded, photograph
from tests.tiny import one_line

JPEG = encoded(photograph(8, 8), "JPEG")


@pytest.fixture
def folder(tmp_path):
    """Images at two depths, and what else lies in such folders."""
    content = {
        **{"b.jpg": JPEG, "a.PNG": b"no image", "c.heic": b"\0", "below/d.jpeg": JPEG, "below/no_name": JPEG},
        **{"notes.txt": b"text", ".hidden.jpg": JPEG, ".cache/e.jpg": JPEG, "Thumbs.db": b"\0", "below/f.py": b""},
    }
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def relative(paths, folder):
    return [os.path.relpath(path, folder) for path in paths]


def test_a_folder_is_searched_at_any_depth(folder):
    found = find_images([folder])
    assert relative(found.images, folder) == ["a.PNG", "b.jpg", "c.heic", "below/d.jpeg", "below/no_name"]
    assert relative(found.others, folder) == ["notes.txt", "below/f.py"]


def test_what_is_named_is_taken_as_it_is_and_in_that_order(folder):
    named = [folder / "notes.txt", folder / "below", folder / ".hidden.jpg"]
    found = find_images(named)
    assert relative(found.images, folder) == ["notes.txt", "below/d.jpeg", "below/no_name", ".hidden.jpg"]


def test_links_are_followed_once(folder):
    (folder / "below" / "circle").symlink_to(folder)
    (folder / "again").symlink_to(folder / "below")
    (folder / "lost.jpg").symlink_to(folder / "nowhere")
    assert len(find_images([folder]).images) == 5


def test_a_folder_without_images_and_what_is_no_file_are_refused(folder, tmp_path):
    (tmp_path / "empty" / "below").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    for path, says in (("empty", "No image lies"), ("pipe", "no file and no folder"), ("absent", "no file and no")):
        with pytest.raises(InputError) as caught:
            find_images([folder / "b.jpg", tmp_path / path])
        assert one_line(caught.value, says=says)
