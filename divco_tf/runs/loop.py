"""train(): one run of an experiment, from the first step or from where it was stopped.

The loop is ours and not `fit`'s, so that its state is exact to the step: one tf.function around
`strategy.run(model.train_step)`, batches that are a function of (seed, step), checkpoints between steps.
"""

import contextlib
import dataclasses
import functools
import math
import pathlib
import signal
import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from divco_tf import compat, files
from divco_tf.data.pipeline import ORDER, reading
from divco_tf.data.sources import Source, cached
from divco_tf.data.sources.check import tell_unusual
from divco_tf.errors import Preempted, RunError
from divco_tf.runs.assemble import make_model as make_model
from divco_tf.runs.assemble import make_pipeline as make_pipeline
from divco_tf.runs.checks import check_arguments, check_evaluated, check_places, check_settings
from divco_tf.runs.evaluation import Evaluation, Predictor, score
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import claim_model_dir, load
from divco_tf.runs.options import Options
from divco_tf.runs.progress import Progress, StepTimes
from divco_tf.runs.records.checkpoints import Checkpoint, Checkpoints, CheckpointWriter, snapshot
from divco_tf.runs.records.experiment_json import RECORD, bearing, read_record, told_of_another_way
from divco_tf.runs.records.metrics_json import Records
from divco_tf.runs.warm_start import warm_start
from divco_tf.runs.watch import Watch
from divco_tf.runtime.distribution import distributed
from divco_tf.runtime.interrupts import Interrupts
from divco_tf.runtime.job import Job
from divco_tf.runtime.strategy import check_workers, make_strategy


def train(
    experiment: Experiment,
    *,
    model_dir: str | pathlib.Path,
    data_dir: str | None = None,
    options: Options | None = None,
    extend: bool = False,
    operative_config: str | None = None,
    report: Callable[[str], None] = print,
) -> Evaluation:
    """Trains `experiment` in `model_dir`; called again, goes on where it was stopped.

    A run killed at any instant ends with the weights of an undisturbed one (same machine, one device). SIGTERM makes
    it write a checkpoint and end; Ctrl-C ends it between two steps.

    Args:
      experiment: what to train.
      model_dir: of this run alone: experiment.json, metrics.json (a record an evaluation), checkpoints, TensorBoard.
        The workers of a job share it.
      data_dir: where the dataset lies.
      options: where and how fast.
      extend: train a finished run for more epochs, if that is the only difference.
      operative_config: text that is kept in model_dir as config.gin.
      report: called with each line of progress.

    Returns:
      The evaluation of the last weights on the test images.

    Raises:
      InputError: bad input; nothing has been written over then.
      RunError: the loss or a gradient was not finite, a worker is gone, or the last checkpoint cannot be written; the
        last good checkpoint stays.
      Preempted: SIGTERM came; a checkpoint of the step has been written.
    """
    model_dir, options = files.local_path(model_dir, "model_dir"), options or Options()
    check_arguments(experiment, options, extend=extend)
    deterministic = compat.op_determinism() if options.deterministic else contextlib.nullcontext()
    with Interrupts(signal.SIGTERM) as interrupts, deterministic, files.FolderLock(model_dir) as lock, reading():
        try:
            run = _Run(experiment, model_dir, data_dir, options, extend, report, lock, interrupts)
        except Preempted:
            raise Preempted("SIGTERM came before the first step; the same command begins again.") from None
        if operative_config is not None and run.job.chief:
            files.write_text(run.model_dir / "config.gin", operative_config)
        with run.job.watched(run.last_checkpoint_told):
            with interrupts.noting(signal.SIGINT):
                run.train(interrupts)
            return run.finish(interrupts)


