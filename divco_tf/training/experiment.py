"""An experiment: all that bears on the result of a training run, as one frozen dataclass, and its model_dir."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from divco_tf import fields, files
from divco_tf.data.batch_ops import KerasLayer
from divco_tf.data.datasets import Dataset, get_dataset
from divco_tf.data.policies import ViewPolicy, get_policy
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import Source, open_source, open_splits
from divco_tf.data.sources.fingerprints import same_data, told_of_data
from divco_tf.data.sources.layout import composed
from divco_tf.errors import InputError
from divco_tf.fields import AtLeast0, OneOf, Positive, Within
from divco_tf.models.branch_stack import BranchStack
from divco_tf.models.divide import BUDGETS, RULES
from divco_tf.models.spec import branch_spec, check_division
from divco_tf.models.summary import Sizes
from divco_tf.models.template import PRECISIONS
from divco_tf.training import record
from divco_tf.training.checkpoint import Checkpoint, Checkpoints
from divco_tf.training.losses import ENSEMBLING
from divco_tf.training.optimizers import OptimizerConfig
from divco_tf.training.record import RECORD, write_record
from divco_tf.training.records import Records
from divco_tf.training.schedules import CoTraining, LearningRate
from divco_tf.training.warm_start import WarmStart

WEIGHTS = ("last", "best", "ema")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """What identifies a run. Where and how fast it computes (strategy, threads, data_dir, ...) is `train`'s.

    Attributes:
      backbone: name of a registered backbone.
      dataset: name of a dataset.
      split_factor: S.
      overrides: fields of the large network's spec, set before it is divided.
      divide_regularisers: False divides widths only.
      rule, budget: how the backbone is divided, see `build`.
      image_size: pixels a side; None: the dataset's.
      held_out: share of the training images, by hash, that is kept from training for choosing the best weights.
      views: a view policy or the name of one, see `get_policy`; or S of them, one for each branch. None: crops after
        padding by an eighth of the image's side, mirror images except for digits.
      identical_views: show every branch the same view.
      mixup_alpha: of mixup's Beta distribution; 0 is off.
      cutmix_alpha: of CutMix's; 0 is off. With both, a step is one of the two with probability 1/2.
      mix_block: partners are mixed within so many consecutive images of a batch; None: the whole batch.
      batch_operations: names of batch operations, and `KerasLayer`s, in their order.
      label_smoothing: in training.
      cotraining: the co-training loss and its weight.
      ensembling: how branches are combined.
      optimizer, learning_rate: how weights are updated.
      ema_decay: of a moving average of weights and statistics, which `load(..., weights="ema")` gives; None keeps none.
      epochs, batch_size: of the run; the batch is the global one.
      early_stopping: after how many evaluations of the held-out images without a better one the run ends; None: never.
      warm_start: another run's weights to begin with.
      synchronised_norm: batch norm by the statistics of all replicas together; without XLA.
      seed: of initial values, order, views, mixup and dropout.
      precision: "float32", "mixed_bfloat16" or "mixed_float16".
    """

    backbone: str
    dataset: str
    split_factor: Positive = 1
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    divide_regularisers: bool = True
    rule: Annotated[str, OneOf(RULES)] = "paper"
    budget: Annotated[str, OneOf(BUDGETS)] = "parameters"
    image_size: Annotated[int, Within(1, most=10_000)] | None = None
    held_out: Annotated[float, Within(0, below=1)] = 0.0
    views: ViewPolicy | str | tuple[ViewPolicy | str, ...] | None = None
    identical_views: bool = False
    mixup_alpha: AtLeast0 = 0.0
    cutmix_alpha: AtLeast0 = 0.0
    mix_block: Positive | None = None
    batch_operations: tuple[str | KerasLayer, ...] = ()
    label_smoothing: Annotated[float, Within(0, below=1)] = 0.0
    cotraining: CoTraining = CoTraining()
    ensembling: Annotated[str, OneOf(tuple(ENSEMBLING))] = "mean_logits"
    optimizer: OptimizerConfig = OptimizerConfig()
    learning_rate: LearningRate = LearningRate()
    ema_decay: Annotated[float, Within(above=0, below=1)] | None = None
    epochs: Positive = 1
    batch_size: Positive = 128
    early_stopping: Positive | None = None
    warm_start: WarmStart | None = None
    synchronised_norm: bool = False
    seed: int = 0
    precision: Annotated[str, OneOf(PRECISIONS)] = "float32"

    def __post_init__(self) -> None:
        fields.check(self)
        get_dataset(self.dataset)
        object.__setattr__(self, "overrides", record.with_tuples(self.backbone, self.overrides))
        record.check_overrides(self.backbone, self.overrides)
        check_division(self.backbone, **self._division)  # refuses what no network is, before any data is read
        if isinstance(self.views, tuple) and len(self.views) != self.split_factor:
            raise InputError(
                f"Views are one policy for all branches, or one for each. Received: {len(self.views)} policies for "
                f"split_factor={self.split_factor}; {self.split_factor} or a single one would work."
            )

    @property
    def facts(self) -> Dataset:
        """The dataset's facts."""
        return get_dataset(self.dataset)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared for evaluation and serving."""
        return Preprocessing.for_dataset(self.facts, self.image_size)

    @property
    def view_policies(self) -> ViewPolicy | tuple[ViewPolicy, ...]:
        """What is done to a training image, for all branches or for each."""
        if self.views is None:
            return ViewPolicy(pad=self.preprocessing.image_size // 8, flip=self.dataset != "digits")
        named = self.views if isinstance(self.views, tuple) else (self.views,)
        policies = tuple(get_policy(policy) if isinstance(policy, str) else policy for policy in named)
        return policies if isinstance(self.views, tuple) else policies[0]

    def build(self, num_classes: int, *, devices: Sequence[str] | None = None, branch: Any = None) -> BranchStack:
        """The experiment's stack with initial weights.

        Args:
          num_classes: K.
          devices: where its branches lie, if that is told.
          branch: the spec of each, if it is not to be what the backbone's table and the rule say.
        """
        size = self.preprocessing.image_size
        if branch is None:
            branch = self.branch_spec(num_classes)
        return BranchStack(
            spec=branch,
            split_factor=self.split_factor,
            num_classes=num_classes,
            input_shape=(size, size, 3),
            precision=self.precision,
            seed=self.seed,
            devices=devices,
            synchronised_norm=self.synchronised_norm,
            name=f"{self.backbone}_x{self.split_factor}",
        )

    def branch_spec(self, num_classes: int) -> Any:
        """The spec of each branch."""
        size = self.preprocessing.image_size
        sizes = Sizes(num_classes=num_classes, input_shape=(size, size, 3))
        return branch_spec(self.backbone, sizes=sizes, **self._division)

    @property
    def _division(self) -> dict[str, Any]:
        names = ("split_factor", "divide_regularisers", "rule", "budget")
        return {**{name: getattr(self, name) for name in names}, **self.overrides}

    def open(self, split: str, **options: Any) -> Source:
        """The images of a split; `options` are `open_source`'s: data_dir, on_error, memory_budget, ..."""
        size = self.preprocessing.image_size
        return open_source(self.dataset, split, held_out=self.held_out, image_size=size, **options)

    def open_splits(self, **options: Any) -> Iterator[tuple[str, Source]]:
        """All that a run reads; `options` are those of `data.sources.open_splits`: data_dir, on_error, writes, ...

        Raises:
          InputError: also where the number of classes is not the dataset's.
        """
        size = self.preprocessing.image_size
        for split, source in open_splits(self.dataset, held_out=self.held_out, image_size=size, **options):
            self.check_classes(source)
            yield split, source

    def check_classes(self, source: Source) -> None:
        """Refuses a source whose number of classes is not the dataset's.

        Raises:
          InputError: as said.
        """
        expected = self.facts.num_classes
        if expected is not None and source.num_classes != expected:
            raise InputError(
                f"The data do not fit the dataset {self.dataset} of {expected} classes. "
                f"Received: {source.num_classes} classes; choose the dataset that the folder holds."
            )

    def check_run(self, *, replicas: int, micro_batches: int) -> None:
        """Refuses what cannot be trained so.

        Raises:
          InputError: early stopping without held-out images, or a batch that does not divide.
        """
        if self.early_stopping is not None and not self.held_out:
            raise InputError(
                f"A run is stopped early by images that are held out. Received: early_stopping={self.early_stopping}, "
                "held_out=0; held_out=0.1 would work."
            )
        parts = replicas * micro_batches
        if self.batch_size % parts:
            raise InputError(
                f"The batch does not divide into {replicas} replicas of {micro_batches} micro-batches. Received: "
                f"batch_size={self.batch_size}; a multiple of {parts} would work."
            )

    def identity(self, source: Source | None) -> dict[str, Any]:
        """What must be the same for a run to go on in a model_dir: this experiment, and the training data's labels."""
        resolved = dataclasses.replace(self, views=self.view_policies, image_size=self.preprocessing.image_size)
        content = {
            **dataclasses.asdict(resolved),
            "overrides": record.overrides_to_json(self.backbone, self.overrides),
            "data": None if source is None else source.fingerprint(),
        }
        return json.loads(json.dumps(content))


