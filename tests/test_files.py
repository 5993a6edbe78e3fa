import json
import os
import pathlib
import subprocess
import sys

import pytest

from divco_tf import files
from divco_tf.errors import InputError
from tests.tiny import one_line


def test_json_comes_back(tmp_path):
    content = {"a": [1, 2.5, None], "ü": "é\n"}
    files.write_json(tmp_path / "x.json", content)
    assert json.loads((tmp_path / "x.json").read_text()) == content
    assert os.listdir(tmp_path) == ["x.json"]


def test_what_is_no_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, 1)
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert path.read_text() == "1\n"
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_text_that_cannot_be_written_whole_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    files.write_text(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"disk full"):
        files.write_text(path, "new")
    assert path.read_text() == "old"


def test_a_directory_takes_its_name_when_complete(tmp_path):
    with files.new_directory(tmp_path / "export" / "1") as directory:
        (directory / "assets").mkdir()
        (directory / "assets" / "names.txt").write_text("cat\n")
        assert not (tmp_path / "export" / "1").exists()
    assert (tmp_path / "export" / "1" / "assets" / "names.txt").read_text() == "cat\n"
    assert os.listdir(tmp_path / "export") == ["1"]


def test_a_directory_is_absent_when_its_block_fails(tmp_path):
    with pytest.raises(RuntimeError), files.new_directory(tmp_path / "1") as directory:
        (directory / "half").write_text("ha")
        raise RuntimeError
    assert os.listdir(tmp_path) == []


def test_a_directory_that_is_there_is_not_replaced(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "theirs").touch()
    with pytest.raises(OSError), files.new_directory(tmp_path / "1") as directory:
        (directory / "ours").touch()
    assert os.listdir(tmp_path) == ["1"]
    assert os.listdir(tmp_path / "1") == ["theirs"]


def test_leftovers_of_a_killed_process_are_not_mixed_in(tmp_path):
    left = tmp_path / ".unfinished-1"
    left.mkdir()
    (left / "stale").touch()
    with files.new_directory(tmp_path / "1") as directory:
        (directory / "fresh").touch()
    assert os.listdir(tmp_path / "1") == ["fresh"]


WRITES = {
    "text": "files.write_text(path / 'a.json', 'x' * 9)",
    "directory": "with files.new_directory(path / '1') as new: (new / 'a').touch()",
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_killed_process_leaves_nothing_under_a_final_name(tmp_path, write):
    code = (
        "import os, pathlib, signal\n"
        "from divco_tf import files\n"
        f"path = pathlib.Path({str(tmp_path)!r})\n"
        "os.replace = os.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{write}\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert [name.startswith(".unfinished-") for name in os.listdir(tmp_path)] == [True]
    files.remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == []


def test_only_what_is_unfinished_is_removed(tmp_path):
    (tmp_path / ".unfinished-a").touch()
    (tmp_path / ".unfinished-b").mkdir()
    (tmp_path / ".unfinished-b" / "c").touch()
    (tmp_path / "kept").touch()
    files.remove_unfinished(tmp_path)
    assert os.listdir(tmp_path) == ["kept"]


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    made = files.make_writable(tmp_path / "a" / "b", "export directory")
    assert made.is_dir()
    assert os.listdir(made) == []


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"The model directory cannot be written.*Received: ") as error:
        files.make_writable(tmp_path / pathlib.Path(place), "model directory")
    assert "\n" not in str(error.value)


def test_a_removed_directory_is_whole_or_gone(tmp_path, monkeypatch):
    path = tmp_path / "10"
    path.mkdir()
    (path / "state").write_text("x")

    def fail(*_, **__):
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", fail)
        patch.setattr(os, "rename", fail)
        with pytest.raises(OSError, match="killed"):
            files.remove_directory(path)
    assert (path / "state").read_text() == "x"
    files.remove_directory(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("a\nb", "empty, or holds"),
        ("a\0b", "empty, or holds"),
        ("caf\udce9", "empty, or holds"),
        ("gs://bucket/run", "not on this computer"),
        (pathlib.Path("gs://bucket/run"), "not on this computer"),
        ("s3://bucket", "not on this computer"),
        ("file:///tmp/run", "not on this computer"),
        ("~nobody_of_this_name/run", "cannot be reached"),
        (300 * "x", "cannot be reached"),
        (None, "no path"),
        (b"run", "no path"),
        (3, "no path"),
    ],
    ids=repr,
)
def test_a_path_that_is_no_local_one_is_refused(path, says):
    with pytest.raises(InputError, match="^model_dir is|^model_dir cannot") as caught:
        files.local_path(path, "model_dir")
    assert one_line(caught.value, says=says)


def test_a_local_path_is_taken_as_it_is_and_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.local_path("~/run", "model_dir") == tmp_path / "run"
    for path in ("runs/lr=[0.1]", "a,b", "a b", "C:", "~", ".", tmp_path / "é"):
        assert files.local_path(path, "model_dir") == (tmp_path if path == "~" else pathlib.Path(path))
