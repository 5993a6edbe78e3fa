"""How a run gets on: the time of its steps, how much of it they wait for data, where it stands."""

import collections
import dataclasses
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

LATEST = 10_000
"""Steps of which the median is known: sorting them takes a millisecond."""


class StepTimes:
    """The times of steps: each begins when its batch is asked for, and ends at `done`. A run of any length takes no
    more memory and time here: sums are kept, and the last `LATEST` steps, whose median is told.

    Attributes:
      count: how many steps there have been.
      bad_steps: how many were skipped, since their loss or a gradient was not finite; counted by the loop.
      first_step: seconds of the first one without its waiting: tracing, and XLA's compilation, are in it.
    """

    def __init__(self) -> None:
        self._began = self._waited = 0.0
        self._latest: collections.deque[float] = collections.deque(maxlen=LATEST)  # seconds
        # (seconds, of which steps waited for data) of all steps but the first, and of those since it was last asked.
        self._sums, self._sums_since = (0.0, 0.0), (0.0, 0.0)
        self.count = self.bad_steps = 0
        self.first_step = 0.0

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
        seconds, waited = time.monotonic() - self._began, self._waited
        self._latest.append(seconds)
        if self.count:  # the first batch is not made ahead
            self._sums, self._sums_since = (
                (total + seconds, total_waited + waited) for total, total_waited in (self._sums, self._sums_since)
            )
        else:
            self.first_step = seconds - waited
        self.count += 1

    @property
    def seconds_per_step(self) -> float | None:
        """The median of the last `LATEST` steps, waiting for data included; None before the first step."""
        return statistics.median(self._latest) if self._latest else None

    def data_wait(self, *, since_asked: bool = False) -> float:
        """The share of the steps' time that they waited for data, 0 to 1: of all steps, or of those since it was asked.

        The first step, whose batch is not made ahead, counts in neither.
        """
        total, waited = self._sums_since if since_asked else self._sums
        if since_asked:
            self._sums_since = (0.0, 0.0)
        return waited / total if total else 0.0


@dataclasses.dataclass(frozen=True)
class Standing:
    """How far a run is, and how fast.

    Attributes:
      step, total_steps: of the run.
      epoch: how many are done, with the share of the one that has begun.
      split_factor: S.
      loss: the sum of the branches' cross entropies and the weighted co-training loss, in nats, as `means` below.
      cross_entropy: of a branch, their mean.
      cotraining: the weighted co-training loss.
      accuracy: of the ensemble, on the training views.
      steps_per_second: since the last time.
      images_per_second: of the images, each of which is S views.
      data_wait: the share of the time that steps waited for data, 0 to 1.
    """

    step: int
    total_steps: int
    epoch: float
    split_factor: int
    loss: float
    cross_entropy: float
    cotraining: float
    accuracy: float
    steps_per_second: float
    images_per_second: float
    data_wait: float

    @property
    def seconds_left(self) -> float:
        """Until the last step, at the present speed."""
        return (self.total_steps - self.step) / self.steps_per_second

    @property
    def losses(self) -> str:
        """The loss as it is composed: it sums S branches, so it is about S times that of one network."""
        if self.split_factor == 1:
            return f"loss {self.loss:.4f}"
        return (
            f"loss {self.loss:.4f} = {self.split_factor} branches x {self.cross_entropy:.4f} + cotraining "
            f"{self.cotraining:.4f}"
        )

    def __str__(self) -> str:
        return (
            f"step {self.step}/{self.total_steps}  epoch {self.epoch:.2f}  {self.losses}  "
            f"accuracy {self.accuracy:.4f}  {speed_told(self.steps_per_second, self.images_per_second)}  "
            f"data wait {self.data_wait:.1%}  {memory_told()}  {clock_told(self.seconds_left)} left"
        )


class Progress:
    """Shows how a run gets on, now and then.

    Args:
      step: the run's, when it begins or goes on.
      total_steps: of the run.
      steps_per_epoch: of it.
      batch_size: of the global batch.
      split_factor: S.
      seconds: between two times.
      watch: called with each.
      report: called with the line of the first step's time.
    """

    def __init__(
        self,
        step: int,
        total_steps: int,
        *,
        steps_per_epoch: int,
        batch_size: int,
        split_factor: int,
        seconds: float,
        watch: Callable[[Standing], None],
        report: Callable[[str], None],
    ) -> None:
        self._total, self._steps_per_epoch, self._batch_size = total_steps, steps_per_epoch, batch_size
        self._split_factor, self._seconds, self._watch, self._report = split_factor, seconds, watch, report
        self._shown_step, self._shown_at = step, time.monotonic()
        self._began_at = self._shown_at

    def is_due(self, step: int) -> bool:
        """Whether the last time was long enough ago, or this is the last step."""
        return time.monotonic() - self._shown_at >= self._seconds or step == self._total

    def tell_first(self, times: StepTimes) -> None:
        """Reports how long the first step took, right after it."""
        self._report(f"first step: {times.first_step:.1f} s, tracing and compiling included")

    def show(self, step: int, means: Mapping[str, float], times: StepTimes) -> None:
        """Shows where the run stands.

        Args:
          step: how many are done.
          means: of steps since the last time, by the names of `Means.of_branches`.
          times: of the steps.
        """
        now = time.monotonic()
        rate = (step - self._shown_step) / max(now - self._shown_at, 1e-9)
        self._shown_step, self._shown_at = step, now
        self._watch(
            Standing(
                step=step,
                total_steps=self._total,
                epoch=step / self._steps_per_epoch,
                split_factor=self._split_factor,
                loss=means["loss"],
                cross_entropy=means["cross_entropy"] / self._split_factor,
                cotraining=means["cotraining"],
                accuracy=means["accuracy"],
                steps_per_second=rate,
                images_per_second=rate * self._batch_size,
                data_wait=times.data_wait(),
            )
        )

    def told_at_the_end(self, step: int, times: StepTimes) -> str:
        """The summary of what this process has trained, in one line."""
        seconds = time.monotonic() - self._began_at
        rate = 1 / max(times.seconds_per_step or 0, 1e-9)
        return (
            f"trained {times.count} steps to step {step} in {clock_told(seconds)}, evaluations included: "
            f"{speed_told(rate, rate * self._batch_size)} (median), data wait {times.data_wait():.1%}, "
            f"{times.bad_steps} steps skipped, {memory_told()}"
        )


def speed_told(steps_per_second: float, images_per_second: float) -> str:
    """ "12.30 steps/s  787 images/s"."""
    return f"{steps_per_second:.2f} steps/s  {images_per_second:.0f} images/s"


def memory_told() -> str:
    """The most memory that was in use so far, of each GPU, or else of this process."""
    gpus = tf.config.list_logical_devices("GPU")
    if not gpus:
        return f"memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GB"
    names = [gpu.name.removeprefix("/device:") for gpu in gpus]
    peaks = (tf.config.experimental.get_memory_info(name)["peak"] / 2**30 for name in names)
    return "GPU memory " + "/".join(f"{peak:.1f}" for peak in peaks) + " GB"


def clock_told(seconds: float) -> str:
    """Minutes and seconds, "3:07", and hours where there are any."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