@dataclasses.dataclass(frozen=True)
class Run:
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


def open_run(model_dir: str | pathlib.Path) -> Run:
    """The run in `model_dir`.

    Raises:
      InputError: there is none.
    """
    model_dir = files.local_path(model_dir, "model_dir")
    if not (model_dir / RECORD).is_file():
        raise InputError(
            f"No run lies there ({RECORD} is missing). Received: {model_dir}; pass a model_dir of training."
        )
    found = record.read_record(model_dir)
    experiment, branch = _experiment(found, model_dir), record.branch_of(found)
    return Run(model_dir, experiment, tuple(found["class_names"]), found.get("imported"), branch)


def claim_model_dir(
    model_dir: pathlib.Path,
    experiment: Experiment,
    source: Source,
    *,
    extend: bool = False,
    report: Callable[[str], None] = lambda line: None,
    branch: Any = None,
    **more: Any,
) -> Run:
    """Makes `model_dir` the place of `experiment`, or finds it there already.

    Args:
      model_dir: of the run.
      experiment: what is trained.
      source: its training images.
      extend: it may be trained for more epochs than before.
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
    write_record(path, identity, source.class_names, branch=record.spec_to_json(branch), **more)
    return Run(model_dir, experiment, source.class_names, branch=branch)


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
    found = record.read_record(model_dir)
    if "imported" in found:
        raise InputError(f"An imported checkpoint is not trained on. Received: {model_dir}; choose another model_dir.")
    # Read and written again: a run of a release that did not have a field yet had its default.
    data = None if identity["data"] is None else found["identity"].get("data")
    before = {**_experiment(found, model_dir).identity(None), "data": data}
    different = [key for key in identity if key != "data" and identity[key] != before.get(key)]
    different += ["data"] * (not same_data(data, identity["data"]))
    longer = different == ["epochs"] and identity["epochs"] > before["epochs"]
    if different and not (longer and extend):
        told = "; ".join(record.told_difference(key, before.get(key), identity[key]) for key in different)
        way_out = "pass --extend to train it for more epochs" if longer else "choose another model_dir"
        raise InputError(f"{model_dir} holds another experiment. Received: {told}; {way_out}.")
    record.check_branch(found, branch, model_dir)
    if source is not None:
        Run(model_dir, _experiment(found, model_dir), tuple(found["class_names"])).check_classes(source)
    if line := told_of_data(data, identity["data"]):
        report(line)
    return True


def load(model_dir: str | pathlib.Path, *, weights: str = "last") -> BranchStack:
    """The stack of a run with its trained weights.

    Args:
      model_dir: of `train`.
      weights: "last", "best" (by the accuracy on held-out images) or "ema".

    Returns:
      The stack; its `weights_from` names the run, the weights and the step they are of.

    Raises:
      InputError: no run lies there, or it has no such weights.
    """
    run = open_run(model_dir)
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
            return stack


def _experiment(found: Mapping[str, Any], model_dir: pathlib.Path) -> Experiment:
    """The experiment that a model_dir's record tells of."""
    identity = {key: value for key, value in found["identity"].items() if key != "data"}
    if identity.get("cotraining", ()) is None:  # 0.1.0 took that for the default
        del identity["cotraining"]
    try:
        overrides = record.overrides_from_json(identity.get("backbone"), identity.pop("overrides", {}))
        return record.from_json(Experiment, {**identity, "overrides": overrides})
    except InputError as error:
        raise InputError(f"{model_dir / RECORD} does not fit this release. {error}") from error
    except (TypeError, AttributeError) as error:  # a field is missing, or of no use
        raise InputError(
            f"{RECORD} is not the record of a run ({record.in_one_line(error)}). Received: {model_dir / RECORD}; "
            f"{record.REMEDY}."
        ) from error
