"""Times of steps, and how much of them waits for data."""

import time

import pytest

from divco_tf.runs import progress
from divco_tf.runs.progress import Progress, Standing, StepTimes


class Clock:
    """A clock that goes by what steps and data say they take."""

    def __init__(self, monkeypatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(progress, "time", self)

    def monotonic(self) -> float:
        return self.now

    def batches(self, waits):
        for wait in waits:
            self.now += wait
            yield wait


def test_shares_of_waiting_leave_the_first_batch_out(monkeypatch):
    clock, times = Clock(monkeypatch), StepTimes()
    assert times.seconds_per_step is None and times.data_wait() == 0
    told = []
    for _ in times.batches(clock.batches([5.0, 1.0, 1.0, 3.0])):
        clock.now += 3.0
        times.done()
        clock.now += 100.0  # an evaluation
        told.append(times.data_wait(since_asked=True))
    assert times.seconds_per_step == pytest.approx(5.0)  # of 8, 4, 4 and 6
    assert told == pytest.approx([0.0, 0.25, 0.25, 0.5])
    assert times.data_wait() == pytest.approx(5 / 14)


def test_a_long_run_takes_no_more_memory_and_tells_of_its_last_steps(monkeypatch):
    clock, times = Clock(monkeypatch), StepTimes()
    for step, _ in enumerate(times.batches(clock.batches([1.0] * 25_000))):
        clock.now += 1.0 if step < 15_001 else 3.0
        times.done()
    assert times.count == 25_000 and times.first_step == 1.0
    assert times.seconds_per_step == pytest.approx(4.0)
    assert times.data_wait() == pytest.approx(24_999 / (15_000 * 2 + 9_999 * 4))
    assert max(len(value) for value in vars(times).values() if hasattr(value, "__len__")) == 10_000


def test_who_watches_is_told_when_it_is_time_and_at_the_end(monkeypatch):
    clock, times, lines, seen = Clock(monkeypatch), StepTimes(), [], []

    means = {"loss": 6.5, "cross_entropy": 6.0, "cotraining": 0.5, "accuracy": 0.5}
    about = {"steps_per_epoch": 2, "batch_size": 10, "split_factor": 4, "seconds": 5.0}
    progress = Progress(0, 4, **about, watch=seen.append, report=lines.append)
    for step, _ in enumerate(times.batches(clock.batches([0.0, 1.0, 1.0, 1.0])), start=1):
        clock.now += 3.0
        times.done()
        if step == 1:
            progress.tell_first(times)
        if progress.is_due(step):
            progress.show(step, means, times)
    assert lines == ["first step: 3.0 s, tracing and compiling included"]
    assert [(standing.step, standing.epoch, standing.seconds_left) for standing in seen] == [(2, 1, 7), (4, 2, 0)]
    assert str(seen[0]).startswith("step 2/4  epoch 1.00  loss 6.5000 = 4 branches x 1.5000 + cotraining 0.5000  acc")
    assert "0.29 steps/s  3 images/s" in str(seen[0]) and str(seen[0]).endswith("0:07 left")
    assert "data wait 25.0%" in str(seen[1]) and "memory " in str(seen[1])
    end = progress.told_at_the_end(4, times)
    assert end.startswith("trained 4 steps to step 4 in 0:15") and "0 steps skipped" in end


def test_one_network_has_one_loss():
    about = {"step": 1, "total_steps": 2, "epoch": 1.0, "split_factor": 1, "loss": 1.1, "cross_entropy": 1.1}
    rates = {"steps_per_second": 1.0, "images_per_second": 8.0, "data_wait": 0.0}
    assert Standing(**about, **rates, cotraining=0.0, accuracy=0.5).losses == "loss 1.1000"


def test_waiting_is_measured_by_the_clock():
    times = StepTimes()

    def slow():
        for _ in range(3):
            time.sleep(0.05)
            yield 0

    for _ in times.batches(slow()):
        times.done()
    assert times.data_wait() > 0.9
