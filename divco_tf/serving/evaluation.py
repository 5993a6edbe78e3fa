"""How good an exported SavedModel is: stored images go in as they are, all preparation is its own."""

import pathlib
import time

import numpy as np
import tensorflow as tf

from divco_tf.data.pipeline import evaluation_dataset, reading
from divco_tf.data.sources import Source, open_source
from divco_tf.errors import InputError
from divco_tf.serving.export import SAVED_MODEL, read_record, versions_in
from divco_tf.training.evaluation import Evaluation, figures


def evaluate_saved_model(
    path: str | pathlib.Path,
    *,
    dataset: str,
    data_dir: str | None = None,
    split: str = "test",
    held_out: float = 0.0,
    batch_size: int = 500,
) -> Evaluation:
    """Evaluates an export; the figures are those of `training.evaluation.evaluate` for the weights it was made of.

    Args:
      path: a version's folder, or an export_dir, of which the highest version is taken.
      dataset, data_dir, split, held_out: as for `data.sources.open_source`.
      batch_size: where all images have one size; others go in one by one. The figures do not depend on it.

    Returns:
      Without branch accuracies unless the export returns `branch_probabilities`.

    Raises:
      InputError: no export or no data, or classes that do not fit each other.
    """
    folder = find_version(path)
    source = open_source(dataset, split, data_dir=data_dir, held_out=held_out)
    model = tf.saved_model.load(str(folder))
    if "images" not in model.signatures:
        raise InputError(f"The SavedModel has no signature images. Received: {folder}; pass one that we exported.")
    predict = model.signatures["images"]
    num_classes = predict.structured_outputs["probabilities"].shape[-1]
    if num_classes != source.num_classes:
        raise InputError(
            f"The export does not fit the data. Received: {num_classes} classes in {folder}, {source.num_classes} in "
            f"{dataset}; evaluate on the dataset that the run was trained on."
        )
    start = time.monotonic()
    with reading():
        probabilities, branch_classes = _predictions(predict, source, batch_size)
    return figures(
        probabilities,
        branch_classes,
        source.labels,
        split=split,
        seconds=time.monotonic() - start,
        weights=f"{folder} of {read_record(folder).get('weights_from') or 'a stack'}",
    )


def find_version(path: str | pathlib.Path) -> pathlib.Path:
    """The folder of the SavedModel that `path` stands for: itself, or the highest version in it.

    Raises:
      InputError: there is none.
    """
    path = pathlib.Path(path)
    for folder in (path, *(path / str(version) for version in reversed(versions_in(path)))):
        if (folder / SAVED_MODEL).is_file():
            return folder
    raise InputError(f"No SavedModel lies there. Received: {path}; pass an export_dir, or a version's folder in it.")


def _predictions(predict: tf.types.experimental.ConcreteFunction, source: Source, batch_size: int) -> tuple:
    """The ensemble's probabilities [N, K] and the branches' classes [N, S], S = 0 where the export keeps them."""
    batches = evaluation_dataset(
        source,
        batch_size=batch_size if source.same_size else 1,
        preprocess=lambda images: tf.cast(images, tf.float32),
    )
    probabilities, branch_classes = [], []
    for images, _ in batches:
        outputs = predict(images=images)
        probabilities.append(outputs["probabilities"].numpy())
        if "branch_probabilities" in outputs:
            branch_classes.append(outputs["branch_probabilities"].numpy().argmax(axis=-1))
        else:
            branch_classes.append(np.empty((len(images), 0), np.int64))
    return np.concatenate(probabilities), np.concatenate(branch_classes)
