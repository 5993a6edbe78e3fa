"""How a run gets on: the time of its steps, how much of it they wait for data, lines of progress."""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from divco_tf.training.cotraining import CoTrainingModel


class StepTimes:
    """The times of steps: each begins when its batch is asked for, and ends at `done`."""

    def __init__(self) -> None:
        self._began = self._waited = 0.0
        self._times: list[tuple[float, float]] = []  # (seconds of a step, of which it waited for data)
        self._asked = 0  # of these, how many `data_wait` has told of

    def batches(self, dataset: Iterable[Any]) -> Iterator[Any]:
        """The batches of a dataset."""
        iterator = iter(dataset)
        while True:
            self._began = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited = time.monotonic() - self._began
            yield batch

    def done(self) -> None:
        """The step ends here; what follows (evaluation, saving) is not of it."""
        self._times.append((time.monotonic() - self._began, self._waited))

    @property
    def seconds_per_step(self) -> float | None:
        """The median, waiting for data included; None before the first step."""
        return statistics.median(seconds for seconds, _ in self._times) if self._times else None

    def data_wait(self, *, since_asked: bool = False) -> float:
        """The share of the steps' time that they waited for data, 0 to 1: of all steps, or of those since it was asked.

        The first step, whose batch is not made ahead, counts in neither.
        """
        times = self._times[max(self._asked if since_asked else 0, 1) :]
        if since_asked:
            self._asked = len(self._times)
        total = sum(seconds for seconds, _ in times)
        return sum(waited for _, waited in times) / total if total else 0.0


class Progress:
    """Lines of progress: losses, steps a second, waiting for data, time left.

    Args:
      step: the run's, when it begins or goes on.
      total_steps: of the run.
      steps_per_epoch: of it.
      seconds: between two lines.
      report: called with each line.
    """

    def __init__(
        self, step: int, total_steps: int, steps_per_epoch: int, seconds: float, report: Callable[[str], None]
    ) -> None:
        self._total, self._steps_per_epoch, self._seconds, self._report = total_steps, steps_per_epoch, seconds, report
        self._shown_step, self._shown_at = step, time.monotonic()

    def show(self, step: int, model: CoTrainingModel, times: StepTimes) -> None:
        """Reports, if the last report was long enough ago."""
        now = time.monotonic()
        if now - self._shown_at < self._seconds and step != self._total:
            return
        rate = (step - self._shown_step) / max(now - self._shown_at, 1e-9)
        self._shown_step, self._shown_at = step, now
        means = {name: float(value) for name, value in model.means.result().items()}
        minutes, seconds = divmod(round((self._total - step) / rate), 60)
        losses = "  ".join(f"{name} {means[name]:.4f}" for name in ("loss", "cotraining", "accuracy"))
        self._report(
            f"step {step}/{self._total}  epoch {step / self._steps_per_epoch:.2f}  {losses}  "
            f"{rate:.2f} steps/s  data wait {times.data_wait():.1%}  {minutes}:{seconds:02} left"
        )
