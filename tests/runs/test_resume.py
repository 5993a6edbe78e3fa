"""A run that is killed at any instant goes on, and ends as an undisturbed one."""

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from divco_tf.errors import InputError
from divco_tf.runs.model_dir import load
from divco_tf.training.optim.learning_rate import LearningRate
from tests.runs import runs
from tests.tiny import one_line

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Killed(BaseException):
    """What ends the test's run in place of SIGKILL."""


class Mortal:
    """Makes the process die before its n-th change of what lies under a final name: nothing is cleaned up after it."""

    def __init__(self, patch: pytest.MonkeyPatch, moment: int | None = None) -> None:
        self.calls, self.moment = 0, moment
        for owner, name in ((os, "replace"), (os, "rename"), (shutil, "rmtree")):
            patch.setattr(owner, name, self._counted(name, getattr(owner, name)))

    def _counted(self, name, call):
        def counted(*arguments, **options):
            # new_directory begins and ends by removing what is not there: no change.
            if name != "rmtree" or os.path.exists(arguments[0]):
                self.calls += 1
            if self.moment is not None and self.calls >= self.moment:
                raise Killed
            return call(*arguments, **options)

        return counted


SHORT = runs.experiment(held_out=0.2, batch_size=512)
"""Two epochs of two steps."""
OFTEN = {"checkpoint_every": 1, "keep_checkpoints": 1, "operative_config": "# as it ran\n"}
MOMENTS = 22
"""At least as many as such a run has writes (20; a new best is one more)."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> pathlib.Path:
    model_dir = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        mortal = Mortal(patch)
        runs.run(model_dir, SHORT, **OFTEN)
    assert 15 < mortal.calls <= MOMENTS
    return model_dir


@pytest.mark.parametrize("moment", range(1, MOMENTS + 1))
def test_a_run_killed_at_any_write_ends_as_an_undisturbed_one(undisturbed, tmp_path, monkeypatch, moment):
    with monkeypatch.context() as patch:
        mortal = Mortal(patch, moment)
        try:
            runs.run(tmp_path, SHORT, **OFTEN)
        except Killed:
            assert mortal.calls >= moment
        else:
            assert mortal.calls < moment
    runs.assert_nothing_is_half_written(tmp_path)
    runs.run(tmp_path, SHORT, **OFTEN)
    runs.assert_same_run(tmp_path, undisturbed)
    assert not [path for path in tmp_path.rglob("*") if ".unfinished-" in path.name]


def die(*_):
    raise Killed


def die_at_an_evaluation(line):
    if line.startswith("epoch "):
        die()


def test_a_run_killed_in_a_report_or_between_steps_ends_as_an_undisturbed_one(undisturbed, tmp_path, monkeypatch):
    with pytest.raises(Killed):  # the first line is of the first epoch's evaluation
        runs.run(tmp_path, SHORT, report=die_at_an_evaluation, **OFTEN)
    for step in (3, 4):
        with monkeypatch.context() as patch:
            due = "divco_tf.runs.progress.Progress.is_due"
            patch.setattr(due, lambda self, at, last=step: die() if at == last else False)
            with pytest.raises(Killed):
                runs.run(tmp_path, SHORT, **OFTEN)
        runs.assert_nothing_is_half_written(tmp_path)
    runs.run(tmp_path, SHORT, **OFTEN)
    runs.assert_same_run(tmp_path, undisturbed)


def test_every_evaluation_has_one_record_and_the_best_is_the_best_of_them(tmp_path):
    # A rate that is too high goes up and down.
    described = runs.experiment(held_out=0.2, epochs=4, learning_rate=LearningRate(rule="constant", learning_rate=1.0))
    runs.run(tmp_path, described, keep_checkpoints=1)
    held_out = [record for record in runs.records(tmp_path) if record["split"] == "held_out"]
    assert [record["epoch"] for record in held_out] == [1, 2, 3, 4]
    assert [record["epoch"] for record in runs.records(tmp_path) if record["split"] == "test"] == [4]
    best = max(held_out, key=lambda record: record["accuracy"])
    assert runs.best(tmp_path)["step"] == best["step"]
    kept = {int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")}
    assert kept == {best["step"], held_out[-1]["step"]}


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on(tmp_path):
    runs.run(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "damaged")
    last = tmp_path / "damaged" / "checkpoints" / "000000010"
    part = last / "state.data-00000-of-00001"
    os.truncate(part, part.stat().st_size // 2)
    with pytest.raises(InputError) as caught:
        load(tmp_path / "damaged")
    assert one_line(caught.value, says=str(last))
    lines = []
    runs.run(tmp_path / "damaged", report=lines.append)
    assert str(last) in lines[0] and "damaged" in lines[0] and lines[1].startswith("going on from step 8 of 10 (")
    runs.assert_same_run(tmp_path / "damaged", tmp_path / "whole")


LIBRARY_RUN = """
import pathlib, sys
from tests.runs import runs
runs.run(pathlib.Path(sys.argv[1]), runs.experiment(held_out=0.2, epochs=8), checkpoint_every=1, report=print)
"""


def start(command: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(command: list[str]) -> None:
    process = start(command)
    output, _ = process.communicate()
    assert process.returncode == 0, output


def written(path: pathlib.Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def killed(command: list[str], model_dir: pathlib.Path, *, at_most: float) -> bool:
    """Runs `command` and kills it at a random moment after it has opened its model_dir; False: it was faster."""
    before = written(model_dir / "experiment.json")
    process = start(command)
    while process.poll() is None:
        if written(model_dir / "experiment.json") != before:
            break
        time.sleep(0.01)
    time.sleep(random.uniform(0, at_most))
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), output
    runs.assert_nothing_is_half_written(model_dir)
    return process.returncode != 0


def test_a_process_killed_twice_finishes_by_the_same_command(tmp_path):
    command = [sys.executable, "-c", LIBRARY_RUN]
    whole = start([*command, str(tmp_path / "whole")])
    for _ in range(2):
        killed([*command, str(tmp_path / "killed")], tmp_path / "killed", at_most=2.0)
    finish([*command, str(tmp_path / "killed")])
    output, _ = whole.communicate()
    assert whole.returncode == 0, output
    runs.assert_same_run(tmp_path / "killed", tmp_path / "whole")


DIGITS_BINDINGS = [
    'experiment.Experiment.backbone="wide_resnet10_1"',
    "experiment.Experiment.epochs=6",
    "experiment.Experiment.held_out=0.1",
    "options.Options.checkpoint_every=3",
]


@pytest.mark.slow
def test_divco_train_killed_ten_times_finishes_by_the_same_command(tmp_path):
    command = [sys.executable, "tools/train.py", "--config=digits/wide_resnet10_2_split4"]
    command += [f"--bind={binding}" for binding in DIGITS_BINDINGS]
    finish([*command, f"--model_dir={tmp_path / 'whole'}"])
    kills, folder = 0, 0
    while kills < 10:
        model_dir = tmp_path / f"killed{folder}"
        if killed([*command, f"--model_dir={model_dir}"], model_dir, at_most=4.0):
            kills += 1
        else:
            folder += 1
    for model_dir in tmp_path.glob("killed*"):
        finish([*command, f"--model_dir={model_dir}"])
        runs.assert_same_run(model_dir, tmp_path / "whole")
