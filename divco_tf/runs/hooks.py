"""What happens between two steps of a run; `loop` says in which order.

A hook is called with the run's clock after each step, or where it is due: `hook(clock)`.
"""

import dataclasses
import math
from collections.abc import Callable
from statistics import fmean

import tensorflow as tf

from divco_tf.errors import Preempted, RunError
from divco_tf.runs.assemble import Parts
from divco_tf.runs.clock import Clock
from divco_tf.runs.evaluation import Evaluation, predictor, score
from divco_tf.runs.progress import Progress, Standing, StepTimes
from divco_tf.runs.records.checkpoints import Checkpoints, CheckpointWriter
from divco_tf.runs.records.metrics_json import Records
from divco_tf.runs.records.variables import snapshot
from divco_tf.runs.tensorboard import TensorBoard

Hook = Callable[[Clock], object]

POINTS = 1000
"""The most that a chart of TensorBoard has unless `log_every` says otherwise: one every step of a short run."""
WATCHED_SECONDS = 0.5
"""Between two looks at a run that somebody watches: each waits for the step to end."""


def when(due: Callable[[Clock], bool], *hooks: Hook) -> Hook:
    """Those hooks, where they are due."""

    def hook(clock: Clock) -> None:
        if due(clock):
            for each in hooks:
                each(clock)

    return hook


class Signals:
    """What the last two steps said, int64 [bad steps in a row, workers that want to stop].

    Reading the last one's waits for its step, and would keep a GPU waiting after each; the one before has ended.
    """

    def __init__(self) -> None:
        self.before = self.last = tf.zeros([2], tf.int64)

    def add(self, signals: tf.Tensor) -> None:
        """Those of a further step."""
        self.before, self.last = self.last, signals


class FiniteLoss:
    """Ends a run when more steps in a row than it allows had a loss or a gradient that is not finite.

    Args:
      max_bad_steps: how many it allows.
      signals: of the steps.
      times: count the steps that were skipped.
      told: where the last good state lies, for the message.
    """

    def __init__(self, max_bad_steps: int, signals: Signals, times: StepTimes, *, told: Callable[[], str]) -> None:
        self._most, self._signals, self._times, self._told = max_bad_steps, signals, times, told

    def before(self, clock: Clock) -> None:
        """Looks at the step before the last one, which is not counted yet."""
        self._check(self._signals.before, clock.step)
        self._times.bad_steps += int(self._signals.before[0]) > 0

    def last(self, clock: Clock) -> None:
        """Looks at the last step, before its weights are saved or evaluated."""
        self._check(self._signals.last, clock.step)

    def _check(self, signals: tf.Tensor, step: int) -> None:
        if (bad_steps := int(signals[0])) > self._most:
            raise RunError(
                f"The loss or a gradient is not finite. Received: {bad_steps} such steps in a row at step {step}, "
                f"max_bad_steps={self._most}; {self._told()}; a lower learning rate may help."
            )


class Logs:
    """The means of steps: for TensorBoard since its last point, and for whoever watches."""

    def __init__(
        self,
        parts: Parts,
        clock: Clock,
        times: StepTimes,
        tensorboard: TensorBoard,
        *,
        watch: Callable[[Standing], None] | None,
    ) -> None:
        self._parts, self._times, self._tensorboard = parts, times, tensorboard
        self._every = parts.options.log_every or math.ceil(clock.total_steps / POINTS)
        self._logged: list[dict[str, float]] = []  # since the last time that was shown
        # A schedule is a dozen operations, which take a millisecond one by one.
        self._rates = tf.function(
            lambda: tf.stack([parts.model.optimizer.learning_rate, parts.model.cotraining_weight()]), autograph=False
        )
        self._progress = Progress(
            clock.step,
            clock.total_steps,
            steps_per_epoch=clock.steps_per_epoch,
            batch_size=parts.experiment.batch_size,
            split_factor=parts.experiment.split_factor,
            seconds=parts.options.progress_seconds if watch is None else WATCHED_SECONDS,
            watch=watch or (lambda standing: parts.report(str(standing))),
            report=parts.report,
        )

    def __call__(self, clock: Clock) -> None:
        """Shows and writes them when it is time."""
        model = self._parts.model
        if self._times.count == 1:
            self._progress.tell_first(self._times)
        logs = clock.step % self._every == 0 or clock.ended
        shows = self._progress.is_due(clock.step)
        # Several workers read the means together or not at all.
        if not logs and not (shows and self._parts.job.count == 1):
            return
        means = dict(zip(model.means.names, model.means.read().numpy().tolist(), strict=True))
        if logs:
            model.means.reset_state()
            self._logged.append(means)
            learning_rate, cotraining_weight = self._rates().numpy().tolist()
            rates = {
                "branch_cross_entropy": means["cross_entropy"] / self._parts.experiment.split_factor,
                "learning_rate": learning_rate,
                "cotraining_weight": cotraining_weight,
                "data_wait": self._times.data_wait(since_asked=True),
                "skipped_steps": self._times.bad_steps,
            }
            self._tensorboard.training(clock.step, {**means, **rates})
        if shows:
            shown = self._logged or [means]
            self._progress.show(clock.step, {name: fmean(each[name] for each in shown) for name in means}, self._times)
            self._logged = []

    def told_at_the_end(self, clock: Clock) -> str:
        """The summary of what this process has trained, in one line."""
        return self._progress.told_at_the_end(clock.step, self._times)


