"""Export: a stack as a SavedModel that TF Serving and plain TensorFlow run, without this package.

`<export_dir>/<version>/` is the layout TF Serving watches: it serves the highest integer and ignores other names.
"""

import contextlib
import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divco_tf import compat, files
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.errors import InputError, shown
from divco_tf.models.branch_stack import BranchStack
from divco_tf.runs.model_dir import load, open_model_dir
from divco_tf.runs.records.checkpoints import whole_or_told
from divco_tf.runs.records.experiment_json import versions
from divco_tf.training import losses

SAVED_MODEL = "saved_model.pb"
CLASS_NAMES = "class_names.txt"
EXTRA = "assets.extra"  # which neither TensorFlow nor TF Serving reads
RECORD = "divco.json"
_MAX_VERSION = 2**63 - 1  # TF Serving keeps versions in 64 bits, and passes over what does not fit
SIGNATURES = ("serving_default", "images")


def export(
    model_dir: str | pathlib.Path,
    *,
    export_dir: str | pathlib.Path,
    version: int | None = None,
    weights: str = "last",
    branch_probabilities: bool = False,
) -> pathlib.Path:
    """Exports the run in `model_dir`; see `export_stack`.

    Args:
      model_dir: of `train`.
      export_dir: the base path that a server is given; the export lies in `export_dir/version`.
      version: a positive integer; without one the next free.
      branch_probabilities: whether answers have each branch's, [B, S, K].
      weights: "last", "best" or "ema".

    Returns:
      The version's folder.

    Raises:
      InputError: no run, no such weights, or an argument that `export_stack` refuses.
      RunError: as of `export_stack`.
    """
    run = open_model_dir(model_dir)
    run.checkpoint(weights)
    _next_version(export_dir, version)  # refused before the weights are read
    return export_stack(
        load(model_dir, weights=weights),
        preprocessing=run.experiment.preprocessing,
        class_names=run.class_names,
        ensembling=run.experiment.ensembling,
        export_dir=export_dir,
        version=version,
        branch_probabilities=branch_probabilities,
        record={"experiment": run.experiment.identity(None), "imported": run.imported},
    )


