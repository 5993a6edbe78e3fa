"""A run that is ended, or cannot write: by SIGTERM at any part of it, by a full disk on one of several workers."""

import contextlib
import importlib
import signal

import pytest

from divco_tf import compat
from divco_tf.errors import InputError, Preempted, RunError
from divco_tf.runs import assemble, hooks
from divco_tf.runs.records.metrics_json import Records
from divco_tf.runtime.job import Job
from tests.runs import runs
from tests.runs.refusals import refusal


@pytest.fixture
def terminable():
    """SIGTERM ends this process, as it does by default, unless something takes it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("part", ["tell_unusual", "make_pipeline", "make_model", "predictor"])
def test_a_termination_before_the_first_step_ends_as_one_between_steps(tmp_path, monkeypatch, terminable, part):
    module = hooks if part == "predictor" else assemble
    known = getattr(module, part)
    monkeypatch.setattr(module, part, lambda *one, **two: (signal.raise_signal(signal.SIGTERM), known(*one, **two))[1])
    with pytest.raises(Preempted, match="^SIGTERM came.*the same command") as caught:
        runs.run(tmp_path)
    assert ("before the first step" in str(caught.value)) is (part != "predictor")


def test_a_termination_in_the_last_evaluation_ends_so_and_the_same_command_evaluates(tmp_path, terminable):
    def terminate(line):
        if line.startswith("trained "):
            signal.raise_signal(signal.SIGTERM)

    described = runs.experiment(epochs=1, held_out=0.2)
    with pytest.raises(Preempted, match="checkpoints/000000004; the same command evaluates it"):
        runs.run(tmp_path, described, report=terminate)
    assert [record["split"] for record in runs.records(tmp_path)] == ["held_out"]
    runs.run(tmp_path, described)
    assert [record["split"] for record in runs.records(tmp_path)] == ["held_out", "test"]


@pytest.mark.parametrize("before", [False, True])
def test_determinism_is_on_while_a_run_trains_and_as_it_was_after(tmp_path, before):
    is_on = importlib.import_module("tensorflow.python.framework.config").is_op_determinism_enabled
    seen = []
    with compat.op_determinism() if before else contextlib.nullcontext():
        runs.run(tmp_path, runs.experiment(epochs=1), deterministic=True, report=lambda line: seen.append(is_on()))
        assert all(seen) and seen and is_on() is before
    with pytest.raises(InputError):
        runs.run(tmp_path, runs.experiment(seed=3), deterministic=True)
    assert not is_on()


# Several workers: what one of them cannot do alone.


def test_a_checkpoints_values_are_read_before_a_worker_may_find_its_disk_full(tmp_path, monkeypatch):
    calls, snapshot = [], hooks.snapshot
    monkeypatch.setattr(hooks, "snapshot", lambda state: (calls.append("snapshot"), snapshot(state))[1])

    def full(_):
        calls.append("write")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Records, "write", full)
    with pytest.raises(RunError, match="The last checkpoint, of step 5, cannot be written"):
        runs.run(tmp_path, runs.experiment(epochs=1), checkpoint_every=5)
    assert calls[:2] == ["snapshot", "write"]


def test_no_worker_evaluates_when_the_first_could_not_write_the_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(Job, "gathered", lambda self, value: [value, 0] if value == 1 else [value])
    with pytest.raises(RunError, match="The last checkpoint, of step 5, cannot be written"):
        runs.run(tmp_path, runs.experiment(epochs=1))
    assert [record["split"] for record in runs.records(tmp_path)] == ["test"]  # of the loop


def test_workers_that_see_other_records_are_refused(tmp_path, monkeypatch):
    runs.run(tmp_path, runs.experiment(epochs=1))
    checksum = Records(tmp_path).checksum()
    monkeypatch.setattr(Job, "gathered", lambda self, value: [value, value + (value == checksum)])
    assert "the checksum of metrics.json is" in refusal(runs.run, tmp_path, runs.experiment(epochs=1))
