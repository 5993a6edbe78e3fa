"""How good an exported SavedModel is: stored images go in as they are, all preparation is its own."""

import itertools
import pathlib
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divco_tf import files
from divco_tf.data.datasets import ALL
from divco_tf.data.sources import Source, open_source
from divco_tf.data.streams import evaluation_dataset, reading
from divco_tf.errors import InputError, shown
from divco_tf.runs.evaluation import Answers, Evaluation, figures
from divco_tf.runs.model_dir import numbered
from divco_tf.serving.export import SAVED_MODEL, read_class_names, read_record, version_folders


def evaluate_saved_model(
    path: str | pathlib.Path,
    *,
    dataset: str,
    data_dir: str | None = None,
    split: str = "test",
    held_out: float = 0.0,
    batch_size: int = 500,
) -> Evaluation:
    """Evaluates an export; the figures are those of `runs.evaluation.evaluate` for the weights it was made of.

    Args:
      path: a version's folder, or an export_dir, of which the highest version is taken.
      dataset, data_dir, split, held_out: as for `data.sources.open_source`.
      batch_size: where all images have one size; others go in one by one. The figures do not depend on it.

    Returns:
      Without branch accuracies unless the export returns `branch_probabilities`.

    Raises:
      InputError: no export or no data, or classes that do not fit each other.
    """
    chosen = {"dataset": dataset, "data_dir": data_dir, "split": split, "held_out": held_out}
    return evaluate_saved_model_in_full(path, batch_size=batch_size, **chosen)[0]


def evaluate_saved_model_in_full(
    path: str | pathlib.Path, *, dataset: str, split: str, batch_size: int, **chosen: Any
) -> tuple[Evaluation, Answers]:
    """The figures of `evaluate_saved_model`, and the answers that they are of."""
    folder = find_version(path)
    record, names = read_record(folder), read_class_names(folder)
    source = open_source(dataset, split, **chosen)
    if split == ALL and names is not None:
        source = source.ordered_as(names, some=True)
    model, predict = loaded(folder)
    num_classes = predict.structured_outputs["probabilities"].shape[-1]
    if num_classes != source.num_classes:
        raise InputError(
            f"The export does not fit the data. Received: {num_classes} classes in {folder}, {source.num_classes} in "
            f"{dataset}; evaluate on the dataset that the run was trained on."
        )
    _check_names(names, source, record, folder)
    start = time.monotonic()
    with reading():
        found = Answers(*_predictions(predict, source, batch_size, folder), source)
    del model  # the function does not hold the weights
    weights = f"{folder} of {record.get('weights_from') or 'a stack'}"
    return figures(found, split=split, seconds=time.monotonic() - start, weights=weights), found


def find_version(path: str | pathlib.Path) -> pathlib.Path:
    """The folder of the SavedModel that `path` stands for: itself, or the highest version in it.

    Raises:
      InputError: there is none.
    """
    path = files.local_path(path, "saved_model")
    try:
        for folder in (path, *reversed(version_folders(path).values())):
            if (folder / SAVED_MODEL).is_file():
                return folder
    except OSError as error:
        raise InputError(
            f"The folder cannot be read ({error.strerror}). Received: {path}; make it readable."
        ) from error
    raise InputError(f"No SavedModel lies there. Received: {path}; pass an export_dir, or a version's folder in it.")


def loaded(folder: pathlib.Path) -> tuple[Any, tf.types.experimental.ConcreteFunction]:
    """The SavedModel and its signature `images`, which takes and gives what `export_stack` says."""
    try:
        with files.without_patterns(folder) as readable:
            model = tf.saved_model.load(str(readable))
        predict = model.signatures.get("images")
        inputs, outputs = (predict.structured_input_signature[1], predict.structured_outputs) if predict else ({}, {})
        taken = {name: (spec.dtype, spec.shape.rank) for name, spec in inputs.items()}
        given = {name: (spec.dtype, spec.shape.rank, spec.shape[-1]) for name, spec in outputs.items()}
    except Exception as error:  # whatever TensorFlow trips over in a file that is damaged, or of a kind of its own
        why = " ".join(f"{type(error).__name__}: {files.why_unwritten(error)}".split())[:200]
        raise InputError(f"The SavedModel cannot be read ({why}). Received: {folder}; export the run anew.") from error
    if predict is None:
        raise InputError(f"The SavedModel has no signature images. Received: {folder}; pass one that we exported.")
    classes = given.get("probabilities", (None,))[-1]
    if (
        taken != {"images": (tf.float32, 4)}
        or not classes
        or given["probabilities"] != (tf.float32, 2, classes)
        or given.get("branch_probabilities", (tf.float32, 3, classes)) != (tf.float32, 3, classes)
    ):
        raise InputError(
            "The SavedModel's signature images is another than ours, images: float32 [N, H, W, 3] -> probabilities: "
            f"float32 [N, K]. Received: {folder}, {_listed(taken)} -> {_listed(given)}; pass one that we exported."
        )
    return model, predict


def _listed(specs: Mapping[str, tuple]) -> str:
    told = [f"{shown(name)}: {spec[0].name} of {spec[1]} axes" for name, spec in specs.items()]
    return ", ".join(told[:4]) or "nothing"


def _check_names(names: Sequence[str] | None, source: Source, record: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Refuses data whose classes are others than the export's, or in another order; some exports have no names."""
    # An export of 0.1.0 tells in words alone that its weights were imported.
    imported = record.get("imported") or " imported from " in str(record.get("weights_from"))
    if names is None or (imported and tuple(names) == numbered(len(names))):
        return
    theirs, ours = ([unicodedata.normalize("NFC", name) for name in listed] for listed in (source.class_names, names))
    if theirs != ours:
        pairs = list(itertools.zip_longest(theirs, ours, fillvalue="missing"))
        number = next(index for index, (there, here) in enumerate(pairs) if there != here)
        there, here = map(shown, pairs[number])
        order = " in another order" if sorted(theirs) == sorted(ours) else ""
        raise InputError(
            f"The data's classes are not the export's{order}. Received: class {number} is {there} in the data, and "
            f"{here} in {folder}; evaluate on the dataset that the run was trained on."
        )


def _predictions(
    predict: tf.types.experimental.ConcreteFunction, source: Source, batch_size: int, folder: pathlib.Path
) -> tuple[np.ndarray, np.ndarray]:
    """The ensemble's probabilities [N, K] and the branches' classes [N, S], S = 0 where the export keeps them."""
    batches = evaluation_dataset(
        source,
        batch_size=batch_size if source.same_size else 1,
        preprocess=lambda images: tf.cast(images, tf.float32),
    )
    probabilities, branch_classes = [], []
    for images, _ in batches:
        try:
            outputs = {name: output.numpy() for name, output in predict(images=images).items()}
        except (tf.errors.OpError, TypeError, ValueError) as error:
            why = " ".join(files.why_unwritten(error).split())[:200]
            raise InputError(
                f"The SavedModel does not take the images ({why}). Received: {folder}, images of "
                f"{list(images.shape)}; pass one that we exported."
            ) from error
        if any(len(output) != len(images) for output in outputs.values()):
            given = len(outputs["probabilities"])
            raise InputError(f"The SavedModel gives {given} answers to {len(images)} images. Received: {folder}.")
        probabilities.append(outputs["probabilities"])
        if "branch_probabilities" in outputs:
            branch_classes.append(outputs["branch_probabilities"].argmax(axis=-1))
        else:
            branch_classes.append(np.empty((len(images), 0), np.int64))
    return np.concatenate(probabilities), np.concatenate(branch_classes)
