"""A benchmark's worker without a process or a clock: each system takes its steps here, and its times are told."""

import pytest

from divco_tf.tools.benchmarks import memory, scaling, step, xla
from divco_tf.tools.benchmarks.process import OutOfTime


class Told:
    """Stands for a `Worker`. The n-th that is made is built in n s and has its first step in 2 n s, 100 n MB at most.

    In its k-th turn a step takes n k s, and more memory than before it, n MB.
    """

    made = 0
    limit = float("inf")

    def __init__(self, name, make, *, report, limit=None, **_):
        Told.made += 1
        self.number, self.turn, self.step = Told.made, 0, make()
        if 2 * self.number > Told.limit:
            raise OutOfTime(f"{name} is stopped. Received: no step within {limit:g} s.")
        self.step()
        self.times = {"build": 1.0 * self.number, "first": 2.0 * self.number}
        self.times |= {"peak_mb": 100.0 * self.number, "rounds": []}
        report(f"{name}: built")

    def seconds(self, steps: int) -> float:
        self.turn += 1
        self.step()
        return float(steps * self.number * self.turn)

    def step_bytes(self) -> int:
        return 1_000_000 * self.number

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def told_times(monkeypatch) -> type[Told]:
    """Puts `Told` in place of the benchmarks' workers."""
    monkeypatch.setattr(Told, "made", 0)
    monkeypatch.setattr(Told, "limit", float("inf"))
    for module in (memory, scaling, step, xla):
        monkeypatch.setattr(module, "Worker", Told)
    return Told
