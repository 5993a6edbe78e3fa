"""An experiment: all that bears on the result of a training run, as one frozen dataclass."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from divco_tf import fields
from divco_tf.data.datasets import Dataset, get_dataset
from divco_tf.data.keras_layers import KerasLayer
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import Source, open_source, open_splits, stratified
from divco_tf.data.views.policies import ViewPolicy, get_policy
from divco_tf.errors import InputError
from divco_tf.fields import AtLeast0, OneOf, Positive, Whole, Within
from divco_tf.models import spec_json
from divco_tf.models.branch_stack import BranchStack
from divco_tf.models.divide import BUDGETS, RULES
from divco_tf.models.division import branch_spec, check_division
from divco_tf.models.sizes import Sizes
from divco_tf.models.template import PRECISIONS
from divco_tf.runs.warm_start import WarmStart
from divco_tf.training.losses import ENSEMBLING, CoTraining
from divco_tf.training.optim.learning_rate import EpochSchedule, LearningRate
from divco_tf.training.optim.optimizer import OptimizerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """What identifies a run. Where and how fast it computes (strategy, threads, data_dir, ...) is `train`'s.

    Attributes:
      backbone: name of a registered backbone.
      dataset: name of a dataset.
      split_factor: S.
      overrides: fields of the large network's spec, set before it is divided.
      divide_regularisers: False divides widths only.
      rule: how the backbone is divided, see `build`.
      budget: what the budget rule compares, see `build`.
      image_size: pixels a side; None: the dataset's.
      train_images: how many of the training images are trained on, about the same share of each class, chosen by the
        seed; fewer are a subset of more. None: all.
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
      dropout_samples: of Monte Carlo dropout (arXiv 1506.02142): how often each branch answers, with dropout as in
        training, and counts as so many branches; an export has none. 0: one answer without dropout.
      optimizer: how weights are updated.
      learning_rate: by how much, and when.
      ema_decay: of a moving average of weights and statistics, which `load(..., weights="ema")` gives; None keeps none.
      epochs: length of the run; 1 where nothing says it.
      steps: length of the run in place of epochs: the same work whatever the amount of data.
      batch_size: images a step, the global number.
      early_stopping: after how many evaluations of the held-out images without a better one the run ends; None: never.
      warm_start: another run's weights to begin with.
      same_initialisation: all branches begin with the same weights.
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
    train_images: Positive | None = None
    views: ViewPolicy | str | tuple[ViewPolicy | str, ...] | None = None
    identical_views: bool = False
    mixup_alpha: AtLeast0 = 0.0
    cutmix_alpha: AtLeast0 = 0.0
    mix_block: Positive | None = None
    batch_operations: tuple[str | KerasLayer, ...] = ()
    label_smoothing: Annotated[float, Within(0, below=1)] = 0.0
    cotraining: CoTraining = CoTraining()
    ensembling: Annotated[str, OneOf(tuple(ENSEMBLING))] = "mean_logits"
    dropout_samples: Whole = 0
    optimizer: OptimizerConfig = OptimizerConfig()
    learning_rate: LearningRate = LearningRate()
    ema_decay: Annotated[float, Within(above=0, below=1)] | None = None
    epochs: Positive | None = None
    steps: Positive | None = None
    batch_size: Positive = 128
    early_stopping: Positive | None = None
    warm_start: WarmStart | None = None
    same_initialisation: bool = False
    synchronised_norm: bool = False
    seed: int = 0
    precision: Annotated[str, OneOf(PRECISIONS)] = "float32"

    def __post_init__(self) -> None:
        fields.check(self)
        self._set_length()
        get_dataset(self.dataset)
        object.__setattr__(self, "overrides", spec_json.with_tuples(self.backbone, self.overrides))
        spec_json.check_overrides(self.backbone, self.overrides)
        check_division(self.backbone, **self._division)  # refuses what no network is, before any data is read
        if isinstance(self.views, tuple) and len(self.views) != self.split_factor:
            raise InputError(
                f"Views are one policy for all branches, or one for each. Received: {len(self.views)} policies for "
                f"split_factor={self.split_factor}; {self.split_factor} or a single one would work."
            )

    def _set_length(self) -> None:
        """One epoch where nothing says how long the run is."""
        if self.epochs is not None and self.steps is not None:
            raise InputError(
                f"A run has one length. Received: epochs={self.epochs}, steps={self.steps}; epochs=None would work."
            )
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)

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
        stack = BranchStack(
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
        if self.same_initialisation:
            values = stack.stacked_values()  # the state of Keras's random layers stays each branch's own
            first = {name: value[:1] for name, value in values.items() if value.dtype.kind == "f"}
            stack.assign_stacked({name: np.repeat(value, self.split_factor, axis=0) for name, value in first.items()})
        return stack

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
        return self._chosen(split, open_source(self.dataset, split, held_out=self.held_out, image_size=size, **options))

    def open_splits(self, **options: Any) -> Iterator[tuple[str, Source]]:
        """All that a run reads; `options` are those of `data.sources.open_splits`: data_dir, on_error, writes, ...

        Raises:
          InputError: also where the number of classes is not the dataset's.
        """
        size = self.preprocessing.image_size
        for split, source in open_splits(self.dataset, held_out=self.held_out, image_size=size, **options):
            self.check_classes(source)
            yield split, self._chosen(split, source)

    def _chosen(self, split: str, source: Source) -> Source:
        """The images of a split that the run is to see."""
        if split != "train" or self.train_images is None:
            return source
        return source.only(stratified(source.labels, self.train_images, seed=self.seed))

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

    def total_steps(self, steps_per_epoch: int) -> int:
        """The length of the run."""
        return self.steps if self.epochs is None else self.epochs * steps_per_epoch

    def schedule(self, steps_per_epoch: int) -> EpochSchedule:
        """The learning rate of each step."""
        epochs = self.total_steps(steps_per_epoch) / steps_per_epoch if self.epochs is None else self.epochs
        return self.learning_rate.resolve(epochs=epochs, steps_per_epoch=steps_per_epoch, batch_size=self.batch_size)

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
            "overrides": spec_json.overrides_to_json(self.backbone, self.overrides),
            "data": None if source is None else source.fingerprint(),
        }
        return json.loads(json.dumps(content))
