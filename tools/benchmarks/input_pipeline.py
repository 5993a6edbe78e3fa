"""`divco-benchmark input`: what views cost a training step, and how much of it the step waits for them."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from divco_tf.data.sources import ArraySource, open_source
from divco_tf.data.views.policies import POLICIES
from divco_tf.runs.assemble import make_model, make_pipeline
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.progress import StepTimes
from divco_tf.runtime.compute import share_cores
from divco_tf.tools.benchmarks.views import made_up
from divco_tf.training.optim.learning_rate import LearningRate
from divco_tf.training.optim.optimizer import OptimizerConfig

PLAIN = "crop_flip"
VIEWS = (PLAIN, "cifar10_no_autoaugment", "cifar10")


def run(
    *,
    report: Callable[[str], None],
    backbone: str = "wide_resnet40_1",
    split_factor: int = 4,
    data_dir: str | None = None,
    rounds: int = 5,
    steps: int = 10,
) -> dict[str, Any]:
    """Trains one network with each policy in turn; see the module `benchmark`.

    Args:
      backbone: a registered one.
      split_factor: S.
      data_dir: of a prepared CIFAR-10; None: made-up photographs.
      rounds: in which every policy takes its turn.
      steps: a turn.
      report: is told how it goes on.

    Returns:
      head and rows of the table, and what JSON holds: settings, systems by policy.
    """
    threads = share_cores(split_factor)
    source = open_source("cifar10", "train", data_dir=data_dir) if data_dir else made_up()
    systems: dict[str, dict[str, Any]] = {}
    step, turns = _step(_experiment(backbone, split_factor, PLAIN)), {}
    for views in VIEWS:
        times = StepTimes()
        turns[views] = _turns(step, _experiment(backbone, split_factor, views), source, times, steps)
        systems[views] = {"rounds": [], "times": times}
        next(turns[views])  # the first batch is not made ahead
    for _ in range(rounds):
        for views, turn in turns.items():
            systems[views]["rounds"].append(next(turn))
        report(", ".join(f"{views} {1e3 * system['rounds'][-1]:.1f} ms" for views, system in systems.items()))
    for system in systems.values():
        system["wait"] = system.pop("times").data_wait()
    return {
        "head": ("views", "a step ms", f"of {PLAIN}", "waits for data", "fastest ms"),
        "rows": list(_rows(systems)),
        "settings": {"backbone": backbone, "split_factor": split_factor, "steps": steps, "cpu_threads": threads},
        "systems": systems,
    }


def _experiment(backbone: str, split_factor: int, views: str) -> Experiment:
    """The recipe of the CIFAR-10 pair for a laptop."""
    return Experiment(
        backbone=backbone,
        dataset="cifar10",
        split_factor=split_factor,
        views=views,
        epochs=10,
        batch_size=128,
        optimizer=OptimizerConfig(weight_decay=5e-4),
        learning_rate=LearningRate(warmup_epochs=1),
    )


def _step(experiment: Experiment) -> Callable[[Any], Any]:
    model = make_model(experiment, num_classes=10, steps_per_epoch=390)
    return tf.function(model.train_step, autograph=False)


def _turns(
    step: Callable[[Any], Any], experiment: Experiment, source: ArraySource, times: StepTimes, steps: int
) -> Iterator[float]:
    """Seconds a step, of so many steps each time that it is asked."""
    batches = times.batches(make_pipeline(experiment, source).dataset(0, 2**40))
    while True:
        start = time.perf_counter()
        for batch in itertools.islice(batches, steps):
            tf.nest.map_structure(lambda metric: metric.numpy(), step(batch))
            times.done()
        yield (time.perf_counter() - start) / steps


def _rows(systems: dict[str, dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    plain = systems[PLAIN]["rounds"]
    for views, system in systems.items():
        seconds = system["rounds"]
        ratio = statistics.median(a / b for a, b in zip(seconds, plain, strict=True))
        augment = ", ".join(POLICIES[views].augment)
        yield (
            f"{views} ({augment})" if augment else views,
            f"{1e3 * statistics.median(seconds):.1f}",
            f"{ratio:.3f}",
            f"{system['wait']:.2%}",
            f"{1e3 * min(seconds):.1f}",
        )
