"""Times of steps, and how much of them waits for data."""

import time

import pytest

from divco_tf.runs import progress
from divco_tf.runs.progress import Progress, StepTimes


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


def test_a_line_comes_when_it_is_time_and_at_the_end(monkeypatch):
    clock, times, lines = Clock(monkeypatch), StepTimes(), []

    means = {"loss": 1.5, "cotraining": 0.25, "accuracy": 0.5}
    line = Progress(0, 4, steps_per_epoch=2, batch_size=10, seconds=5.0, report=lines.append)
    for step, _ in enumerate(times.batches(clock.batches([0.0, 1.0, 1.0, 1.0])), start=1):
        clock.now += 3.0
        times.done()
        if line.is_due(step):
            line.show(step, means, times)
    assert lines[0] == "first step: 3.0 s, tracing and compiling included"
    assert [text.split("  ")[0] for text in lines[1:]] == ["step 2/4", "step 4/4"]
    assert "loss 1.5000  cotraining 0.2500  accuracy 0.5000" in lines[1] and "data wait 25.0%" in lines[2]
    assert "0.29 steps/s  3 images/s" in lines[1] and "0:07 left" in lines[1] and "memory " in lines[1]
    end = line.told_at_the_end(4, times)
    assert end.startswith("trained 4 steps to step 4 in 0:15") and "0 steps skipped" in end


def test_waiting_is_measured_by_the_clock():
    times = StepTimes()

    def slow():
        for _ in range(3):
            time.sleep(0.05)
            yield 0

    for _ in times.batches(slow()):
        times.done()
    assert times.data_wait() > 0.9
