"""train(): one run of an experiment, from the first step or from where it was stopped.

The loop is ours and not `fit`'s, so that its state is exact to the step: one tf.function around
`strategy.run(model.train_step)`, batches that are a function of (seed, step), checkpoints between steps.
"""

import contextlib
import dataclasses
import functools
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from divco_tf import compat, files
from divco_tf.data.streams import reading
from divco_tf.errors import Preempted, RunError
from divco_tf.runs import hooks
from divco_tf.runs.assemble import Parts, assemble
from divco_tf.runs.checks import check_arguments
from divco_tf.runs.clock import Clock
from divco_tf.runs.evaluation import Evaluation
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import claim_model_dir, load
from divco_tf.runs.options import Options
from divco_tf.runs.progress import Standing, StepTimes
from divco_tf.runs.records.checkpoints import Checkpoints
from divco_tf.runs.records.experiment_json import RECORD, read_record, told_of_another_way
from divco_tf.runs.records.metrics_json import Records
from divco_tf.runs.tensorboard import TensorBoard
from divco_tf.runs.warm_start import warm_start
from divco_tf.runtime.distribution import distributed
from divco_tf.runtime.interrupts import Interrupts


def train(
    experiment: Experiment,
    *,
    model_dir: str | pathlib.Path,
    data_dir: str | None = None,
    options: Options | None = None,
    extend: bool = False,
    operative_config: str | None = None,
    report: Callable[[str], None] = print,
    watch: Callable[[Standing], None] | None = None,
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
      extend: train a finished run for more epochs or steps, if that is the only difference.
      operative_config: text that is kept in model_dir as config.gin.
      report: called with each line of progress.
      watch: called some twice a second with where the run stands, for a live display; None: `report` has it as a
        line every `options.progress_seconds`.

    Returns:
      The evaluation of the last weights on the test images, or on those that `options.evaluate_test` says.

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
        place = {"model_dir": model_dir, "data_dir": data_dir, "extend": extend, "lock": lock}
        try:
            parts = assemble(experiment, options, **place, report=report, check=interrupts.check)
            run = _begin(
                parts, lock, extend=extend, check=interrupts.check, operative_config=operative_config, watch=watch
            )
        except Preempted:
            raise Preempted("SIGTERM came before the first step; the same command begins again.") from None
        if operative_config is not None and parts.job.chief:
            files.write_text(model_dir / "config.gin", operative_config)
        with parts.job.watched(run.saver.told):
            with interrupts.noting(signal.SIGINT):
                _train(run, interrupts)
            return _finish(run, interrupts)


@dataclasses.dataclass(frozen=True)
class _Begun:
    """A run that has its model_dir, and what works on it between the steps."""

    parts: Parts
    clock: Clock
    records: Records
    times: StepTimes
    tensorboard: TensorBoard
    saver: hooks.Saver
    evaluate: hooks.Evaluator
    operative_config: str | None
    watch: Callable[[Standing], None] | None


def _begin(parts: Parts, lock: files.FolderLock, *, extend: bool, check: Callable[[], None], **told: Any) -> _Begun:
    """Takes model_dir, and the weights that lie there or those of a warm start."""
    experiment, options, report, writes = parts.experiment, parts.options, parts.report, parts.job.chief
    checkpoints = Checkpoints(parts.model_dir / "checkpoints", keep=options.keep_checkpoints)
    if (start := experiment.warm_start) and checkpoints.last() is None:  # refused before the claim
        other = load(start.model_dir, weights=start.weights)
        report(warm_start(parts.model.stack, other, branches=start.branches))
        parts.model.reset_ema()
    check()
    steps_per_epoch = parts.pipeline.steps_per_epoch
    clock = Clock(steps_per_epoch, experiment.total_steps(steps_per_epoch))
    before = _claim(parts, checkpoints, lock, extend=extend, total_steps=clock.total_steps)
    records = Records(parts.model_dir, writes=writes)
    times = StepTimes()
    tensorboard = TensorBoard(parts.model_dir, report=report, profile=options.profile, writes=writes)
    saver = hooks.Saver(parts, checkpoints, records)
    evaluate = hooks.Evaluator(parts, records, times, tensorboard)
    _resume(parts, clock, checkpoints, records)
    if before is not None and 0 < clock.step < clock.total_steps:
        for line in told_of_another_way(before, **parts.way):
            report(line)
    return _Begun(parts, clock, records, times, tensorboard, saver, evaluate, **told)


def _claim(
    parts: Parts, checkpoints: Checkpoints, lock: files.FolderLock, *, extend: bool, total_steps: int
) -> dict[str, Any] | None:
    """Makes model_dir this run's, and returns what its record said before."""
    model_dir, report, way = parts.model_dir, parts.report, parts.way
    before = read_record(model_dir) if (model_dir / RECORD).exists() else None
    if parts.job.chief:
        files.make_writable(model_dir, "model_dir")
        lock.acquire("model_dir", report=report)
        last = checkpoints.last()
        if last is not None and last.step >= total_steps:  # nothing is trained: it stays as it was
            way = {name: before[name] for name in way if before and name in before}
        branch, source = parts.model.stack.spec, parts.sources["train"]
        claim_model_dir(model_dir, parts.experiment, source, extend=extend, report=report, branch=branch, **way)
        files.remove_unfinished(model_dir)
        checkpoints.remove_unfinished()
    return before


def _resume(parts: Parts, clock: Clock, checkpoints: Checkpoints, records: Records) -> None:
    """Goes on from the last checkpoint, if there is one; all workers from the same one."""
    found = checkpoints.restore_last(parts.state, report=parts.report, set_aside=parts.job.chief)
    clock.step = 0 if found is None else found.step
    parts.job.check_same("step of the last checkpoint", clock.step, at=checkpoints.directory)
    parts.job.check_same("checksum of metrics.json", records.checksum(), at=parts.model_dir)
    if found is not None:
        stopped = hooks.stops_early(parts, records, clock.step)
        told = "finished already:" if clock.ended else "stopped early already:" if stopped else "going on from"
        parts.report(f"{told} step {found.step} of {clock.total_steps} ({found.path})")


def _train(run: _Begun, interrupts: Interrupts) -> None:
    """Makes up for an evaluation that a kill prevented, and takes the steps that are left."""
    parts, clock, saver = run.parts, run.clock, run.saver
    check = functools.partial(interrupts.check, terminations=parts.job.count == 1)  # several workers stop together
    try:
        if clock.step and parts.options.evaluates(clock):
            run.evaluate(clock, parts.watched_split, check=check)
        if not clock.ended and not hooks.stops_early(parts, run.records, clock.step):
            _take_steps(run, interrupts, check)
    except Preempted:
        if not (saver(clock) and saver.wait()):
            raise Preempted(f"SIGTERM came; no checkpoint of step {clock.step} could be written.") from None
        raise Preempted(
            f"SIGTERM came: the checkpoint of step {clock.step} of {clock.total_steps} is written; the same command "
            "goes on from it."
        ) from None
    finally:
        saver.wait()
        run.tensorboard.flush()


def _take_steps(run: _Begun, interrupts: Interrupts, check: Callable[[], None]) -> None:
    """The steps, and between them what is due, in this order."""
    parts, clock, times = run.parts, run.clock, run.times
    options, every = parts.options, parts.options.checkpoint_every or clock.steps_per_epoch
    signals = hooks.Signals()
    finite = hooks.FiniteLoss(options.max_bad_steps, signals, times, told=run.saver.told)
    logs = hooks.Logs(parts, clock, times, run.tensorboard, watch=run.watch)

    def saves(clock: Clock) -> bool:
        chooses = parts.watched_split == "held_out" and options.evaluates(clock)
        return clock.ended or chooses or clock.step % every == 0

    def evaluate(clock: Clock) -> None:
        run.evaluate(clock, parts.watched_split, check=check)
        if options.histograms:
            run.tensorboard.histograms(clock, parts.model.stack)

    def interrupted(clock: Clock) -> None:
        check()

    between_steps: list[hooks.Hook] = [
        run.tensorboard.after_step,
        logs,
        interrupted,
        hooks.when(lambda clock: saves(clock) or options.evaluates(clock), finite.last),
        hooks.when(lambda clock: clock.whole_epochs is not None, hooks.tell_replaced(parts)),
        hooks.when(saves, run.saver),  # a checkpoint is written while the step's weights are evaluated
        hooks.when(options.evaluates, evaluate),
        run.saver.check,
        interrupted,
        *([hooks.stop_together(signals)] if parts.job.count > 1 else []),
    ]
    _tell_of_the_start(run)
    take_step = _step_function(parts)
    dataset = parts.pipeline.dataset(clock.step, clock.total_steps, threads=options.threads)
    for batch in times.batches(distributed(dataset, parts.strategy)):
        run.tensorboard.before_step(clock)
        signals.add(take_step(batch, tf.constant(int(interrupts.terminated), tf.int64)))
        finite.before(clock)
        clock.step += 1
        times.done()
        for hook in between_steps:
            hook(clock)
        if clock.ended:
            break
        if hooks.stops_early(parts, run.records, clock.step):
            parts.report(f"stopped early: {parts.experiment.early_stopping} evaluations without a better one")
            break
    times.bad_steps += int(signals.last[0]) > 0
    parts.report(logs.told_at_the_end(clock))


def _tell_of_the_start(run: _Begun) -> None:
    parts, pipeline, split_factor = run.parts, run.parts.pipeline, run.parts.experiment.split_factor
    batches, megabytes = pipeline.batches_at_once(parts.options.threads), pipeline.batch_bytes / 2**20
    parts.report(f"views: {batches + 2} batches of {megabytes:.1f} MB in memory at most, {batches} made at once")
    if parts.experiment.synchronised_norm and parts.strategy.num_replicas_in_sync > 1:
        parts.report("batch norm is synchronised: without XLA, and every branch is traced")
    left_out = len(parts.sources["train"]) - run.clock.steps_per_epoch * parts.experiment.batch_size
    if left_out > len(parts.sources["train"]) / 4:
        parts.report(
            f"an epoch leaves out {left_out} of {len(parts.sources['train'])} images, others each time, and the run is "
            f"{run.clock.total_steps} steps: a smaller batch_size takes more of both"
        )
    if split_factor > 1:
        parts.report(
            f"loss: the sum of {split_factor} branches' cross entropies and the co-training loss, so about "
            f"{split_factor} times one network's"
        )
    if run.clock.step == 0:
        run.tensorboard.config(parts.experiment.identity(None), run.operative_config)
        if parts.options.contact_sheet:
            run.tensorboard.views(pipeline)


def _step_function(parts: Parts) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """(batch, 1 to stop) -> int64 [bad steps in a row, workers that want to stop]."""
    strategy, model, several = parts.strategy, parts.model, parts.job.count > 1

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


def _finish(run: _Begun, interrupts: Interrupts) -> Evaluation:
    """Evaluates the last weights, on the test images by default, when all of the run lies on disk.

    Raises:
      RunError: the last checkpoint cannot be written.
      Preempted: SIGTERM came.
    """
    parts, clock = run.parts, run.clock
    written = not parts.job.chief or run.saver.holds(clock.step)
    if not all(parts.job.gathered(int(written))):
        raise RunError(
            f"The last checkpoint, of step {clock.step}, cannot be written. Received: "
            f"{parts.model_dir / 'checkpoints'}; make room there, and the same command goes on from the one before."
        )
    try:
        evaluation = run.evaluate(clock, parts.last_split, check=interrupts.check)
    except Preempted:
        raise Preempted(
            f"SIGTERM came: {run.saver.told()}; the same command evaluates it on the {parts.last_split} images."
        ) from None
    try:
        run.records.write()
    except OSError as error:
        raise RunError(
            f"The last evaluation cannot be written ({error.strerror}). Received: {parts.model_dir}; make room "
            "there, and the same command writes it."
        ) from error
    return evaluation
