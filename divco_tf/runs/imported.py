"""Model_dirs of weights that were trained elsewhere: the authors' published checkpoints."""

import pathlib
from typing import Any

from divco_tf import files
from divco_tf.data.datasets import get_dataset
from divco_tf.errors import InputError
from divco_tf.models.spec_json import spec_to_json
from divco_tf.models.torch_weights import import_state_dict
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import ModelDir, numbered, open_model_dir
from divco_tf.runs.records.checkpoints import Checkpoints, whole_or_told
from divco_tf.runs.records.experiment_json import RECORD, write_record
from divco_tf.torch_files.checkpoint import TorchCheckpoint, read_checkpoint

LICENCE = "CC BY-NC 4.0 (non-commercial)"
"""Of the checkpoints that the paper's authors publish."""


def import_checkpoint(
    checkpoint: TorchCheckpoint | str | pathlib.Path,
    *,
    model_dir: str | pathlib.Path,
    backbone: str,
    num_classes: int,
    split_factor: int = 1,
    image_size: int | None = None,
    dataset: str | None = None,
    key: str | None = None,
) -> ModelDir:
    """Makes a model_dir of a checkpoint of the authors' PyTorch code, for `load`, `evaluate` and `export`.

    Args:
      checkpoint: the file, or what `read_checkpoint` made of it.
      model_dir: a new or empty folder; it is complete or left as it was.
      backbone: name of a registered backbone.
      num_classes: K.
      split_factor: S.
      image_size: pixels a side; None: the dataset's.
      dataset: whose images, normalised its way, the network takes; None: see `dataset_of`.
      key: the file's entry with the weights, as for `read_checkpoint`.

    Returns:
      The run. Its experiment says nothing of the training, and it is not trained on. Classes of a dataset that does
      not know their names are numbered.

    Raises:
      InputError: a file that is no such checkpoint or one of another network, or a folder that holds something or
        cannot be written.
      RunError: writing failed, for want of space, say; nothing is left.
    """
    model_dir = files.local_path(model_dir, "model_dir")
    refuse_used(model_dir)
    experiment = Experiment(
        backbone=backbone,
        dataset=dataset or dataset_of(num_classes),
        split_factor=split_factor,
        image_size=image_size,
    )
    facts = experiment.facts
    if facts.num_classes not in (None, num_classes):
        raise InputError(
            f"{facts.name} has {facts.num_classes} classes. Received: num_classes={num_classes}; "
            "dataset=image_folder takes any number."
        )
    if not isinstance(checkpoint, TorchCheckpoint):
        checkpoint = read_checkpoint(checkpoint, key=key)
    stack = experiment.build(num_classes)
    import_state_dict(stack, checkpoint.tensors, unreadable=checkpoint.unreadable)
    files.make_writable(model_dir.parent, "model_dir")
    try:
        with whole_or_told("import", model_dir), files.new_directory(model_dir) as beside:
            Checkpoints(beside / "checkpoints").save(0, {"stack": stack.variables})
            names = facts.class_names or numbered(num_classes)
            more = {"imported": _record(checkpoint), "branch": spec_to_json(stack.spec)}
            write_record(beside / RECORD, experiment.identity(None), names, **more)
    except FileExistsError:  # by now: another import was faster
        raise _used(model_dir) from None
    return open_model_dir(model_dir)


def dataset_of(num_classes: int) -> str:
    """The dataset that the authors' networks for so many classes were trained on; `image_folder` for other numbers.

    10 classes are CIFAR-10's: the authors publish no weights for SVHN.
    """
    of_authors = {get_dataset(name).num_classes: name for name in ("cifar10", "cifar100", "imagenet")}
    return of_authors.get(num_classes, "image_folder")


def refuse_used(model_dir: str | pathlib.Path) -> None:
    """Refuses a path where something lies already.

    Raises:
      InputError: as said.
    """
    path = pathlib.Path(model_dir)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise _used(path)
    if path.exists() and path.samefile("."):
        raise InputError(f"The working directory cannot be replaced. Received: model_dir {path}; name a new folder.")


def _used(path: pathlib.Path) -> InputError:
    return InputError(f"Something lies there already. Received: model_dir {path}; choose another folder.")


def _record(checkpoint: TorchCheckpoint) -> dict[str, Any]:
    return {
        "file": checkpoint.path.name,
        "sha256": checkpoint.sha256,
        "key": checkpoint.key,
        "facts": dict(checkpoint.facts),
        "licence": LICENCE,
    }
