"""Several workers of one job, as processes on this machine (divco-launch)."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from divco_tf.training.optim.learning_rate import LearningRate
from tests import tiny
from tests.runs import runs

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKERS = 2
RATE = LearningRate(learning_rate=1e-3)

WORKER = """
import ast, pathlib, sys
from divco_tf.training.optim.learning_rate import LearningRate
from tests.runs import runs
model_dir, described = pathlib.Path(sys.argv[1]), ast.literal_eval(sys.argv[2])
rate = LearningRate(learning_rate=1e-3)
try:
    evaluation = runs.run(
        model_dir, runs.experiment(learning_rate=rate, **described), strategy="multi_worker_mirrored", report=print
    )
except Exception as error:
    print(type(error).__name__, error)
    sys.exit(3)
print("accuracy", evaluation.accuracy)
"""


def launch(model_dir: pathlib.Path, described: dict) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}
    command = [sys.executable, "tools/launch.py", str(WORKERS), sys.executable, "-uc", WORKER]
    return subprocess.Popen(
        [*command, str(model_dir), repr(described)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_two_workers_are_one_device(tmp_path):
    described = {"backbone": "tiny_no_norm", "epochs": 1}
    process = launch(tmp_path / "two", described)
    alone = runs.run(tmp_path / "one", runs.experiment(learning_rate=RATE, **described))
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    ours, theirs = runs.final_weights(tmp_path / "two"), runs.final_weights(tmp_path / "one")
    initial = tiny.values(runs.experiment(**described).build(10).variables)
    print(f"two workers against one device after 5 steps: {tiny.largest_difference(ours, theirs):.2g}")
    assert tiny.largest_difference(ours, theirs) < 1e-5
    assert tiny.largest_difference(ours, initial) > 1e-4
    assert output.count(f"accuracy {alone.accuracy}") == WORKERS
    assert [record["step"] for record in runs.records(tmp_path / "two")] == [5]


def test_a_worker_that_is_not_training_yet_ends_by_sigterm():
    code = """
import os, signal, time
from divco_tf.runtime.strategy import make_strategy
make_strategy("multi_worker_mirrored")
print("made", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(5)
"""
    command = [sys.executable, "tools/launch.py", "1", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False, timeout=120)
    assert "made" in done.stdout
    assert done.returncode == 128 + signal.SIGTERM, done.stdout + done.stderr


def worker_processes(launcher: subprocess.Popen) -> list[int]:
    children = pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if "-uc" in pathlib.Path(f"/proc/{pid}/cmdline").read_text()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "status", "says"), [(signal.SIGKILL, 3, "A worker of the job is gone"), (signal.SIGTERM, 3, "Preempted")]
)
def test_a_job_that_loses_a_worker_ends_and_goes_on(tmp_path, sent, status, says):
    described = {"backbone": "tiny_no_norm", "epochs": 400}
    process = launch(tmp_path / "run", described)
    while process.poll() is None and not list((tmp_path / "run").glob("checkpoints/0*")):
        time.sleep(0.1)
    assert process.poll() is None, process.communicate()[0]
    os.kill(worker_processes(process)[1], sent)
    start = time.monotonic()
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - start < 60
    assert process.returncode == status and says in output, output
    runs.assert_nothing_is_half_written(tmp_path / "run")
    steps = max(int(path.name) for path in (tmp_path / "run" / "checkpoints").glob("[0-9]*"))
    again = launch(tmp_path / "run", described)
    for line in again.stdout:
        if "going on from step" in line:
            assert int(line.split("going on from step ")[1].split()[0]) == steps
            break
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=120)
