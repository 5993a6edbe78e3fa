"""Runs of seconds: a tiny network on digits, five steps an epoch."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from divco_tf.runs.evaluation import Evaluation
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.loop import train
from divco_tf.runs.model_dir import load, open_model_dir
from divco_tf.runs.options import Options
from divco_tf.runs.records.checkpoints import Checkpoints
from divco_tf.runs.records.metrics_json import Records
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.learning_rate import LearningRate
from divco_tf.training.optim.optimizer import OptimizerConfig
from tests import tiny  # noqa: F401  (registers the backbones "tiny" and "tiny_no_norm")

STEPS_PER_EPOCH = 5


def experiment(**changes: Any) -> Experiment:
    """Two tiny branches with dropout, mixup, momentum and a ramping co-training loss, for two epochs."""
    described = {
        "backbone": "tiny",
        "dataset": "digits",
        "split_factor": 2,
        "overrides": {"dropout": 0.2},
        "mixup_alpha": 0.2,
        "cotraining": CoTraining(warmup_epochs=1),
        "optimizer": OptimizerConfig(weight_decay=5e-4),
        "learning_rate": LearningRate(learning_rate=0.05),
        "epochs": 2,
        "batch_size": 256,
        **changes,
    }
    return Experiment(**described)


def run(model_dir: pathlib.Path, described: Experiment | None = None, **arguments: Any) -> Evaluation:
    """`train` without a word, on one thread and with a checkpoint every second step, unless told otherwise."""
    known = {field.name for field in dataclasses.fields(Options)}
    options = {"threads": 1, "checkpoint_every": 2, **{key: arguments.pop(key) for key in known & set(arguments)}}
    arguments = {"report": lambda line: None, **arguments}
    return train(described or experiment(), model_dir=model_dir, options=Options(**options), **arguments)


def final_weights(model_dir: pathlib.Path, weights: str = "last") -> list[np.ndarray]:
    """Every weight and statistic of a run."""
    return [variable.numpy() for variable in load(model_dir, weights=weights).variables]


def records(model_dir: pathlib.Path) -> list[dict[str, Any]]:
    """What metrics.json holds, without what a clock says."""
    kept = json.loads((model_dir / "metrics.json").read_text())
    return [{key: value for key, value in record.items() if not key.startswith("seconds")} for record in kept]


def assert_same_run(one: pathlib.Path, other: pathlib.Path) -> None:
    """Bit-identical weights, the same records, the same best."""
    for a, b in zip(final_weights(one), final_weights(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert records(one) == records(other)
    assert best(one) == best(other)


def best(model_dir: pathlib.Path) -> dict[str, Any] | None:
    """Step and accuracy of the best checkpoint."""
    run = open_model_dir(model_dir)
    found = run.best_checkpoint
    if found is None:
        return None
    record = Records(model_dir).find(found.step, "held_out")
    return {"step": found.step, "accuracy": record["accuracy"]}


def assert_nothing_is_half_written(model_dir: pathlib.Path) -> None:
    """What lies under a final name is whole: every JSON parses, every checkpoint restores into a fresh stack."""
    for path in model_dir.rglob("*.json"):
        if ".unfinished-" not in str(path):
            json.loads(path.read_text())
    folders = list((model_dir / "checkpoints").glob("[0-9]*"))
    complete = Checkpoints(model_dir / "checkpoints").all()
    assert sorted(folders) == [checkpoint.path for checkpoint in complete]
    if complete:
        described = json.loads((model_dir / "experiment.json").read_text())["identity"]
        stack = experiment(backbone=described["backbone"], split_factor=described["split_factor"]).build(10)
        for checkpoint in complete:
            checkpoint.restore({"stack": stack.variables}, partial=True)
