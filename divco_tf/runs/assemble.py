"""What a run is put together from: an experiment's images, views, and model."""

import dataclasses
import functools
import pathlib
import threading
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from divco_tf import files
from divco_tf.data.order import ORDER
from divco_tf.data.pipeline import ViewPipeline
from divco_tf.data.sources import Source, cached
from divco_tf.data.sources.check import tell_unusual
from divco_tf.runs.checks import check_evaluated, check_places, check_settings
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.options import Options
from divco_tf.runs.records.experiment_json import bearing
from divco_tf.runtime.job import Job
from divco_tf.runtime.strategy import branch_devices, check_workers, make_strategy
from divco_tf.training.cotraining import CoTrainingModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run trains with.

    Attributes:
      model_dir: of the run.
      job: this process's place among the workers.
      sources: the images of each split that the run reads.
      report: called with each line of progress.
    """

    experiment: Experiment
    options: Options
    model_dir: pathlib.Path
    strategy: tf.distribute.Strategy
    job: Job
    sources: Mapping[str, Source]
    pipeline: ViewPipeline
    model: CoTrainingModel
    report: Callable[[str], None]

    @property
    def watched_split(self) -> str:
        """The one that is evaluated while the run trains."""
        return "held_out" if self.experiment.held_out else "test"

    @property
    def last_split(self) -> str:
        """The one that the last weights are evaluated on."""
        return "test" if self.options.evaluate_test else "held_out"

    @property
    def state(self) -> dict[str, list[keras.Variable]]:
        """All that a checkpoint holds, by group."""
        model = self.model
        return {
            "stack": model.stack.variables,
            "optimizer": model.optimizer.variables,
            "run": [model.step, model.bad_steps, *model.means.variables],
            **({"ema": model.ema} if model.ema else {}),
        }

    @property
    def way(self) -> dict[str, Any]:
        """How the run computes, as far as it bears on the result."""
        replicas = self.strategy.num_replicas_in_sync
        return {"computed": bearing(self.experiment, self.options, replicas=replicas), "order": ORDER}


def assemble(
    experiment: Experiment,
    options: Options,
    *,
    model_dir: pathlib.Path,
    data_dir: str | None,
    extend: bool,
    lock: files.FolderLock,
    report: Callable[[str], None],
    check: Callable[[], None],
) -> Parts:
    """Opens the images and builds the model; what `train` refuses is refused here, before anything is written.

    Args:
      experiment, options, model_dir, data_dir, extend, report: as `train`'s.
      lock: of model_dir; taken where a run lies there already.
      check: called now and then; may raise.

    Raises:
      InputError: as `train` does.
    """
    check_workers(options.strategy)
    strategy = make_strategy(options.strategy)  # several workers': before TensorFlow computes anything
    job = Job(strategy)
    check_settings(experiment, options, replicas=strategy.num_replicas_in_sync)
    if check_places(experiment, model_dir, extend=extend, writes=job.chief) and job.chief:
        lock.acquire("model_dir", report=report)

    def told_meanwhile(line: str) -> None:
        """A line of what may take minutes, and a chance to end it."""
        report(line)
        check()

    sources = open_splits(experiment, options, model_dir=model_dir, data_dir=data_dir, report=told_meanwhile)
    for note in notes(sources):
        report(note)
    train = sources["train"]
    tell_unusual(train, report=report)
    kept = _cached(train, experiment, options, report=told_meanwhile)
    pipeline = make_pipeline(experiment, kept, on_error=options.on_error, part=job.part)
    threading.Thread(target=functools.partial(pipeline.warm_up, report=report), daemon=True).start()
    check()
    with strategy.scope():
        steps = pipeline.steps_per_epoch
        model = make_model(experiment, num_classes=train.num_classes, steps_per_epoch=steps, options=options)
    return Parts(
        experiment=experiment,
        options=options,
        model_dir=model_dir,
        strategy=strategy,
        job=job,
        sources=sources,
        pipeline=pipeline,
        model=model,
        report=report,
    )


def open_splits(
    experiment: Experiment,
    options: Options,
    *,
    model_dir: pathlib.Path,
    data_dir: str | None,
    found: dict[str, Source] | None = None,
    **more: Any,
) -> dict[str, Source]:
    """All splits that a run reads: a fault of the test images is told before the first step, not after the last.

    Args:
      experiment, options, model_dir, data_dir: as `train`'s.
      found: is filled as far as there is no fault.
      more: of `open_source`, in place of what the options say.

    Raises:
      InputError: one cannot be read.
    """
    sources = {} if found is None else found
    writes = {"model_dir": model_dir, "cache_dir": options.cache_dir}
    how = {"memory_budget": options.memory_budget, "index_dir": options.cache_dir, **more}
    for split, source in experiment.open_splits(
        data_dir=data_dir,
        on_error=options.on_error,
        writes={name: path for name, path in writes.items() if path is not None},
        test=options.evaluate_test,
        **how,
    ):
        sources[split] = source
    check_evaluated(sources)
    return sources


def notes(sources: Mapping[str, Source]) -> list[str]:
    """What is to be said of the splits, each thing once."""
    return list(dict.fromkeys(note for source in sources.values() for note in source.notes))


def make_pipeline(
    experiment: Experiment, source: Source, *, on_error: str = "raise", part: tuple[int, int] = (0, 1)
) -> ViewPipeline:
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
        part=part,
        **{name: getattr(experiment, name) for name in names},
    )


def make_model(
    experiment: Experiment, *, num_classes: int, steps_per_epoch: int, options: Options | None = None
) -> CoTrainingModel:
    """The model of an experiment, compiled, with initial weights."""
    options = options or Options()
    model = CoTrainingModel(
        experiment.build(num_classes, devices=branch_devices(options.strategy, experiment.split_factor)),
        cotraining=experiment.cotraining,
        steps_per_epoch=steps_per_epoch,
        ensembling=experiment.ensembling,
        label_smoothing=experiment.label_smoothing,
        micro_batches=options.micro_batches,
        remat=options.remat,
        branches_in_turn=options.branches_in_turn,
        jit=options.jit,
        seed=experiment.seed,
        ema_decay=experiment.ema_decay,
    )
    schedule = experiment.schedule(steps_per_epoch)
    model.compile(experiment.optimizer.build(schedule, split_factor=experiment.split_factor))
    return model


def _cached(source: Source, experiment: Experiment, options: Options, *, report: Callable[[str], None]) -> Source:
    policies = experiment.view_policies
    first = policies[0] if isinstance(policies, tuple) else policies
    return cached(
        source,
        stored=first.resized_crop is not None,
        memory_budget=options.memory_budget,
        cache_dir=options.cache_dir,
        threads=options.threads,
        report=report,
    )
