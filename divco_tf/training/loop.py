"""train(): one run of an experiment, from the first step or from where it was stopped.

The loop is ours and not `fit`'s, so that its state is exact to the step: one tf.function around
`strategy.run(model.train_step)`, batches that are a function of (seed, step), checkpoints between steps.
"""

import dataclasses
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from divco_tf import files
from divco_tf.data.contact_sheet import contact_sheet
from divco_tf.data.pipeline import ViewPipeline, reading
from divco_tf.data.sources import Source, cached
from divco_tf.data.sources.check import tell_unusual
from divco_tf.errors import InputError, RunError
from divco_tf.training.checkpoint import Checkpoints
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.evaluation import Evaluation, Predictor, score
from divco_tf.training.experiment import METRICS, Experiment, claim_model_dir
from divco_tf.training.progress import Progress, StepTimes
from divco_tf.training.runtime import Interrupts, distributed, make_strategy
from divco_tf.training.warm_start import warm_start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Where, how fast and how watched a run is: nothing here bears on its result.

    Attributes:
      strategy: "auto", "one_device" or "mirrored".
      jit: XLA: "auto" (GPU and TPU), "on" or "off".
      micro_batches: parts of a replica's batch, one after the other, to save memory.
      threads: of the input pipeline; None: as many as there are cores.
      checkpoint_every: steps between checkpoints; None: an epoch. The end has one always.
      keep_checkpoints: how many of the last stay (the best stays besides).
      evaluate_every: epochs between evaluations; 0: at the end only.
      log_every: steps between TensorBoard's scalars.
      progress_seconds: between lines of progress.
      max_bad_steps: how many steps in a row whose loss or gradient is not finite are skipped before the run stops.
      eval_batch_size: images a batch of evaluation.
      on_error: "raise", or "skip": a training image that cannot be read is replaced by another of the epoch, so this
        does bear on the result.
      memory_budget: bytes for decoded images, which are kept if all fit; None: a quarter of what is free.
      cache_dir: a folder that keeps decoded images, instead of the memory, and where records of TFRecord files begin.
      contact_sheet: shows TensorBoard the first images' views when a run begins.
    """

    strategy: str = "auto"
    jit: str = "auto"
    micro_batches: int = 1
    threads: int | None = None
    checkpoint_every: int | None = None
    keep_checkpoints: int = 3
    evaluate_every: int = 1
    log_every: int = 20
    progress_seconds: float = 5.0
    max_bad_steps: int = 0
    eval_batch_size: int = 500
    on_error: str = "raise"
    memory_budget: int | None = None
    cache_dir: str | None = None
    contact_sheet: bool = True

    def __post_init__(self) -> None:
        positive = ("micro_batches", "keep_checkpoints", "log_every", "eval_batch_size", "checkpoint_every", "threads")
        for name, least in (*((name, 1) for name in positive), ("evaluate_every", 0), ("max_bad_steps", 0)):
            value, may_be_none = getattr(self, name), name in ("checkpoint_every", "threads")
            if value is None and may_be_none:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"{name} is no whole number from {least}. Received: {value!r}; pass {least} or more.")


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

    A run killed at any instant ends with the weights of an undisturbed one (same machine, one device).

    Args:
      experiment: what to train.
      model_dir: of this run alone: experiment.json, metrics.json (a record an evaluation), checkpoints, TensorBoard.
      data_dir: where the dataset lies.
      options: where and how fast.
      extend: train a finished run for more epochs, if that is the only difference.
      operative_config: text that is kept in model_dir as config.gin.
      report: called with each line of progress.

    Returns:
      The evaluation of the last weights on the test images.

    Raises:
      InputError: bad input; nothing has been written over then.
      RunError: the loss or a gradient was not finite; the last good checkpoint stays.
    """
    run = _Run(experiment, pathlib.Path(model_dir), data_dir, options or Options(), extend, report)
    if operative_config is not None:
        files.write_text(run.model_dir / "config.gin", operative_config)
    with reading(), Interrupts() as interrupts:
        run.train(interrupts)
    return run.finish()


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
    ) -> None:
        self.experiment, self.options, self.report, self.model_dir = experiment, options, report, model_dir
        self.data_dir = data_dir
        _ = experiment.view_policies  # an unknown one is refused before data are read
        source = self._open("train", on_error=options.on_error)
        experiment.check_classes(source)
        tell_unusual(source, report=report)
        self.pipeline = make_pipeline(experiment, self._cached(source), on_error=options.on_error)
        warm_up = threading.Thread(target=self.pipeline.warm_up, daemon=True)  # while the model is built
        warm_up.start()
        self.steps_per_epoch = self.pipeline.steps_per_epoch
        self.total_steps = experiment.epochs * self.steps_per_epoch
        self.strategy = make_strategy(options.strategy)
        self._check_shares()
        with self.strategy.scope():
            self.model = make_model(
                experiment, num_classes=source.num_classes, steps_per_epoch=self.steps_per_epoch, options=options
            )
        if experiment.warm_start and Checkpoints(model_dir / "checkpoints").last() is None:  # refused before the claim
            report(warm_start(self.model.stack, experiment.warm_start))
            self.model.reset_ema()
        self.run = claim_model_dir(model_dir, experiment, source, extend=extend)
        files.remove_unfinished(model_dir)
        self.checkpoints = Checkpoints(model_dir / "checkpoints", keep=options.keep_checkpoints)
        self.checkpoints.remove_unfinished()
        self.state = {
            "stack": self.model.stack.variables,
            "optimizer": self.model.optimizer.variables,
            "run": [self.model.step, self.model.bad_steps, *self.model.means.variables],
            **({"ema": self.model.ema} if self.model.ema else {}),
        }
        self.step = self._resume()
        self._mark_best()  # a killed run may have saved its best without saying so
        self.watch_split = "held_out" if experiment.held_out else "test"
        self.predict = Predictor(self.model.stack, experiment.ensembling, strategy=self.strategy, jit=options.jit)
        self._sources: dict[str, Source] = {}
        self.times = StepTimes()
        self._writers = {
            name: tf.summary.create_file_writer(str(model_dir / "tensorboard" / name))
            for name in ("train", "evaluation")
        }

    def train(self, interrupts: Interrupts) -> None:
        """Runs the remaining steps, with logs, evaluations and checkpoints between them."""
        step_function = self._step_function()
        progress = Progress(
            self.step, self.total_steps, self.steps_per_epoch, self.options.progress_seconds, self.report
        )
        dataset = self.pipeline.dataset(self.step, self.total_steps, threads=self.options.threads)
        if self.step < self.total_steps:
            self.report(self._input_told())
        if self.step == 0 and self.options.contact_sheet:
            self._show_views()
        bad_steps = tf.zeros([], tf.int64)
        for batch in self.times.batches(distributed(dataset, self.strategy)):
            before, bad_steps = bad_steps, step_function(batch)
            # The step before last's: reading this one's would keep a GPU waiting.
            self._check_finite(before)
            self.step += 1
            self.times.done()
            progress.show(self.step, self.model, self.times)
            if self.step % self.options.log_every == 0 or self.step == self.total_steps:
                self._log_training()
            interrupts.check()
            self._between_steps(bad_steps)
            interrupts.check()
        self._writers["train"].flush()

    def _input_told(self) -> str:
        """What the input takes, in one line."""
        batches, megabytes = self.pipeline.batches_at_once(self.options.threads), self.pipeline.batch_bytes / 2**20
        return f"views: {batches + 2} batches of {megabytes:.1f} MB in memory at most, {batches} made at once"

    def _show_views(self) -> None:
        with self._writers["train"].as_default(step=0):
            tf.summary.image("views", contact_sheet(self.pipeline)[None])

    def finish(self) -> Evaluation:
        """Evaluates the last weights on the test images."""
        return self._evaluate("test")

    def _open(self, split: str, **how: Any) -> Source:
        options = self.options
        return self.experiment.open(
            split,
            data_dir=self.data_dir,
            memory_budget=options.memory_budget,
            index_dir=options.cache_dir,
            report=self.report,
            **how,
        )

    def _cached(self, source: Source) -> Source:
        options, policies = self.options, self.experiment.view_policies
        first = policies[0] if isinstance(policies, tuple) else policies
        return cached(
            source,
            stored=first.resized_crop is not None,
            memory_budget=options.memory_budget,
            cache_dir=options.cache_dir,
            threads=options.threads,
            report=self.report,
        )

    def _check_shares(self) -> None:
        parts = self.strategy.num_replicas_in_sync * self.options.micro_batches
        if self.experiment.batch_size % parts:
            raise InputError(
                f"The batch does not divide into {self.strategy.num_replicas_in_sync} replicas of "
                f"{self.options.micro_batches} micro-batches. Received: batch_size={self.experiment.batch_size}; "
                f"a multiple of {parts} would work."
            )

    def _resume(self) -> int:
        found = self.checkpoints.last()
        if found is None:
            return 0
        found.restore(self.state)
        self.report(f"going on from step {found.step} of {self.total_steps} ({found.path})")
        return found.step

    def _step_function(self) -> Callable[[Any], tf.Tensor]:
        strategy, model = self.strategy, self.model

        @tf.function(autograph=False)  # nothing to convert, and converting takes seconds
        def step(batch: Any) -> tf.Tensor:
            strategy.run(model.train_step, args=(batch,))
            return tf.identity(model.bad_steps.value)

        return step

    def _check_finite(self, bad_steps: tf.Tensor) -> None:
        if int(bad_steps) > self.options.max_bad_steps:
            last = self.checkpoints.last()
            kept = f"the last good checkpoint is {last.path}" if last else "no checkpoint has been written yet"
            raise RunError(
                f"The loss or a gradient is not finite. Received: {int(bad_steps)} such steps in a row at step "
                f"{self.step}, max_bad_steps={self.options.max_bad_steps}; {kept}; a lower learning rate may help."
            )

    def _log_training(self) -> None:
        values = {name: float(value) for name, value in self.model.means.result().items()}
        values["learning_rate"] = float(self.model.optimizer.learning_rate)
        values["cotraining_weight"] = float(self.model.cotraining_weight())
        values["data_wait"] = self.times.data_wait(since_asked=True)
        self.model.means.reset_state()
        with self._writers["train"].as_default(step=self.step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def _between_steps(self, bad_steps: tf.Tensor) -> None:
        """Evaluates and saves when it is time. Evaluation comes first: what a checkpoint is past has its record."""
        options, last = self.options, self.step == self.total_steps
        epoch, into_epoch = divmod(self.step, self.steps_per_epoch)
        evaluates = last or bool(options.evaluate_every and not into_epoch and epoch % options.evaluate_every == 0)
        chooses = evaluates and self.watch_split == "held_out"
        saves = last or chooses or self.step % (options.checkpoint_every or self.steps_per_epoch) == 0
        if evaluates or saves:
            self._check_finite(bad_steps)
        if not into_epoch and self.pipeline.replaced:
            replaced = list(self.pipeline.replaced.values())
            self.report(f"epoch {epoch}: {len(replaced)} images so far cannot be read and are replaced: {replaced[0]}")
        if evaluates:
            self._evaluate(self.watch_split)
        if saves:
            self.checkpoints.save(self.step, self.state)
        if chooses:
            self._mark_best()

    def _mark_best(self) -> None:
        """Makes this step's checkpoint the best, if its accuracy on the held-out images is."""
        record, checkpoint = self._record("held_out"), self.checkpoints.last()
        if record and checkpoint:
            self.checkpoints.mark_best(checkpoint, record["accuracy"])

    def _record(self, split: str) -> dict[str, Any] | None:
        """This step's record of `split`, if it has been evaluated."""
        return next((r for r in self.run.records if (r["step"], r["split"]) == (self.step, split)), None)

    def _evaluate(self, split: str) -> Evaluation:
        """Evaluates and records, unless this step's record of the split is there already."""
        known = self._record(split)
        if known:
            fields = {field.name: known[field.name] for field in dataclasses.fields(Evaluation)}
            return Evaluation(**{**fields, "branch_accuracies": tuple(fields["branch_accuracies"])})
        if split not in self._sources:
            self._sources[split] = self._open(split)
        evaluation = score(
            self.predict,
            self.experiment,
            self._sources[split],
            split=split,
            batch_size=self.options.eval_batch_size,
            weights=f"last step {self.step}",
        )
        seconds = self.times.seconds_per_step
        evaluation = dataclasses.replace(
            evaluation, seconds_per_step=self.run.seconds_per_step if seconds is None else seconds
        )
        epoch = self.step / self.steps_per_epoch
        record = {"step": self.step, "epoch": epoch, **dataclasses.asdict(evaluation)}
        files.write_json(self.model_dir / METRICS, [*self.run.records, record])
        with self._writers["evaluation"].as_default(step=self.step):
            for name in ("accuracy", "negative_log_likelihood", "calibration_error"):
                tf.summary.scalar(f"{split}/{name}", getattr(evaluation, name))
            for branch, value in enumerate(evaluation.branch_accuracies):
                tf.summary.scalar(f"{split}/branch{branch}_accuracy", value)
        self._writers["evaluation"].flush()
        self.report(
            f"epoch {epoch:g}: {split} accuracy {evaluation.accuracy:.4f}, "
            f"best branch {max(evaluation.branch_accuracies):.4f}, NLL {evaluation.negative_log_likelihood:.4f}"
        )
        return evaluation


def make_pipeline(experiment: Experiment, source: Source, *, on_error: str = "raise") -> ViewPipeline:
    """The training views of an experiment.

    Raises:
      InputError: the source, or an argument, does not fit.
    """
    names = ("batch_size", "split_factor", "seed", "preprocessing", "mixup_alpha", "cutmix_alpha", "mix_block")
    return ViewPipeline(
        source,
        policy=experiment.view_policies,
        identical_views=experiment.identical_views,
        batch_operations=experiment.batch_operations,
        on_error=on_error,
        **{name: getattr(experiment, name) for name in names},
    )


def make_model(
    experiment: Experiment, *, num_classes: int, steps_per_epoch: int, options: Options | None = None
) -> CoTrainingModel:
    """The model of an experiment, compiled, with initial weights."""
    options = options or Options()
    model = CoTrainingModel(
        experiment.build(num_classes),
        cotraining=experiment.cotraining,
        steps_per_epoch=steps_per_epoch,
        ensembling=experiment.ensembling,
        label_smoothing=experiment.label_smoothing,
        micro_batches=options.micro_batches,
        jit=options.jit,
        seed=experiment.seed,
        ema_decay=experiment.ema_decay,
    )
    schedule = experiment.learning_rate.resolve(
        epochs=experiment.epochs, steps_per_epoch=steps_per_epoch, batch_size=experiment.batch_size
    )
    model.compile(experiment.optimizer.build(schedule, split_factor=experiment.split_factor))
    return model
