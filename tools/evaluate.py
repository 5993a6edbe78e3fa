"""Evaluates trained runs, or an exported SavedModel: divco-evaluate --model_dir runs/a,runs/b --data_dir data.

Prints a table with each branch's accuracy and the ensemble's, NLL and calibration error; every image counts once.
"""

import dataclasses
import json

from absl import flags

from divco_tf.tools import _app

_MODEL_DIR = flags.DEFINE_list("model_dir", [], "The folders of one or more runs, separated by commas.")
_SAVED_MODEL = flags.DEFINE_string("saved_model", None, "An exported SavedModel, instead of a run.")
_DATASET = flags.DEFINE_string("dataset", None, "Of --saved_model: the name of a dataset.")
_DATA_DIR = _app.data_dir_flag()
_SPLIT = flags.DEFINE_string("split", "test", "test, held_out or train.")
_WEIGHTS = flags.DEFINE_string("weights", "last", "Of a run: last, best or ema.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")


def main() -> None:
    """Evaluates what --model_dir or --saved_model names."""
    if bool(_MODEL_DIR.value) == bool(_SAVED_MODEL.value):
        raise _app.InputError(
            f"Give either --model_dir or --saved_model. Received: model_dir={','.join(_MODEL_DIR.value)!r}, "
            f"saved_model={_SAVED_MODEL.value!r}."
        )
    if _SAVED_MODEL.value and not _DATASET.value:
        raise _app.InputError("--saved_model needs a --dataset to be evaluated on. Received: none; digits is one.")
    _app.load_tensorflow()
    from divco_tf.tools._tables import evaluation_table

    evaluations = _evaluate_export() if _SAVED_MODEL.value else _evaluate_runs()
    if _JSON.value:
        print(json.dumps({name: dataclasses.asdict(evaluation) for name, evaluation in evaluations.items()}, indent=1))
    else:
        print(evaluation_table(evaluations))


def _evaluate_runs() -> dict:
    from divco_tf.training.evaluation import evaluate

    return {
        model_dir: evaluate(model_dir, data_dir=_DATA_DIR.value, split=_SPLIT.value, weights=_WEIGHTS.value)
        for model_dir in _MODEL_DIR.value
    }


def _evaluate_export() -> dict:
    from divco_tf.serving.evaluation import evaluate_saved_model

    path = _SAVED_MODEL.value
    return {path: evaluate_saved_model(path, dataset=_DATASET.value, data_dir=_DATA_DIR.value, split=_SPLIT.value)}


def run() -> None:
    """The console script."""
    _app.run(main, program="divco-evaluate")


if __name__ == "__main__":
    run()
