"""Evaluates trained runs, or an exported SavedModel: divco-evaluate --model_dir runs/a,runs/b --data_dir data.

Prints a table with each branch's accuracy and the ensemble's, NLL and calibration error; every image counts once.
With --corruptions one more a run: its accuracy on images that are corrupted as CIFAR-10-C's are.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from divco_tf.data.datasets import SPLITS
from divco_tf.errors import InputError
from divco_tf.tools.shared import app, configs, streams

if TYPE_CHECKING:
    from divco_tf.analysis.robustness import Robustness

_MODEL_DIR = flags.DEFINE_multi_string(
    "model_dir", [], "The folder of a run; several are separated by commas, or given by a flag each."
)
_SAVED_MODEL = flags.DEFINE_string("saved_model", None, "An exported SavedModel; it or --model_dir is required.")
_DATASET = flags.DEFINE_string("dataset", None, "Of --saved_model, which requires it: the name of a dataset.")
_DATA_DIR = app.data_dir_flag()
_SPLIT = flags.DEFINE_enum("split", "test", sorted(SPLITS), "Which images.")
_WEIGHTS = flags.DEFINE_enum("weights", "last", ["last", "best", "ema"], "Of a run.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 500, "Images at once, over all devices; no figure depends on it.", lower_bound=1
)
_STRATEGY = flags.DEFINE_enum(
    "strategy",
    "auto",
    ["auto", "one_device", "mirrored", "multi_worker_mirrored", "tpu", "branch_parallel"],
    "Of a run: on which devices.",
)
_JIT = flags.DEFINE_enum("jit", "auto", ["auto", "on", "off"], "Of a run: XLA.")
_JSON = app.json_flag("Print JSON instead of a table.")
_QUIET = app.quiet_flag()
_CORRUPTIONS = flags.DEFINE_bool(
    "corruptions", False, "Of a run: also its accuracy on images corrupted in 15 ways, by 5 severities each."
)
_CORRUPTED_IMAGES = flags.DEFINE_integer(
    "corrupted_images", None, "With --corruptions: so many of the images, for all of them 75 times.", lower_bound=1
)

_OF_RUNS, _OF_EXPORTS = (_WEIGHTS, _STRATEGY, _JIT, _CORRUPTIONS, _CORRUPTED_IMAGES), (_DATASET,)


def main() -> None:
    """Evaluates what --model_dir or --saved_model names."""
    _check_flags()
    model_dirs = [folder for value in _MODEL_DIR.value for folder in _folders(value)]
    for folder in model_dirs:
        app.check_model_dir(folder)
    app.load_tensorflow()
    from divco_tf.tools.shared.tables import corruption_table, evaluation_table

    evaluations = _evaluate_export() if _SAVED_MODEL.value else _evaluate_runs(model_dirs)
    corrupted = _evaluate_corrupted(model_dirs) if _CORRUPTIONS.value else {}
    if _JSON.value:
        told = {name: dataclasses.asdict(evaluation) for name, evaluation in evaluations.items()}
        for name, robustness in corrupted.items():
            told[name]["corruptions"] = _as_json(robustness)
        app.print_json(told)
    else:
        print("\n\n".join([evaluation_table(evaluations), *map(corruption_table, corrupted, corrupted.values())]))


def _check_flags() -> None:
    if bool(_MODEL_DIR.value) == bool(_SAVED_MODEL.value):
        raise InputError(
            f"Give either --model_dir or --saved_model. Received: model_dir={','.join(_MODEL_DIR.value)!r}, "
            f"saved_model={_SAVED_MODEL.value!r}."
        )
    if _SAVED_MODEL.value and not _DATASET.value:
        raise InputError("--saved_model needs a --dataset to be evaluated on. Received: none; digits is one.")
    for flag in _OF_RUNS if _SAVED_MODEL.value else _OF_EXPORTS:
        if flags.FLAGS[flag.name].present:
            what = "--saved_model" if _SAVED_MODEL.value else "--model_dir"
            raise InputError(f"--{flag.name} is not of {what}. Received: {flag.value!r}; leaving it out works.")
    if _CORRUPTED_IMAGES.value is not None and not _CORRUPTIONS.value:
        raise InputError(
            f"--corrupted_images is of --corruptions. Received: {_CORRUPTED_IMAGES.value} without it; both would work."
        )


def _folders(value: str) -> list[str]:
    """The folders that one --model_dir names: itself where it is one, commas and all, else what commas separate."""
    if pathlib.Path(value).is_dir():
        return [value]
    return [folder for part in value.split(",") if (folder := part.strip())]


def _evaluate_runs(model_dirs: list[str]) -> dict:
    from divco_tf.runs.evaluation import evaluate

    return _of_each(model_dirs, evaluate)


def _evaluate_corrupted(model_dirs: list[str]) -> dict:
    from divco_tf.analysis.robustness import evaluate_robustness

    return _of_each(model_dirs, evaluate_robustness, images=_CORRUPTED_IMAGES.value, report=streams.note)


def _as_json(robustness: "Robustness") -> dict[str, Any]:
    by_family = {
        name: dict(zip(robustness.families, getattr(robustness, name).tolist(), strict=True))
        for name in ("accuracy", "negative_log_likelihood")
    }
    errors = {name: getattr(robustness, name) for name in ("mean_corruption_error", "relative_corruption_error")}
    return {"images": robustness.images, "severities": robustness.severities, **by_family, **errors}


def _of_each(model_dirs: list[str], evaluate: Callable[..., Any], **more: Any) -> dict[str, Any]:
    options = {"batch_size": _BATCH_SIZE.value, "strategy": _STRATEGY.value, "jit": _JIT.value}
    options |= {"data_dir": _DATA_DIR.value, "split": _SPLIT.value, "weights": _WEIGHTS.value}
    evaluations = {}
    for model_dir in model_dirs:
        with configs.modules_of(model_dir):
            evaluations[model_dir] = evaluate(model_dir, **options, **more)
    return evaluations


def _evaluate_export() -> dict:
    from divco_tf.serving.evaluation import evaluate_saved_model

    path = _SAVED_MODEL.value
    options = {"split": _SPLIT.value, "batch_size": _BATCH_SIZE.value}
    return {path: evaluate_saved_model(path, dataset=_DATASET.value, data_dir=_DATA_DIR.value, **options)}


def run() -> None:
    """The console script."""
    app.run(
        main,
        program="divco-evaluate",
        common=("model_dir", "saved_model", "data_dir", "split", "weights"),
        behind="--model_dir=DIR|--saved_model=DIR [--flag=value ...]",
        examples=(
            "divco-evaluate --model_dir=runs/digits --weights=best",
            "divco-evaluate --model_dir=runs/a,runs/b --data_dir=data --corruptions --corrupted_images=1000",
            "divco-evaluate --saved_model=exports/digits --dataset=digits",
        ),
    )


if __name__ == "__main__":
    run()
