"""What a trained run answers to the images of a split: kept, so that any statistic can be computed later."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from divco_tf import files
from divco_tf.errors import InputError

Kind = TypeVar("Kind")


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What an ensemble and its branches say, and what is right.

    Attributes:
      logits: of the branches, float32 [N, S, K]; with Monte Carlo dropout a sample counts as a branch.
      probabilities: of the ensemble, float32 [N, K].
      labels: int64 [N].
    """

    logits: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray


def outputs(
    model_dir: str | pathlib.Path,
    *,
    split: str = "test",
    data_dir: str | None = None,
    weights: str = "last",
    batch_size: int = 500,
) -> Outputs:
    """What the run in `model_dir` answers to all images of a split.

    Args:
      model_dir: of `train`.
      split: "test", "held_out" or "train".
      data_dir: where the run's dataset lies.
      weights: "last", "best" or "ema".
      batch_size: images at once; nothing depends on it but for rounding.

    Raises:
      InputError: no run, no such weights or no data.
    """
    from divco_tf.data.streams import evaluation_dataset, reading
    from divco_tf.runs.evaluation import opened

    run, source, predict, _ = opened(
        model_dir, data_dir=data_dir, split=split, weights=weights, strategy="one_device", jit="auto"
    )
    dataset = evaluation_dataset(source, batch_size=batch_size, preprocess=run.experiment.preprocessing)
    with reading():
        probabilities, logits = zip(*predict(images for images, _ in dataset), strict=True)
    return Outputs(np.concatenate(logits).astype(np.float32), np.concatenate(probabilities), source.labels)


def save_outputs(path: pathlib.Path, found: Mapping[str, Outputs]) -> None:
    """Writes the outputs of some splits into one .npz file, whole or not at all."""
    save_by_split(path, found)


def load_outputs(path: str | pathlib.Path) -> dict[str, Outputs]:
    """What `save_outputs` wrote, by split.

    Raises:
      InputError: it is damaged, or something else.
    """
    return load_by_split(path, Outputs)


def save_by_split(
    path: pathlib.Path, found: Mapping[str, Any], *, stored: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> None:
    """Writes dataclasses of arrays, one a split, into an .npz file, whole or not at all; arrays as `stored` says."""
    arrays = {
        f"{split}_{field.name}": stored(getattr(each, field.name))
        for split, each in found.items()
        for field in dataclasses.fields(each)
    }
    files.write_npz(path, arrays)


def load_by_split(
    path: str | pathlib.Path, kind: type[Kind], *, read: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> dict[str, Kind]:
    """What `save_by_split` wrote; `read` makes an array of a stored one.

    Raises:
      InputError: it is damaged, or something else.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    try:
        with np.load(path, allow_pickle=False) as found:
            splits = [name.removesuffix("_labels") for name in found.files if name.endswith("_labels")]
            return {split: kind(**{name: read(found[f"{split}_{name}"]) for name in names}) for split in splits}
    except Exception as error:  # whatever numpy and zipfile stumble over
        raise InputError(
            f"These are no predictions ({type(error).__name__}). Received: {path}; a sweep writes them."
        ) from error
