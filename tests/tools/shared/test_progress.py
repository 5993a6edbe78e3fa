"""The live line of a terminal, and its absence elsewhere."""

import io
import types

import pytest

from divco_tf.runs.progress import Standing
from divco_tf.tools.shared import progress

STANDING = Standing(
    step=5,
    total_steps=10,
    epoch=1.0,
    split_factor=4,
    loss=4.4,
    cross_entropy=1.1,
    cotraining=0.0,
    accuracy=0.5,
    steps_per_second=2.0,
    images_per_second=128.0,
    data_wait=0.0,
)


class Terminal(io.StringIO):
    """A stderr that is one, and remembers what was shown."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(progress, "sys", types.SimpleNamespace(stderr=shown))  # pytest puts its own into the real one
    return shown


def test_a_terminal_has_one_live_line_below_the_lines(terminal, capsys):
    with progress.live() as live:
        live.watch(STANDING)
        live.tell("epoch 1: done")
    assert capsys.readouterr().out == "epoch 1: done\n"
    shown = terminal.getvalue()
    assert "50% |" in shown and "| 5/10, loss 4.4000 = 4 branches x 1.1000" in shown and "0:02 left" in shown
    assert "\n" not in shown.rstrip("\r\n ") and shown.split("\r")[-1].strip() == ""


def test_a_file_has_lines_only(capsys):
    with progress.live() as live:
        assert live.watch is None
        live.tell("epoch 1: done")
    assert capsys.readouterr() == ("epoch 1: done\n", "")


def test_quiet_shows_nothing(terminal, capsys):
    with progress.live(quiet=True) as live:
        live.watch(STANDING)
        live.tell("epoch 1: done")
    assert list(progress.counted("ab", 2, what="images", quiet=True)) == ["a", "b"]
    assert capsys.readouterr().out == terminal.getvalue() == ""


def test_items_are_counted_in_a_terminal(terminal):
    assert list(progress.counted(iter("abc"), 3, what="images")) == ["a", "b", "c"]
    assert "0/3, images" in terminal.getvalue() and "\n" not in terminal.getvalue()


def test_items_pass_elsewhere(capsys):
    assert list(progress.counted(iter("abc"), 3, what="images")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")
