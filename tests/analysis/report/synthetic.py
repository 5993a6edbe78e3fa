"""Sweeps that nobody trained: rows and judged answers of simulated branches, made in milliseconds."""

import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from divco_tf.analysis.grid import cell_name
from divco_tf.analysis.judged import judged, save_judged
from divco_tf.analysis.metrics import all_metrics
from divco_tf.analysis.outputs import Outputs
from divco_tf.data.sources import open_source

VERSIONS = {"python": "3.11.7", "divco_tf": "0.3.0", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6"}
EXPERIMENT = {
    **{"backbone": "wide_resnet10_2", "dataset": "digits", "split_factor": 1, "held_out": 0.1, "image_size": 8},
    **{"cotraining": {"loss": "js", "weight": 0.5}, "dropout_samples": 0, "seed": 0, "overrides": {}},
}
ARMS = ({"split_factor": 1}, {"split_factor": 4}, {"split_factor": 4, "cotraining.loss": "none"})


def outputs(
    labels: np.ndarray, *, split_factor: int, skill: float, shared: float = 0.6, seed: int = 0, num_classes: int = 10
) -> Outputs:
    """Branches whose mistakes are partly the images' (the same for all arms and seeds), and partly their own."""
    images, own = np.random.default_rng(7), np.random.default_rng([seed, split_factor, int(1000 * skill)])
    hard = images.normal(size=(len(labels), 1, num_classes))
    noise = shared * hard + (1 - shared) * own.normal(size=(len(labels), split_factor, num_classes))
    logits = (4 * noise + skill * np.eye(num_classes)[labels][:, np.newaxis]).astype(np.float32)
    mean = logits.mean(axis=1, dtype=np.float64)
    probabilities = np.exp(mean - mean.max(axis=1, keepdims=True))
    return Outputs(logits, probabilities / probabilities.sum(axis=1, keepdims=True), labels)


def done(arguments: Mapping[str, Any], found: Mapping[str, Outputs], *, curve: int = 1, **more: Any) -> dict[str, Any]:
    """The row of a cell."""
    metrics = {}
    for split, each in found.items():
        metrics[split] = all_metrics(each.logits, each.probabilities, each.labels)
        classes = each.logits.argmax(axis=2)
        metrics[split]["branch_accuracies"] = np.mean(classes == each.labels[:, None], axis=0).tolist()
    split_factor, accuracy = arguments["split_factor"], next(iter(metrics.values()))["accuracy"]
    points = [
        {
            **{"step": 100 * point, "split": "held_out", "accuracy": accuracy * (1 - 0.5**point)},
            "negative_log_likelihood": 0.4 + 2 * 0.5**point,
        }
        for point in range(1, curve + 1)
    ]
    return {
        **{"cell": cell_name(arguments), "arguments": dict(arguments), "status": "done"},
        **{"backbone": "wide_resnet10_2", "dataset": "digits", "split_factor": split_factor},
        **{"seed": arguments.get("seed", 0), "parameters": 304154 + 2000 * split_factor},
        **{"multiply_adds": 2781440 + 80000 * split_factor, "steps": 100 * curve, "seconds_per_step": 0.02},
        **{"curve": points, "versions": VERSIONS, "seconds": 5.0, **metrics, **more},
    }


def failed(arguments: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """The row of a cell that failed."""
    return {"cell": cell_name(arguments), "arguments": dict(arguments), "status": "failed", "reason": reason}


def sweep(
    folder: pathlib.Path,
    *,
    arms: Iterable[Mapping[str, Any]] = ARMS,
    seeds: Iterable[int] = range(3),
    amounts: Iterable[int | None] = (None,),
    failures: Iterable[Mapping[str, Any]] = (),
    labels: np.ndarray | None = None,
    curve: int = 1,
    **more: Any,
) -> pathlib.Path:
    """A sweep's folder, as `divco-sweep` leaves it to a repository: rows, judged answers and its record."""
    labels = open_source("digits", "test").labels if labels is None else labels
    (folder / "judged").mkdir(parents=True)
    rows = [failed(arguments, "the loss is not finite") for arguments in failures]
    for amount, arm, seed in itertools.product(amounts, arms, seeds):
        arguments = {**arm, "seed": seed, **({} if amount is None else {"train_images": amount})}
        # More images make better networks; apart, branches differ more.
        skill = 6.5 + (0 if amount is None else 0.8 * np.log(amount / 1000)) + 0.02 * seed
        own = {"skill": skill, "shared": 0.5 if "cotraining.loss" in arm else 0.6, "seed": seed}
        found = {"test": outputs(labels, split_factor=arm["split_factor"], **own)}
        rows.append(done(arguments, found, curve=curve, **more))
        path = folder / "judged" / f"{cell_name(arguments)}.npz"
        save_judged(path, {split: judged(each) for split, each in found.items()})
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sweep.json").write_text(json.dumps({"experiment": EXPERIMENT, "versions": VERSIONS}))
    return folder
