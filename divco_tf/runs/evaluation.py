"""How good a network's predictions are: every image of a split counted once."""

import dataclasses
import pathlib
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from divco_tf import fields
from divco_tf.data.datasets import ALL
from divco_tf.data.sources import Source
from divco_tf.data.streams import evaluation_dataset, reading
from divco_tf.models import draws
from divco_tf.models.branch_stack import BranchStack
from divco_tf.models.layers.stochastic import sample_dropout
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import ModelDir, load, open_model_dir
from divco_tf.runtime.compute import resolve_jit
from divco_tf.runtime.strategy import make_strategy
from divco_tf.training import losses, metrics


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Figures over one split.

    Attributes:
      split: "train", "held_out", "test" or "all".
      images: how many.
      accuracy: the ensemble's, 0..1.
      branch_accuracies: each branch's.
      negative_log_likelihood: the ensemble's, nats an image.
      calibration_error: the ensemble's expected calibration error, 15 bins.
      seconds: of reading and predicting.
      weights: whose they are.
      seconds_per_step: the median of the training that made the weights, waiting for data included; None: not known.
    """

    split: str
    images: int
    accuracy: float
    branch_accuracies: tuple[float, ...]
    negative_log_likelihood: float
    calibration_error: float
    seconds: float
    weights: str
    seconds_per_step: float | None = None


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a network answers to each image of a split.

    Attributes:
      probabilities: of the ensemble, float32 [N, K].
      branch_classes: each branch's answers, int64 [N, S]; S = 0 where they are not known.
      source: of the images: their labels, the names of their classes, and their own.
    """

    probabilities: np.ndarray
    branch_classes: np.ndarray
    source: Source

    @property
    def labels(self) -> np.ndarray:
        """The right classes, int64 [N]."""
        return self.source.labels

    @property
    def correct(self) -> np.ndarray:
        """Whether the ensemble is right, bool [N]."""
        return self.probabilities.argmax(axis=1) == self.labels

    @property
    def images(self) -> tuple[Any, ...]:
        """What tells these images from others, as far as labels and names do."""
        count = len(self.labels)
        names = (self.source.name_of(index) for index in (0, count // 2, count - 1))
        return count, zlib.crc32(self.labels.tobytes()), *names


def evaluate(
    model_dir: str | pathlib.Path,
    *,
    data_dir: str | None = None,
    split: str = "test",
    weights: str = "last",
    batch_size: int = 500,
    strategy: str = "auto",
    jit: str = "auto",
) -> Evaluation:
    """Evaluates the run in `model_dir`.

    Args:
      model_dir: of `train`.
      data_dir: where the run's dataset lies.
      split: "test", "held_out" or "train"; "all": every image of a folder of classes that has no splits.
      weights: "last", "best" or "ema".
      batch_size: global; the figures do not depend on it.
      strategy, jit: see `runtime.strategy` and `runtime.compute`.

    Raises:
      InputError: no run, no such weights, no data, or data of other classes.
    """
    chosen = {"data_dir": data_dir, "split": split, "weights": weights, "strategy": strategy, "jit": jit}
    return evaluate_in_full(model_dir, batch_size=batch_size, **chosen)[0]


def evaluate_in_full(
    model_dir: str | pathlib.Path, *, split: str, batch_size: int, **chosen: Any
) -> tuple[Evaluation, Answers]:
    """The figures of `evaluate`, and the answers that they are of; all its arguments are to be given."""
    batch_size = fields.checked(batch_size, int, "batch_size")
    run, source, predict, used = opened(model_dir, split=split, **chosen)
    start = time.monotonic()
    found = answers(predict, run.experiment, source, batch_size=batch_size)
    evaluation = figures(found, split=split, seconds=time.monotonic() - start, weights=used)
    return dataclasses.replace(evaluation, seconds_per_step=run.seconds_per_step), found


def opened(
    model_dir: str | pathlib.Path, *, data_dir: str | None, split: str, weights: str, strategy: str, jit: str
) -> tuple[ModelDir, Source, "Predictor", str]:
    """What it takes to predict a run's images: the run, the split, a predictor, and whose weights it has.

    Args:
      model_dir, data_dir, split, weights, strategy, jit: as `evaluate`'s.

    Raises:
      InputError: no run, no such weights, no data, or data of other classes.
    """
    run = open_model_dir(model_dir)
    placement = make_strategy(strategy)
    with placement.scope():
        stack = load(model_dir, weights=weights)
    experiment = run.experiment
    source = experiment.open(split, data_dir=data_dir).ordered_as(run.class_names, some=split == ALL)
    run.check_classes(source)
    predict = predictor(stack, experiment, strategy=placement, jit=jit)
    return run, source, predict, stack.weights_from.removeprefix(f"{model_dir} ")


class Predictor:
    """Images [N, H, W, C], normalised -> ensemble probabilities [N, K] and branches' logits [N, S, K], as arrays.

    One traced function, whatever the number of calls; batches are shared out over the strategy's replicas, whose
    shares may be uneven or empty. With T `samples` of dropout there are T x S branches, and what is drawn is a
    function of the seed and the image's place.
    """

    def __init__(
        self,
        stack: BranchStack,
        ensembling: str,
        *,
        strategy: tf.distribute.Strategy,
        jit: str = "auto",
        samples: int = 0,
        seed: int = 0,
    ) -> None:
        self._strategy = strategy
        jit_compile = resolve_jit(jit)
        if samples:
            sample_dropout(stack.network.template)

        def predict(images: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            weights, statistics = (
                [tf.convert_to_tensor(variable.value) for variable in variables]
                for variables in (stack.branch_weights, stack.branch_statistics)
            )

            def sampled(sample: int) -> tf.Tensor:
                keys = [
                    draws.draw_keys(seed=seed, step=tf.constant(sample), branch=branch, positions=positions)
                    for branch in range(stack.split_factor)
                ]
                keys = keys if samples else None
                return stack.run(weights, statistics, images, keys, training=False, jit=jit_compile)[0]

            logits = tf.concat([sampled(sample) for sample in range(samples or 1)], axis=1)
            return losses.ensemble_probabilities(logits, ensembling), logits

        def everywhere(images: Any, positions: Any) -> tuple[Any, Any]:
            results = strategy.run(predict, args=(images, positions))
            if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):  # every worker gets all images' results
                results = tuple(strategy.gather(result, axis=0) for result in results)
            return results

        self._function = tf.function(everywhere, autograph=False, reduce_retracing=True)

    def __call__(self, batches: Iterable[tf.Tensor]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Predicts batch by batch."""
        distributed, done = self._strategy.num_replicas_in_sync > 1, 0
        for images in batches:
            batch = images, tf.range(done, done + len(images))
            done += len(images)
            if distributed:
                batch = map(self._shares, batch)
            results = [self._strategy.experimental_local_results(result) for result in self._function(*batch)]
            yield tuple(np.concatenate([part.numpy() for part in result]) for result in results)

    def _shares(self, values: tf.Tensor) -> Any:
        shares = np.array_split(values.numpy(), self._strategy.num_replicas_in_sync)
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.convert_to_tensor(shares[context.replica_id_in_sync_group])
        )


def predictor(
    stack: BranchStack, experiment: Experiment, *, strategy: tf.distribute.Strategy, jit: str = "auto"
) -> Predictor:
    """That of an experiment's stack."""
    return Predictor(
        stack,
        experiment.ensembling,
        strategy=strategy,
        jit=jit,
        samples=experiment.dropout_samples,
        seed=experiment.seed,
    )


def score(
    predict: Callable[[Iterable[tf.Tensor]], Iterable[tuple[np.ndarray, np.ndarray]]],
    experiment: Experiment,
    source: Source,
    *,
    split: str,
    batch_size: int,
    weights: str,
    check: Callable[[], None] = lambda: None,
) -> Evaluation:
    """The figures of what `predict` makes of `source`'s images; `check` is called after each batch, and may raise.

    Raises:
      InputError: an image cannot be read.
    """
    start = time.monotonic()
    found = answers(predict, experiment, source, batch_size=batch_size, check=check)
    return figures(found, split=split, seconds=time.monotonic() - start, weights=weights)


def answers(
    predict: Callable[[Iterable[tf.Tensor]], Iterable[tuple[np.ndarray, np.ndarray]]],
    experiment: Experiment,
    source: Source,
    *,
    batch_size: int,
    check: Callable[[], None] = lambda: None,
) -> Answers:
    """What `predict` makes of `source`'s images; `check` is called after each batch, and may raise.

    Raises:
      InputError: an image cannot be read.
    """
    dataset = evaluation_dataset(source, batch_size=batch_size, preprocess=experiment.preprocessing)
    probabilities, classes = [], []
    with reading():
        for ensemble, branches in predict(images for images, _ in dataset):
            probabilities.append(ensemble)
            classes.append(branches.argmax(axis=-1))
            check()
    return Answers(np.concatenate(probabilities), np.concatenate(classes), source)


def figures(answers: Answers, *, split: str, seconds: float, weights: str) -> Evaluation:
    """The figures of answers; `split`, `seconds` and `weights` are recorded."""
    probabilities, labels = answers.probabilities, answers.labels
    return Evaluation(
        split=split,
        images=len(labels),
        accuracy=metrics.accuracy(probabilities, labels),
        branch_accuracies=tuple(
            float(right) for right in np.mean(answers.branch_classes == labels[:, np.newaxis], axis=0)
        ),
        negative_log_likelihood=metrics.negative_log_likelihood(probabilities, labels),
        calibration_error=metrics.expected_calibration_error(probabilities, labels),
        seconds=seconds,
        weights=weights,
    )
