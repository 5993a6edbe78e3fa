"""A model_dir: the folder of one experiment's run, opened, claimed, and read."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from divco_tf import files
from divco_tf.data.sources import Source
from divco_tf.data.sources.fingerprints import same_data, told_of_data
from divco_tf.data.sources.layout import composed
from divco_tf.errors import InputError
from divco_tf.models import spec_json
from divco_tf.models.branch_stack import BranchStack
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.records import experiment_json
from divco_tf.runs.records.checkpoints import Checkpoint, Checkpoints
from divco_tf.runs.records.experiment_json import RECORD, write_record
from divco_tf.runs.records.metrics_json import Records

WEIGHTS = ("last", "best", "ema")


@dataclasses.dataclass(frozen=True)
class ModelDir:
    """A model_dir: the experiment in it, its classes, its checkpoints.

    Attributes:
      imported: of weights that were trained elsewhere, where they are from and their licence; what the experiment says
        of training is then not theirs.
      branch: the spec of each branch when the run was begun; None: what the backbone's table says now.
    """

    model_dir: pathlib.Path
    experiment: Experiment
    class_names: tuple[str, ...]
    imported: Mapping[str, Any] | None = None
    branch: Any = None

    @property
    def checkpoints(self) -> Checkpoints:
        """Those of the run."""
        return Checkpoints(self.model_dir / "checkpoints")

    @property
    def records(self) -> list[dict[str, Any]]:
        """What metrics.json holds: a record an evaluation, oldest first."""
        return Records(self.model_dir).all

    @property
    def best_checkpoint(self) -> Checkpoint | None:
        """The one with the highest accuracy on the held-out images, or None."""
        kept = {checkpoint.step: checkpoint for checkpoint in self.checkpoints.all()}
        return next((kept[step] for step in Records(self.model_dir).best() if step in kept), None)

    @property
    def seconds_per_step(self) -> float | None:
        """Of its training, as last recorded."""
        return self.records[-1]["seconds_per_step"] if self.records else None

    def check_classes(self, source: Source) -> None:
        """Refuses data whose classes are not those the run was trained on.

        Raises:
          InputError: as said.
        """
        unnamed = self.imported and self.class_names == numbered(source.num_classes)
        known = tuple(map(composed, self.class_names))  # 0.1.0 kept names as a file system spelt them
        if tuple(map(composed, source.class_names)) != known and not unnamed:
            theirs, ours = (
                f"{len(names)} classes ({', '.join(names[:5])}, ...)"
                for names in (source.class_names, self.class_names)
            )
            raise InputError(f"The data's classes are not the run's. Received: {theirs}; the run knows {ours}.")

    def checkpoint(self, weights: str = "last") -> Checkpoint:
        """The checkpoint with the weights "last", "best" or "ema" (the last one's moving average).

        Raises:
          InputError: another word, or there is none.
        """
        if weights not in WEIGHTS:
            raise InputError(f"Unknown weights. Received: {weights!r}; pass one of {', '.join(WEIGHTS)}.")
        absent = weights == "ema" and self.experiment.ema_decay is None
        found = self.best_checkpoint if weights == "best" else None if absent else self.checkpoints.last()
        if found is None:
            why = "no checkpoint has been written yet"
            if weights == "best" and not self.experiment.held_out:
                why = "the run held no images out to choose by (held_out=0)"
            elif absent:
                why = "the run kept no moving average of its weights (ema_decay=None)"
            raise InputError(f"The run has no {weights} weights: {why}. Received: {self.model_dir}.")
        return found

    def described(self, weights: str = "last", *, checkpoint: Checkpoint | None = None) -> str:
        """Whose weights these are, for reports: "last step 300"; of `checkpoint`, if a run that goes on has others now.

        Raises:
          InputError: as `checkpoint` does.
        """
        step = (checkpoint or self.checkpoint(weights)).step
        if self.imported is not None:
            return f"imported from {self.imported['file']}, {self.imported['licence']}"
        return f"{weights} step {step}"


def numbered(num_classes: int) -> tuple[str, ...]:
    """Names for classes of which only the order is known: "0", "1", ..."""
    return tuple(map(str, range(num_classes)))


def open_model_dir(model_dir: str | pathlib.Path) -> ModelDir:
    """The run in `model_dir`.

    Raises:
      InputError: there is none.
    """
    model_dir = files.local_path(model_dir, "model_dir")
    if not (model_dir / RECORD).is_file():
        raise InputError(
            f"No run lies there ({RECORD} is missing). Received: {model_dir}; pass a model_dir of training."
        )
    found = experiment_json.read_record(model_dir)
    experiment, branch = _experiment(found, model_dir), experiment_json.branch_of(found)
    return ModelDir(model_dir, experiment, tuple(found["class_names"]), found.get("imported"), branch)


def claim_model_dir(
    model_dir: pathlib.Path,
    experiment: Experiment,
    source: Source,
    *,
    extend: bool = False,
    report: Callable[[str], None] = lambda line: None,
    branch: Any = None,
    **more: Any,
) -> ModelDir:
    """Makes `model_dir` the place of `experiment`, or finds it there already.

    Args:
      model_dir: of the run.
      experiment: what is trained.
      source: its training images.
      extend: it may be trained for more epochs or steps than before.
      report: is told of data that may have changed.
      branch: the spec of each branch, if the caller knows it already.
      more: what else the record keeps.

    Raises:
      InputError: another experiment lies there (the differences are named), or the folder cannot be written.
    """
    branch = experiment.branch_spec(source.num_classes) if branch is None else branch
    identity = experiment.identity(source)
    check_model_dir(model_dir, identity, extend=extend, report=report, branch=branch, source=source)
    path = files.make_writable(model_dir, "model_dir") / RECORD
    write_record(path, identity, source.class_names, branch=experiment_json.spec_to_json(branch), **more)
    return ModelDir(model_dir, experiment, source.class_names, branch=branch)


def check_model_dir(
    model_dir: pathlib.Path,
    identity: Mapping[str, Any],
    *,
    extend: bool = False,
    report: Callable[[str], None] = lambda line: None,
    branch: Any = None,
    source: Source | None = None,
) -> bool:
    """Whether the experiment of an `identity` lies in `model_dir` already; nothing is written.

    An identity without data (None) is compared without them; the spec of each branch, and the names of the classes of
    the training images, are compared where they are told. `report` is told of data that may have changed.

    Raises:
      InputError: another experiment lies there; the differences are named.
    """
    if not (model_dir / RECORD).exists():
        return False
    found = experiment_json.read_record(model_dir)
    if "imported" in found:
        raise InputError(f"An imported checkpoint is not trained on. Received: {model_dir}; choose another model_dir.")
    # Read and written again: a run of a release that did not have a field yet had its default.
    data = None if identity["data"] is None else found["identity"].get("data")
    before = {**_experiment(found, model_dir).identity(None), "data": data}
    different = [key for key in identity if key != "data" and identity[key] != before.get(key)]
    different += ["data"] * (not same_data(data, identity["data"]))
    longer = different in (["epochs"], ["steps"]) and (identity[different[0]] or 0) > (before[different[0]] or 0)
    if different and not (longer and extend):
        told = "; ".join(experiment_json.told_difference(key, before.get(key), identity[key]) for key in different)
        way_out = f"pass --extend to train it for more {different[0]}" if longer else "choose another model_dir"
        raise InputError(f"{model_dir} holds another experiment. Received: {told}; {way_out}.")
    experiment_json.check_branch(found, branch, model_dir)
    if source is not None:
        ModelDir(model_dir, _experiment(found, model_dir), tuple(found["class_names"])).check_classes(source)
    if line := told_of_data(data, identity["data"]):
        report(line)
    return True


def load(model_dir: str | pathlib.Path, *, weights: str = "last") -> BranchStack:
    """The stack of a run with its trained weights: normalised views in, logits out.

    `divco_tf.Classifier.load` takes files, or pixels as they are, and answers with names and probabilities. A stack
    that is fed such pixels (levels in 0..255, or shares in 0..1) warns.

    Args:
      model_dir: of `train`.
      weights: "last", "best" (by the accuracy on held-out images) or "ema".

    Returns:
      The stack; its `weights_from` names the run, the weights and the step they are of.

    Raises:
      InputError: no run lies there, or it has no such weights.
    """
    run = open_model_dir(model_dir)
    checkpoint = run.checkpoint(weights)
    stack = run.experiment.build(len(run.class_names), branch=run.branch)
    while True:
        try:
            checkpoint.restore({"ema" if weights == "ema" else "stack": stack.variables}, partial=True)
        except Exception:
            if checkpoint.path.exists():
                raise
            checkpoint = run.checkpoint(weights)  # the run goes on, and has removed that one for a later one
        else:
            stack.weights_from = f"{model_dir} {run.described(weights, checkpoint=checkpoint)}"
            stack.pixel_range = run.experiment.preprocessing.pixel_range
            return stack


def _experiment(found: Mapping[str, Any], model_dir: pathlib.Path) -> Experiment:
    """The experiment that a model_dir's record tells of."""
    identity = {key: value for key, value in found["identity"].items() if key != "data"}
    if identity.get("cotraining", ()) is None:  # 0.1.0 took that for the default
        del identity["cotraining"]
    try:
        overrides = spec_json.overrides_from_json(identity.get("backbone"), identity.pop("overrides", {}))
        return experiment_json.from_json(Experiment, {**identity, "overrides": overrides})
    except InputError as error:
        raise InputError(f"{model_dir / RECORD} does not fit this release. {error}") from error
    except (TypeError, AttributeError) as error:  # a field is missing, or of no use
        raise InputError(
            f"{RECORD} is not the record of a run ({experiment_json.in_one_line(error)}). "
            f"Received: {model_dir / RECORD}; {experiment_json.REMEDY}."
        ) from error
