"""divco-sweep: a cell in this process, the commands for a queue, shards, and (slow) whole sweeps that are killed."""

import itertools
import json
import os
import pathlib
import random
import shlex
import signal
import subprocess
import sys
import time

import pytest

from divco_tf.analysis.results import read_rows
from tests.analysis.test_sweep import without_seconds

TINY = (
    "--config=digits/wide_resnet10_2_split4",
    '--bind=experiment.Experiment.backbone="tiny"',
    "--bind=learning_rate.LearningRate.warmup_epochs=0",
    "--bind=experiment.Experiment.batch_size=256",
    "--bind=options.Options.threads=1",
)
GRID = "--grid=split_factor=1,2; steps=4; seed=0,1"


def names(commands):
    return [shlex.split(line)[-1].removeprefix("--cell=") for line in commands.splitlines()]


def test_the_commands_of_all_cells_are_listed_and_each_runs_its_cell(divco, tmp_path):
    listed = divco("sweep", *TINY, GRID, f"--out={tmp_path}", "--list")
    assert (listed.status, listed.stderr) == (0, "")
    assert names(listed.stdout)[:2] == ["split_factor=1,steps=4,seed=0", "split_factor=1,steps=4,seed=1"]
    assert not (tmp_path / "results.jsonl").exists()
    program, *command = shlex.split(listed.stdout.splitlines()[2])
    assert program == "divco-sweep"
    assert divco("sweep", *command).status == 0
    (row,) = read_rows(tmp_path)
    assert row["cell"] == "split_factor=2,steps=4,seed=0" and row["steps"] == 4
    left = divco("sweep", *TINY, GRID, f"--out={tmp_path}", "--list").stdout
    assert names(left) == [cell for cell in names(listed.stdout) if cell != row["cell"]]


def test_shards_are_all_cells_between_them(divco, tmp_path):
    command = ("sweep", *TINY, "--grid=seed=0..6", f"--out={tmp_path}", "--list")
    shards = [names(divco(*command, f"--shard={number}/3").stdout) for number in (1, 2, 3)]
    assert sorted(itertools.chain(*shards)) == sorted(f"seed={seed}" for seed in range(7))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_cell_that_fails_is_a_row_and_a_status(divco, tmp_path):
    command = ("sweep", *TINY, "--grid=learning_rate.learning_rate=1e9; steps=20", f"--out={tmp_path}")
    result = divco(*command, "--cell=learning_rate.learning_rate=1000000000.0,steps=20")
    assert result.status == 1 and "not finite" in result.stderr
    (row,) = read_rows(tmp_path)
    assert row["status"] == "failed" and "not finite" in row["reason"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "--grid is missing. Received: "),
        (("--grid=seed",), "field=value,value. Received: seed"),
        (("--grid=sede=1",), "No setting is called sede. Received: sede. Did you mean seed"),
        (("--grid=seed=0..3", "--shard=0/2"), "--shard is the i-th of n parts. Received: 0/2"),
        (("--grid=seed=0..3", "--shard=3/2"), "--shard is the i-th of n parts. Received: 3/2"),
        (("--grid=seed=0", "--cell=seed=1"), "The grid has no such cell. Received: seed=1"),
    ],
)
def test_bad_flags_are_refused_in_one_line(divco, tmp_path, flags, says):
    result = divco("sweep", *TINY, *flags, f"--out={tmp_path / 'new'}")
    assert result.status == 2 and says in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


REAL = (
    "--config=digits/wide_resnet10_2_split1",
    '--bind=experiment.Experiment.backbone="wide_resnet10_1"',
    "--bind=learning_rate.LearningRate.warmup_epochs=0",
    "--bind=options.Options.checkpoint_every=10",
    "--grid=split_factor=1,2; steps=40; seed=0",
    "--grid=split_factor=1; steps=40; learning_rate.learning_rate=1e9",
)


def started(out: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "divco_tf.tools.sweep", *REAL, f"--out={out}"]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@pytest.mark.slow
def test_a_sweep_killed_three_times_and_one_of_two_processes_have_the_rows_of_an_undisturbed_one(tmp_path):
    whole = started(tmp_path / "whole")
    begun = time.monotonic()
    told, _ = whole.communicate()
    lasted = time.monotonic() - begun
    assert whole.returncode == 0 and "2 cells done, 1 failed" in told
    rows = without_seconds(read_rows(tmp_path / "whole"))
    assert {row["status"] for row in rows.values()} == {"done", "failed"}
    moments = random.Random(0)
    for _ in range(3):
        killed = started(tmp_path / "killed")
        time.sleep(moments.uniform(0.2, 0.8) * lasted)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
    resumed = started(tmp_path / "killed")
    assert resumed.communicate() and resumed.returncode == 0
    assert without_seconds(read_rows(tmp_path / "killed")) == rows
    two = [started(tmp_path / "two") for _ in range(2)]
    outputs = [process.communicate()[0] for process in two]
    assert [process.returncode for process in two] == [0, 0]
    assert without_seconds(read_rows(tmp_path / "two")) == rows
    begun_cells = [line.split(": ", 1)[1] for text in outputs for line in text.splitlines() if line.startswith("cell ")]
    assert len(begun_cells) == len(set(begun_cells)) == 3


@pytest.mark.slow
def test_a_cell_whose_process_is_killed_is_a_row_with_its_reason(tmp_path):
    sweep = started(tmp_path)
    children = pathlib.Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children")
    while not (found := children.read_text().split()):
        time.sleep(0.1)
    os.kill(int(found[0]), signal.SIGKILL)
    sweep.communicate()
    first = read_rows(tmp_path)[0]
    assert first["reason"] == "the process was killed by SIGKILL (out of memory?)"
    assert json.loads((tmp_path / "sweep.json").read_text())["experiment"]["backbone"] == "wide_resnet10_1"
