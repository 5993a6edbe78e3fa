import concurrent.futures
import errno
import fcntl
import json
import os
import pathlib
import stat
import subprocess
import sys
import threading
from collections.abc import Callable

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
    assert os.listdir(tmp_path) == ["x.txt"]


def at_once(*works: Callable[[], object]) -> list[object]:
    """Calls all of them at the same time, in threads; what they return or raise."""
    begin = threading.Barrier(len(works))

    def work(work: Callable[[], object]) -> object:
        begin.wait()
        try:
            return work()
        except Exception as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(work, works))


def test_of_several_writers_at_once_one_file_stays_whole(tmp_path):
    path = tmp_path / "x.txt"
    texts = [letter * 100_000 for letter in "abcd"]
    for _ in range(20):
        written = [lambda text=text: files.write_text(path, text) for text in texts]
        assert at_once(*written, lambda: files.remove_unfinished(tmp_path)) == [None] * 5
        assert path.read_text() in texts
        assert os.listdir(tmp_path) == ["x.txt"]


def test_of_several_directories_of_one_name_one_stays_and_the_others_are_refused(tmp_path):
    def write(letter: str) -> str:
        with files.new_directory(tmp_path / "1") as directory:
            for name in "01":
                (directory / name).write_text(letter)
        return letter

    for _ in range(20):
        writers = [lambda letter=letter: write(letter) for letter in "abcd"]
        *said, cleaned = at_once(*writers, lambda: files.remove_unfinished(tmp_path))
        (winner,) = [one for one in said if isinstance(one, str)]
        assert [type(one) for one in said if one != winner] == [FileExistsError] * 3 and cleaned is None
        assert [(tmp_path / "1" / name).read_text() for name in "01"] == [winner] * 2
        assert os.listdir(tmp_path) == ["1"]
        files.remove_directory(tmp_path / "1")


def test_what_is_being_written_is_not_taken_for_a_leftover(tmp_path, monkeypatch):
    with files.new_directory(tmp_path / "1") as directory:
        files.remove_unfinished(tmp_path)
        (directory / "a").touch()
        with files.new_directory(tmp_path / "2") as other:  # of another writer, begun later
            (other / "b").touch()
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]
    fsync = os.fsync

    def clean(descriptor: int) -> None:
        files.remove_unfinished(tmp_path)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", clean)
    files.write_text(tmp_path / "3", "c")
    assert (tmp_path / "3").read_text() == "c"


def refuse_directories(descriptor: int) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "Invalid argument")


def refuse(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize(("where", "lacks"), [((os, "fsync"), refuse_directories), ((fcntl, "flock"), refuse)])
def test_a_file_system_without_fsync_of_directories_or_without_locks_will_do(tmp_path, monkeypatch, where, lacks):
    (tmp_path / ".unfinished-9").mkdir()
    monkeypatch.setattr(*where, lacks)
    files.write_text(tmp_path / "a", "a")
    with files.new_directory(tmp_path / "1") as directory:
        (directory / "b").touch()
        files.remove_unfinished(tmp_path)
    files.remove_directory(tmp_path / "1")
    assert (tmp_path / "a").read_text() == "a"
    left = [".unfinished-9"] if lacks is refuse else []  # who knows whether its writer lives
    assert sorted(os.listdir(tmp_path)) == [*left, "a"]


def test_a_full_disk_is_no_file_system_without_fsync(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), files.new_directory(tmp_path / "1"):
        pass
    assert os.listdir(tmp_path) == []


def test_names_may_be_as_long_as_the_file_system_takes(tmp_path):
    files.write_text(tmp_path / ("é" * 127), "x")
    with files.new_directory(tmp_path / ("x" * 255)):
        pass
    assert len(os.listdir(tmp_path)) == 2


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


def test_a_folder_is_locked_by_one_until_it_gives_it_back(tmp_path):
    one, other = files.FolderLock(tmp_path), files.FolderLock(tmp_path)
    assert one.holder() is None and not list(tmp_path.iterdir())
    one.acquire("model_dir", report=pytest.fail)
    one.acquire("model_dir", report=pytest.fail)  # it has it
    assert f"by process {os.getpid()} on " in other.holder()
    with pytest.raises(InputError) as caught:
        other.acquire("model_dir", report=pytest.fail)
    assert one_line(caught.value, says=f"model_dir is in use. Received: {tmp_path}, by process {os.getpid()} on ")
    one.release()
    assert other.holder() is None
    with other:
        other.acquire("model_dir", report=pytest.fail)
    one.acquire("model_dir", report=pytest.fail)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    told = []
    files.FolderLock(tmp_path).acquire("model_dir", report=told.append)
    assert len(told) == 1 and "model_dir cannot be locked" in told[0] and str(tmp_path) in told[0]
    assert files.FolderLock(tmp_path).holder() is None