class _Run:
    """A run's parts, put together once; `train` and `finish` are its life."""

    def __init__(
        self,
        experiment: Experiment,
        model_dir: pathlib.Path,
        data_dir: str | None,
        options: Options,
        extend: bool,
        report: Callable[[str], None],
        lock: files.FolderLock,
        interrupts: Interrupts,
    ) -> None:
        self.experiment, self.options, self.report, self.model_dir = experiment, options, report, model_dir
        self.data_dir, self._interrupts = data_dir, interrupts
        check_workers(options.strategy)
        self.strategy = make_strategy(options.strategy)  # several workers': before TensorFlow computes anything
        self.job = Job(self.strategy)
        check_settings(experiment, options, replicas=self.strategy.num_replicas_in_sync)
        if check_places(experiment, model_dir, extend=extend, writes=self.job.chief) and self.job.chief:
            lock.acquire("model_dir", report=report)
        self._sources = self._open_splits()  # all of them: a fault of the test images is told now, not at the end
        source = self._sources.pop("train")
        tell_unusual(source, report=report)
        self.pipeline = make_pipeline(experiment, self._cached(source), on_error=options.on_error, part=self.job.part)
        warm_up = threading.Thread(  # while the model is built
            target=self.pipeline.warm_up, kwargs={"report": self.report}, daemon=True
        )
        warm_up.start()
        self.steps_per_epoch = self.pipeline.steps_per_epoch
        self.total_steps = experiment.epochs * self.steps_per_epoch
        interrupts.check()
        with self.strategy.scope():
            self.model = make_model(
                experiment, num_classes=source.num_classes, steps_per_epoch=self.steps_per_epoch, options=options
            )
        self.checkpoints = Checkpoints(model_dir / "checkpoints", keep=options.keep_checkpoints)
        if (start := experiment.warm_start) and self.checkpoints.last() is None:  # refused before the claim
            other = load(start.model_dir, weights=start.weights)
            report(warm_start(self.model.stack, other, branches=start.branches))
            self.model.reset_ema()
        interrupts.check()
        before = self._claim(source, lock, extend=extend)
        self.records = Records(model_dir, writes=self.job.chief)
        self.state = {
            "stack": self.model.stack.variables,
            "optimizer": self.model.optimizer.variables,
            "run": [self.model.step, self.model.bad_steps, *self.model.means.variables],
            **({"ema": self.model.ema} if self.model.ema else {}),
        }
        self.writer = CheckpointWriter(self.checkpoints, report=report, writes=self.job.chief)
        self.watch_split = "held_out" if experiment.held_out else "test"
        self.predict = Predictor(self.model.stack, experiment.ensembling, strategy=self.strategy, jit=options.jit)
        self.times = StepTimes()
        self.watch = Watch(model_dir, report=report, profile=options.profile, writes=self.job.chief)
        self.step = self._resume()
        if before is not None and 0 < self.step < self.total_steps:
            for line in told_of_another_way(before, **self._way()):
                report(line)

    def _way(self) -> dict[str, Any]:
        """How the run computes, as far as it bears on the result."""
        replicas = self.strategy.num_replicas_in_sync
        return {"computed": bearing(self.experiment, self.options, replicas=replicas), "order": ORDER}

    def _claim(self, source: Source, lock: files.FolderLock, *, extend: bool) -> dict[str, Any] | None:
        """Makes model_dir this run's, and returns what its record said before."""
        model_dir, report = self.model_dir, self.report
        before = read_record(model_dir) if (model_dir / RECORD).exists() else None
        if self.job.chief:
            files.make_writable(model_dir, "model_dir")
            lock.acquire("model_dir", report=report)
            last, more = self.checkpoints.last(), self._way()
            if last is not None and last.step >= self.total_steps:  # nothing is trained: it stays as it was
                more = {name: before[name] for name in more if before and name in before}
            branch = self.model.stack.spec
            claim_model_dir(model_dir, self.experiment, source, extend=extend, report=report, branch=branch, **more)
            files.remove_unfinished(model_dir)
            self.checkpoints.remove_unfinished()
        return before

    def train(self, interrupts: Interrupts) -> None:
        """Runs the remaining steps, with logs, evaluations and checkpoints between them."""
        check = functools.partial(interrupts.check, terminations=self.job.count == 1)  # several workers stop together
        try:
            if self.step and self._evaluates():  # a run that was killed may have been about to
                self._evaluate(self.watch_split, check)
            if self.step < self.total_steps and not self._stops_early():
                self._train(interrupts, check)
        except Preempted:
            if not (self._save() and self.writer.wait()):
                raise Preempted(f"SIGTERM came; no checkpoint of step {self.step} could be written.") from None
            raise Preempted(
                f"SIGTERM came: the checkpoint of step {self.step} of {self.total_steps} is written; the same command "
                "goes on from it."
            ) from None
        finally:
            self.writer.wait()
            self.watch.flush()

    def _train(self, interrupts: Interrupts, check: Callable[[], None]) -> None:
        step_function = self._step_function()
        progress = Progress(
            self.step,
            self.total_steps,
            steps_per_epoch=self.steps_per_epoch,
            batch_size=self.experiment.batch_size,
            seconds=self.options.progress_seconds,
            report=self.report,
        )
        self.report(self._input_told())
        if self.experiment.synchronised_norm and self.strategy.num_replicas_in_sync > 1:
            self.report("batch norm is synchronised: without XLA, and every branch is traced")
        if self.step == 0 and self.options.contact_sheet:
            self.watch.views(self.pipeline)
        dataset = self.pipeline.dataset(self.step, self.total_steps, threads=self.options.threads)
        signals = tf.zeros([2], tf.int64)
        for batch in self.times.batches(distributed(dataset, self.strategy)):
            self.watch.before(self.step + 1)
            before, signals = signals, step_function(batch, tf.constant(int(interrupts.terminated), tf.int64))
            # The step before last's: reading this one's would keep a GPU waiting.
            self._check_finite(before)
            self.times.bad_steps += int(before[0]) > 0
            self.step += 1
            self.times.done()
            self.watch.after(self.step, last=self.step == self.total_steps)
            self._log(progress)
            check()
            self._between_steps(signals, check)
            check()
            if self.job.count > 1 and int(before[1]):
                raise Preempted
            if self.step == self.total_steps:
                break
            if self._stops_early():
                self.report(f"stopped early: {self.experiment.early_stopping} evaluations without a better one")
                break
        self.times.bad_steps += int(signals[0]) > 0
        self.report(progress.told_at_the_end(self.step, self.times))

    def _input_told(self) -> str:
        """What the input takes, in one line."""
        batches, megabytes = self.pipeline.batches_at_once(self.options.threads), self.pipeline.batch_bytes / 2**20
        return f"views: {batches + 2} batches of {megabytes:.1f} MB in memory at most, {batches} made at once"

    def finish(self, interrupts: Interrupts) -> Evaluation:
        """Evaluates the last weights on the test images, when all of the run lies on disk.

        Raises:
          RunError: the last checkpoint cannot be written.
          Preempted: SIGTERM came.
        """
        last = self.checkpoints.last()
        written = not self.job.chief or (last is not None and last.step >= self.step)
        if not all(self.job.gathered(int(written))):
            raise RunError(
                f"The last checkpoint, of step {self.step}, cannot be written. Received: {self.checkpoints.directory}; "
                "make room there, and the same command goes on from the one before."
            )
        try:
            evaluation = self._evaluate("test", interrupts.check)
        except Preempted:
            raise Preempted(
                f"SIGTERM came: {self.last_checkpoint_told()}; the same command evaluates it on the test images."
            ) from None
        try:
            self.records.write()
        except OSError as error:
            raise RunError(
                f"The last evaluation cannot be written ({error.strerror}). Received: {self.model_dir}; make room "
                "there, and the same command writes it."
            ) from error
        return evaluation

    def last_checkpoint_told(self) -> str:
        """Where the last good state lies, for a line."""
        self.writer.wait()
        last = self.checkpoints.last()
        return f"the last good checkpoint is {last.path}" if last else "no checkpoint has been written yet"

    def _open_splits(self) -> dict[str, Source]:
        options = self.options
        writes = {"model_dir": self.model_dir, "cache_dir": options.cache_dir}
        opened = self.experiment.open_splits(
            data_dir=self.data_dir,
            on_error=options.on_error,
            memory_budget=options.memory_budget,
            index_dir=options.cache_dir,
            writes={name: path for name, path in writes.items() if path is not None},
            report=self._told_meanwhile,
        )
        sources = dict(opened)
        check_evaluated(sources)
        for note in dict.fromkeys(note for source in sources.values() for note in source.notes):
            self.report(note)
        return sources

    def _cached(self, source: Source) -> Source:
        options, policies = self.options, self.experiment.view_policies
        first = policies[0] if isinstance(policies, tuple) else policies
        return cached(
            source,
            stored=first.resized_crop is not None,
            memory_budget=options.memory_budget,
            cache_dir=options.cache_dir,
            threads=options.threads,
            report=self._told_meanwhile,
        )

    def _told_meanwhile(self, line: str) -> None:
        """A line of what may take minutes, and a chance to end it."""
        self.report(line)
        self._interrupts.check()

    def _resume(self) -> int:
        found = self.checkpoints.restore_last(self.state, report=self.report, set_aside=self.job.chief)
        step = 0 if found is None else found.step
        self.job.check_same("step of the last checkpoint", step, at=self.checkpoints.directory)
        self.job.check_same("checksum of metrics.json", self.records.checksum(), at=self.model_dir)
        if found is not None:
            self.report(self._resumed_told(found))
        return step

    def _resumed_told(self, found: Checkpoint) -> str:
        place = f"step {found.step} of {self.total_steps} ({found.path})"
        if found.step >= self.total_steps:
            return f"finished already: {place}"
        stopped = self.records.without_gain(until=found.step) >= (self.experiment.early_stopping or math.inf)
        return f"stopped early already: {place}" if stopped else f"going on from {place}"

    def _step_function(self) -> Callable[[Any, tf.Tensor], tf.Tensor]:
        """(batch, 1 to stop) -> int64 [bad steps in a row, workers that want to stop]."""
        strategy, model, several = self.strategy, self.model, self.job.count > 1

        def on_replica(batch: Any, stop: tf.Tensor) -> tf.Tensor:
            model.train_step(batch)
            if several:
                # The identity lies on the replica's device, as a sum of several workers asks (TensorFlow 2.21).
                stop = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.identity(stop))
            return stop

        @tf.function(autograph=False)  # nothing to convert, and converting takes seconds
        def step(batch: Any, stop: tf.Tensor) -> tf.Tensor:
            stops = strategy.experimental_local_results(strategy.run(on_replica, args=(batch, stop)))
            return tf.stack([model.bad_steps.value, stops[0]])

        return step

    def _check_finite(self, signals: tf.Tensor) -> None:
        bad_steps = int(signals[0])
        if bad_steps > self.options.max_bad_steps:
            raise RunError(
                f"The loss or a gradient is not finite. Received: {bad_steps} such steps in a row at step "
                f"{self.step}, max_bad_steps={self.options.max_bad_steps}; {self.last_checkpoint_told()}; a lower "
                "learning rate may help."
            )

    def _log(self, progress: Progress) -> None:
        """Scalars for TensorBoard and a line of progress, when it is time."""
        logs = self.step % self.options.log_every == 0 or self.step == self.total_steps
        shows = progress.is_due(self.step)
        if not logs and not (shows and self.job.count == 1):  # several workers read the means together or not at all
            return
        means = {name: float(value) for name, value in self.model.means.result().items()}
        if shows:
            progress.show(self.step, means, self.times)
        if logs:
            self.model.means.reset_state()
            rates = {
                "learning_rate": float(self.model.optimizer.learning_rate),
                "cotraining_weight": float(self.model.cotraining_weight()),
                "data_wait": self.times.data_wait(since_asked=True),
                "skipped_steps": self.times.bad_steps,
            }
            self.watch.training(self.step, {**means, **rates})

    def _evaluates(self) -> bool:
        return self.options.evaluates(self.step, total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch)

    def _between_steps(self, signals: tf.Tensor, check: Callable[[], None]) -> None:
        """Saves and evaluates when it is time: a checkpoint is written while the step's weights are evaluated."""
        epoch, into_epoch = divmod(self.step, self.steps_per_epoch)
        evaluates, last = self._evaluates(), self.step == self.total_steps
        every = self.options.checkpoint_every or self.steps_per_epoch
        saves = last or (evaluates and self.watch_split == "held_out") or self.step % every == 0
        if evaluates or saves:
            self._check_finite(signals)
        if not into_epoch and self.pipeline.replaced:
            replaced = list(self.pipeline.replaced.values())
            self.report(f"epoch {epoch}: {len(replaced)} images so far cannot be read and are replaced: {replaced[0]}")
        if saves:
            self._save()
        if evaluates:
            self._evaluate(self.watch_split, check)
            if self.options.histograms:
                self.watch.histograms(self.step, self.model.stack)
        self.writer.check()

    def _save(self) -> bool:
        """Begins to write a checkpoint, unless an evaluation before it has no record on disk: then False."""
        self.writer.wait()  # the one before may be the best, which stays
        values = snapshot(self.state)  # by all workers together, before one of them may find its disk full
        try:
            self.records.write()
        except OSError as error:
            self.report(f"no checkpoint of step {self.step}: metrics.json cannot be written ({error.strerror})")
            return False
        kept = {checkpoint.step for checkpoint in self.checkpoints.all()}
        best = [step for step in self.records.best(until=self.step) if step in kept]
        self.writer.write(self.step, values, protected=best[: self.options.keep_best])
        return True

    def _stops_early(self) -> bool:
        patience = self.experiment.early_stopping
        return patience is not None and self.records.without_gain(until=self.step) >= patience

    def _evaluate(self, split: str, check: Callable[[], None]) -> Evaluation:
        """Evaluates and records, unless this step's record of the split is there already."""
        known = self.records.find(self.step, split)
        if known:
            fields = {field.name: known[field.name] for field in dataclasses.fields(Evaluation)}
            return Evaluation(**{**fields, "branch_accuracies": tuple(fields["branch_accuracies"])})
        evaluation = score(
            self.predict,
            self.experiment,
            self._sources[split],
            split=split,
            batch_size=self.options.eval_batch_size,
            weights=f"last step {self.step}",
            check=check,
        )
        seconds = self.times.seconds_per_step
        if seconds is None and self.records.all:
            seconds = self.records.all[-1]["seconds_per_step"]
        evaluation = dataclasses.replace(evaluation, seconds_per_step=seconds)
        epoch = self.step / self.steps_per_epoch
        self.watch.evaluation(self.step, evaluation)
        self.report(
            f"epoch {epoch:g}: {split} accuracy {evaluation.accuracy:.4f}, "
            f"best branch {max(evaluation.branch_accuracies):.4f}, NLL {evaluation.negative_log_likelihood:.4f}"
        )
        try:
            self.records.add({"step": self.step, "epoch": epoch, **dataclasses.asdict(evaluation)})
        except OSError as error:
            self.report(f"metrics.json cannot be written ({error.strerror}); training goes on, it is tried again")
        return evaluation