class Saver:
    """Writes checkpoints of a run while it goes on."""

    def __init__(self, parts: Parts, checkpoints: Checkpoints, records: Records) -> None:
        self._parts, self._checkpoints, self._records = parts, checkpoints, records
        self._writer = CheckpointWriter(checkpoints, report=parts.report, writes=parts.job.chief)

    def __call__(self, clock: Clock) -> bool:
        """Begins to write a checkpoint, unless an evaluation before it has no record on disk: then False."""
        self._writer.wait()  # the one before may be the best, which stays
        values = snapshot(self._parts.state)  # by all workers together, before one of them may find its disk full
        try:
            self._records.write()
        except OSError as error:
            told = f"no checkpoint of step {clock.step}: metrics.json cannot be written ({error.strerror})"
            self._parts.report(told)
            return False
        kept = {checkpoint.step for checkpoint in self._checkpoints.all()}
        best = [step for step in self._records.best(until=clock.step) if step in kept]
        self._writer.write(clock.step, values, protected=best[: self._parts.options.keep_best])
        return True

    def check(self, clock: Clock) -> None:
        """Reports a checkpoint that could not be written."""
        self._writer.check()

    def wait(self) -> bool:
        """Waits for the checkpoint that is being written; False: it could not be."""
        return self._writer.wait()

    def holds(self, step: int) -> bool:
        """Whether a checkpoint of that step, or of a later one, lies on disk."""
        last = self._checkpoints.last()
        return last is not None and last.step >= step

    def told(self) -> str:
        """Where the last good state lies, for a line."""
        self._writer.wait()
        last = self._checkpoints.last()
        return f"the last good checkpoint is {last.path}" if last else "no checkpoint has been written yet"


class Evaluator:
    """Evaluates the present weights, and records the figures."""

    def __init__(self, parts: Parts, records: Records, times: StepTimes, tensorboard: TensorBoard) -> None:
        self._parts, self._records, self._times, self._tensorboard = parts, records, times, tensorboard
        self._predict = predictor(parts.model.stack, parts.experiment, strategy=parts.strategy, jit=parts.options.jit)

    def __call__(self, clock: Clock, split: str, *, check: Callable[[], None]) -> Evaluation:
        """The figures of a split; a step's record that is there already is what it says.

        Args:
          clock: of the run.
          split: "held_out" or "test".
          check: called after each batch; may raise.
        """
        if known := self._records.find(clock.step, split):
            fields = {field.name: known[field.name] for field in dataclasses.fields(Evaluation)}
            return Evaluation(**{**fields, "branch_accuracies": tuple(fields["branch_accuracies"])})
        parts = self._parts
        evaluation = score(
            self._predict,
            parts.experiment,
            parts.sources[split],
            split=split,
            batch_size=parts.options.eval_batch_size,
            weights=f"last step {clock.step}",
            check=check,
        )
        evaluation = dataclasses.replace(evaluation, seconds_per_step=self._seconds_per_step())
        self._tensorboard.evaluation(clock.step, evaluation)
        parts.report(
            f"epoch {clock.epoch:g}: {split} accuracy {evaluation.accuracy:.4f}, "
            f"best branch {max(evaluation.branch_accuracies):.4f}, NLL {evaluation.negative_log_likelihood:.4f}"
        )
        try:
            self._records.add({"step": clock.step, "epoch": clock.epoch, **dataclasses.asdict(evaluation)})
        except OSError as error:
            parts.report(f"metrics.json cannot be written ({error.strerror}); training goes on, it is tried again")
        return evaluation

    def _seconds_per_step(self) -> float | None:
        """Of this process's steps, or else those of the one before."""
        if self._times.seconds_per_step is None and self._records.all:
            return self._records.all[-1]["seconds_per_step"]
        return self._times.seconds_per_step


def tell_replaced(parts: Parts) -> Hook:
    """Tells at the end of an epoch which images could not be read."""

    def hook(clock: Clock) -> None:
        if replaced := list(parts.pipeline.replaced.values()):
            told = f"epoch {clock.whole_epochs}: {len(replaced)} images so far cannot be read and are replaced"
            parts.report(f"{told}: {replaced[0]}")

    return hook


def stop_together(signals: Signals) -> Hook:
    """Ends several workers at the same step, when one of them got SIGTERM.

    Raises:
      Preempted: as said.
    """

    def hook(clock: Clock) -> None:
        if int(signals.before[1]):
            raise Preempted

    return hook


def stops_early(parts: Parts, records: Records, step: int) -> bool:
    """Whether so many evaluations until `step` were without gain that the run ends."""
    return records.without_gain(until=step) >= (parts.experiment.early_stopping or math.inf)
