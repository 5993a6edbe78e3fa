"""What a run is put together from: an experiment's views, and its model."""

from divco_tf.data.pipeline import ViewPipeline
from divco_tf.data.sources import Source
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.options import Options
from divco_tf.runtime.strategy import branch_devices
from divco_tf.training.cotraining import CoTrainingModel


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
    schedule = experiment.learning_rate.resolve(
        epochs=experiment.epochs, steps_per_epoch=steps_per_epoch, batch_size=experiment.batch_size
    )
    model.compile(experiment.optimizer.build(schedule, split_factor=experiment.split_factor))
    return model