def export_stack(
    stack: BranchStack,
    *,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    export_dir: str | pathlib.Path,
    ensembling: str = "mean_logits",
    version: int | None = None,
    branch_probabilities: bool = False,
    record: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes `<export_dir>/<version>/saved_model.pb`; the folder is complete or absent.

    The signatures differ in what they take. `serving_default`: `image_bytes`, string [N], JPEG, PNG, WebP, GIF or
    BMP files, each of any size. `images`: `images`, float32 [N, H, W, 3] RGB in 0..255, of any one size. Decoding,
    resizing and normalisation are inside. Both return `probabilities` float32 [N, K] of the ensemble, `classes` int64
    [N], and `disagreement` float32 [N], the Jensen-Shannon divergence between the branches in nats (0 to log S).

    Args:
      stack: with the weights to export.
      preprocessing: brings images to what the stack sees.
      class_names: K of them, stored one a line in assets/class_names.txt, where what is no line of UTF-8 is escaped.
      export_dir: TF Serving's base path.
      ensembling: how the branches are combined, one of `losses.ENSEMBLING`.
      version: 1 or more; None: one more than the highest in `export_dir`.
      branch_probabilities: also return `branch_probabilities`, float32 [N, S, K].
      record: to be noted besides the weights' origin, the stack, the preprocessing and the versions computed with.

    Returns:
      The version's folder. Its assets.extra/divco.json records what the export was made of.

    Raises:
      InputError: arguments that do not fit each other, weights that are not finite, a version that is there already,
        or a folder that cannot be written.
      RunError: writing it failed, for want of space, say; nothing is left.
    """
    _check(stack, preprocessing, class_names, ensembling)
    base = _next_version(export_dir, version).parent
    files.remove_unfinished(base)
    content = {
        "weights_from": getattr(stack, "weights_from", None),
        **(record or {}),
        "class_names": list(class_names),
        "stack": stack.get_config(),
        "preprocessing": dataclasses.asdict(preprocessing),
        "ensembling": ensembling,
        "versions": versions(),
    }
    with whole_or_told("export", base), files.unfinished_directory(base, "export") as folder:
        names = folder.with_name(CLASS_NAMES)  # outside of the export, which takes a copy
        files.write_text(names, "".join(f"{shown(name)}\n" for name in class_names))
        unplaced = stack.on(None) if stack.devices else stack
        servable = _Servable(unplaced, preprocessing, ensembling, str(names), branch_probabilities)
        tf.saved_model.save(servable, str(folder), signatures=servable.signatures())
        (folder / EXTRA).mkdir()
        files.write_json(folder / EXTRA / RECORD, content)
        while True:
            with contextlib.suppress(FileExistsError):  # another export was faster: the next number, or a refusal
                return files.take_name(folder, _next_version(base, version))


def version_folders(export_dir: str | pathlib.Path) -> dict[int, pathlib.Path]:
    """What lies in `export_dir` under a number that TF Serving takes for a version, ascending: 7 as "7" or "0007"."""
    folder = pathlib.Path(export_dir)
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    found = {int(name): folder / name for name in names if re.fullmatch("0*[0-9]{1,19}", name)}
    return {number: found[number] for number in sorted(found) if number <= _MAX_VERSION}


def read_class_names(version_dir: str | pathlib.Path) -> tuple[str, ...] | None:
    """The names of an export's classes; None where it has none.

    Raises:
      InputError: they cannot be read.
    """
    names = read_record(version_dir).get("class_names")
    path = pathlib.Path(version_dir) / "assets" / CLASS_NAMES
    if names is None and path.is_file():  # an export of 0.1.0
        names = _read(path).splitlines()
    if names is not None and not isinstance(names, list):
        raise InputError(f"The export's record is damaged. Received: {path}; export anew, or remove it.")
    return None if names is None else tuple(map(str, names))


def read_record(version_dir: str | pathlib.Path) -> dict[str, Any]:
    """What the export in `version_dir` was made of; {} where nothing is recorded.

    Raises:
      InputError: the record cannot be read.
    """
    path = pathlib.Path(version_dir) / EXTRA / RECORD
    if not path.is_file():
        return {}
    text = _read(path)
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        raise InputError(f"The export's record is damaged. Received: {path}; export anew, or remove it.") from None


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "no UTF-8"
        raise InputError(
            f"A file of the export cannot be read ({why}). Received: {path}; export the run anew, or make it readable."
        ) from error


def signature_lines(version_dir: str | pathlib.Path) -> list[str]:
    """The signatures as text: "images(images: float32 [?, ?, ?, 3]) -> classes: int64 [?], ..."."""
    found = compat.signatures_of((pathlib.Path(version_dir) / SAVED_MODEL).read_bytes())
    return [f"{name}({_tensors(found[name].inputs)}) -> {_tensors(found[name].outputs)}" for name in SIGNATURES]


class _Servable(tf.Module):
    """What is saved: the weights, the class names, and the functions of the signatures."""

    def __init__(
        self,
        stack: BranchStack,
        preprocessing: Preprocessing,
        ensembling: str,
        class_names: str,
        branch_probabilities: bool,
    ) -> None:
        super().__init__()
        self.class_names = tf.saved_model.Asset(class_names)
        self.weights = [variable.value for variable in stack.branch_weights]
        self.statistics = [variable.value for variable in stack.branch_statistics]
        size = preprocessing.image_size

        # One function for both signatures, so that the networks are in the file once.
        @tf.function(input_signature=[tf.TensorSpec([None, size, size, 3], tf.float32)], autograph=False)
        def predict(images: tf.Tensor) -> dict[str, tf.Tensor]:
            weights, statistics = (
                [tf.convert_to_tensor(variable) for variable in variables]
                for variables in (self.weights, self.statistics)
            )
            logits, _ = stack.run(weights, statistics, images, training=False)
            probabilities = losses.ensemble_probabilities(logits, ensembling)
            outputs = {
                "probabilities": probabilities,
                "classes": tf.argmax(probabilities, axis=-1, output_type=tf.int64),
                "disagreement": losses.jensen_shannon(logits),
            }
            return outputs | ({"branch_probabilities": tf.nn.softmax(logits)} if branch_probabilities else {})

        self._predict, self._preprocessing = predict, preprocessing

    def signatures(self) -> dict[str, Any]:
        """The functions by name."""
        predict, preprocessing = self._predict, self._preprocessing
        size = preprocessing.image_size

        def decoded(data: tf.Tensor) -> tf.Tensor:
            return preprocessing.resized(preprocessing.decode(data)[tf.newaxis])[0]

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")], autograph=False)
        def from_bytes(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
            # Images of one request differ in size, so each is brought to the network's before they are a batch.
            resized = tf.map_fn(decoded, image_bytes, fn_output_signature=tf.TensorSpec([size, size, 3], tf.float32))
            return predict(preprocessing.normalise(resized))

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, "images")], autograph=False)
        def from_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return predict(preprocessing(images))

        return dict(zip(SIGNATURES, (from_bytes, from_images), strict=True))


def _check(stack: Any, preprocessing: Preprocessing, class_names: Sequence[str], ensembling: str) -> None:
    if not isinstance(stack, BranchStack):
        raise InputError(f"A branch stack is exported. Received: {stack!r}; pass divco_tf.load(model_dir).")
    size = preprocessing.image_size
    if stack.view_shape != (size, size, 3):
        raise InputError(
            f"The preprocessing does not fit the stack. Received: image_size={size} for views of "
            f"{list(stack.view_shape)}; image_size={stack.view_shape[0]} would work."
        )
    if len(class_names) != stack.num_classes or not all(isinstance(name, str) for name in class_names):
        raise InputError(
            f"Class names do not fit the stack. Received: {len(class_names)} for {stack.num_classes} classes; "
            "pass a text a class."
        )
    if ensembling not in losses.ENSEMBLING:
        raise InputError(f"Unknown ensembling. Received: {ensembling!r}; pass one of {', '.join(losses.ENSEMBLING)}.")
    for variable in stack.variables:
        if not np.isfinite(variable.numpy().astype(np.float32)).all():
            origin = getattr(stack, "weights_from", None) or "the stack"
            raise InputError(
                f"Weights are not finite. Received: NaN or infinity in {variable.path} of {origin}; weights of an "
                "earlier step would work."
            )


def _next_version(export_dir: str | pathlib.Path, version: int | None) -> pathlib.Path:
    """Where the version goes; refuses one that is there, and a folder that cannot be written."""
    if version is not None and (isinstance(version, bool) or not isinstance(version, int) or version < 1):
        raise InputError(f"A version is a positive whole number. Received: {version!r}; 1 would work, or none.")
    folder = files.make_writable(files.local_path(export_dir, "export_dir"), "export directory")
    there = version_folders(folder)
    following = max(there, default=0) + 1
    would_work = f"{following} would work" if following <= _MAX_VERSION else "another export_dir would work"
    if version in there:
        raise InputError(
            f"The version is there already, and is not overwritten. Received: {there[version]}; {would_work}."
        )
    number = following if version is None else version
    if number > _MAX_VERSION:
        raise InputError(f"TF Serving ignores versions above {_MAX_VERSION}. Received: {number}; {would_work}.")
    return folder / str(number)


def _tensors(infos: Any) -> str:
    return ", ".join(f"{name}: {_tensor(info)}" for name, info in sorted(infos.items()))


def _tensor(info: Any) -> str:
    sizes = ["?" if dim.size < 0 else str(dim.size) for dim in info.tensor_shape.dim]
    return f"{tf.as_dtype(info.dtype).name} [{', '.join(sizes)}]"
