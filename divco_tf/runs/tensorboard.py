"""What TensorBoard shows of a run."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import tensorflow as tf

from divco_tf.data.contact_sheet import contact_sheet
from divco_tf.data.pipeline import ViewPipeline
from divco_tf.models.branch_stack import BranchStack
from divco_tf.runs.clock import Clock
from divco_tf.runs.evaluation import Evaluation


class TensorBoard:
    """Writes TensorBoard's files; when the disk is full, says so once and training goes on without them.

    Args:
      model_dir: the files lie in its folder tensorboard.
      report: called with the line that they cannot be written.
      profile: (first, last) step that the profiler looks at.
      writes: False writes nothing, as all workers of a job but the first do.
    """

    def __init__(
        self,
        model_dir: pathlib.Path,
        *,
        report: Callable[[str], None],
        profile: tuple[int, int] | None = None,
        writes: bool = True,
    ) -> None:
        self._folder, self._report, self._profile = model_dir / "tensorboard", report, profile
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._writes, self._profiling = writes, False

    def training(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars of training, as one record: `tf.summary.scalar` takes 0.3 ms each, and a step may take 10."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        record = Summary(value=[scalar_pb(name, value).value[0] for name, value in values.items()])
        with self._writing("train", step):
            tf.summary.experimental.write_raw_pb(record.SerializeToString())

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        """The figures of an evaluation, under training's names: one chart has accuracy on all splits."""
        with self._writing(evaluation.split, step):
            for name in ("accuracy", "negative_log_likelihood", "calibration_error"):
                tf.summary.scalar(name, getattr(evaluation, name))
            for branch, value in enumerate(evaluation.branch_accuracies):
                tf.summary.scalar(f"branch{branch}_accuracy", value)
            tf.summary.flush()

    def config(self, settings: Mapping[str, Any], operative_config: str | None) -> None:
        """What is trained, as text: a table of the experiment's settings, and gin's configuration if there is one."""
        rows = [f"| {name} | `{json.dumps(value)}` |" for name, value in _flat(settings)]
        with self._writing("train", 0):
            tf.summary.text("experiment", "\n".join(["| setting | value |", "| --- | --- |", *rows]))
            if operative_config is not None:
                tf.summary.text("config.gin", "".join(f"    {line}\n" for line in operative_config.splitlines()))

    def views(self, pipeline: ViewPipeline) -> None:
        """The views of the first images."""
        with self._writing("train", 0):
            tf.summary.image("views", contact_sheet(pipeline)[None])

    def histograms(self, clock: Clock, stack: BranchStack) -> None:
        """The weights and statistics of every branch."""
        with self._writing("weights", clock.step):
            for name, stacked in stack.stacked_values().items():
                for branch, values in enumerate(stacked):
                    tf.summary.histogram(f"branch{branch}/{name}", values)
            tf.summary.flush()

    def before_step(self, clock: Clock) -> None:
        """The profiler begins, if the step that comes is its first one; steps count from 1."""
        if self._writes and self._profile is not None and clock.step + 1 == self._profile[0]:
            tf.profiler.experimental.start(str(self._folder / "profile"))
            self._profiling = True

    def after_step(self, clock: Clock) -> None:
        """The profiler ends, if the step is its last one or the run's."""
        if self._profiling and (clock.ended or clock.step == self._profile[1]):
            tf.profiler.experimental.stop()
            self._profiling = False

    def flush(self) -> None:
        """Writes what waits in memory."""
        for name in self._writers:
            with self._writing(name, 0):
                tf.summary.flush()

    @contextmanager
    def _writing(self, name: str, step: int) -> Iterator[None]:
        """A writer as the default one."""
        if not self._writes:
            with tf.summary.record_if(False):
                yield
            return
        try:
            if name not in self._writers:
                self._writers[name] = tf.summary.create_file_writer(str(self._folder / name))
            with self._writers[name].as_default(step=step):
                yield
        except (OSError, tf.errors.OpError) as error:
            self._writes = False
            why = " ".join(str(error).split())[:200]
            self._report(f"TensorBoard's files cannot be written ({why}); training goes on without them")


def _flat(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their path, "optimizer.weight_decay"."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value
