"""Derived files that are kept between runs."""

import fcntl
import os
import threading

import pytest

from divco_tf.data.sources.derived_files import kept
from divco_tf.errors import InputError


def test_a_folder_is_made_once_for_what_it_is_of(tmp_path):
    built, path = [], tmp_path / "folder"

    def build(folder):
        built.append(folder)
        (folder / "content").write_text(str(len(built)))

    for record, builds in (({"a": 1}, 1), ({"a": 1}, 1), ({"a": 2}, 2), ({"a": 1}, 3)):
        assert kept(path, record, build, report=print) == path
        assert len(built) == builds and (path / "content").read_text() == str(builds)
    (path / "record.json").write_text("{")
    kept(path, {"a": 1}, build, report=print)
    assert len(built) == 4


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_pass_that_fails_leaves_nothing(tmp_path, error):
    def build(folder):
        (folder / "half").touch()
        raise error

    with pytest.raises(error):
        kept(tmp_path / "folder", {}, build, report=print)
    assert [path.name for path in tmp_path.iterdir()] == [".folder.lock"]


def test_waiting_for_another_process_is_told(tmp_path):
    lines, waiting = [], threading.Event()

    def report(line):
        lines.append(line)
        waiting.set()

    with open(tmp_path / ".folder.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(
            target=kept, args=(tmp_path / "folder", {}, lambda folder: None), kwargs={"report": report}
        )
        thread.start()
        assert waiting.wait(30) and not (tmp_path / "folder").exists()
    thread.join(30)
    assert (tmp_path / "folder").is_dir()
    assert lines == [f"waiting for another process, which holds {tmp_path}/.folder.lock"]


def test_what_is_replaced_while_it_is_read_is_read_again(tmp_path):
    path, loaded = tmp_path / "folder", []

    def build(name):
        return lambda folder: (folder / "content").write_text(name)

    def load(folder):
        loaded.append((folder / "content").read_text())
        if loaded == ["mine"]:  # another process wants something else there
            kept(path, {"of": "other"}, build("other"), report=print)
        return loaded[-1]

    kept(path, {"of": "mine"}, build("mine"), report=print)
    assert kept(path, {"of": "mine"}, build("mine"), load=load, report=print) == "mine"
    assert loaded == ["mine", "mine"]


def test_what_lacks_a_file_is_made_anew(tmp_path):
    def read(folder):
        return (folder / "content").read_text()

    for _ in range(2):
        made = kept(tmp_path / "a", {}, lambda new: (new / "content").write_text("whole"), load=read, report=print)
        assert made == "whole"
        (tmp_path / "a" / "content").unlink()


@pytest.mark.parametrize("fails", ["flock", "fsync", "rename"])
def test_a_file_system_that_cannot_do_it_is_told_in_one_line(tmp_path, monkeypatch, fails):
    def refuses(*arguments):
        raise OSError(28 if fails != "flock" else 37, "No locks" if fails == "flock" else "No space left on device")

    monkeypatch.setattr(fcntl if fails == "flock" else os, fails, refuses)
    with pytest.raises(InputError, match=r"A folder cannot be written \(No .*\)\. Received: "):
        kept(tmp_path / "folder", {}, lambda folder: (folder / "content").touch(), report=print)


def test_a_folder_that_is_made_may_lie_where_nothing_can_be_written(tmp_path, monkeypatch):
    kept(tmp_path / "folder", {}, lambda folder: None, report=print)
    monkeypatch.setattr(fcntl, "flock", None)
    assert kept(tmp_path / "folder", {}, lambda folder: None, report=print) == tmp_path / "folder"
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be written \(.*\)\. Received: .*/file; choose another folder"):
        kept(tmp_path / "file" / "folder", {}, lambda folder: None, report=print)
