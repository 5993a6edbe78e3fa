"""The branch stack: S small networks as one template and weights stacked on axis 0.

The branches are identical in shape: one trace is called S times, and the optimizer updates tensors [S, *shape].
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divco_tf import keras_settings
from divco_tf.errors import InputError
from divco_tf.models import draws, inputs, refusals
from divco_tf.models.backbones.registry import backbone_of
from divco_tf.models.divide import check_split_factor
from divco_tf.models.division import branch_spec
from divco_tf.models.keras_export import export_saved_model
from divco_tf.models.network import Network
from divco_tf.models.placement import Blocks, check_devices
from divco_tf.models.sizes import Sizes
from divco_tf.models.spec_json import spec_from_json, spec_to_json
from divco_tf.models.stacked_variables import StackedVariables
from divco_tf.models.summary import layer_table
from divco_tf.models.template import build_network, build_template, check_sizes, synchronise_norms
from divco_tf.spelling import also_spelt

KERAS_WORDS = {
    "dtype": "precision",
    "synchronized_norm": "synchronised_norm",
    "divide_regularizers": "divide_regularisers",
}


@also_spelt(**KERAS_WORDS)
def build(
    name: str | None = None,
    *,
    num_classes: int,
    input_shape: Sequence[int],
    split_factor: int = 1,
    spec: Any = None,
    copies: int | None = None,
    divide_regularisers: bool = True,
    rule: str = "paper",
    budget: str = "parameters",
    precision: str = "float32",
    seed: int = 0,
    devices: Sequence[str] | None = None,
    synchronised_norm: bool = False,
    **overrides: Any,
) -> "BranchStack":
    """The stack of the `split_factor` small networks that a backbone divides into.

    Args:
      name: of a registered backbone, "wide_resnet28_10"; or give `spec`.
      num_classes: K.
      input_shape: (H, W, C) of one view.
      split_factor: S.
      spec: instead of a name, the large network's spec.
      copies: so many undivided copies.
      divide_regularisers: False divides widths only.
      rule: "paper", the fields' rules; "budget", the width whose S networks cost as the large one (`models.budget`).
      budget: what the budget rule compares, "parameters" or "multiply_adds" (for one image of `input_shape`).
      precision: "float32", "mixed_bfloat16" or "mixed_float16"; logits are float32 in all of them.
      seed: of the initial values; every branch has a draw of its own.
      devices: see `BranchStack`.
      synchronised_norm: see `BranchStack`.
      **overrides: fields of the large network's spec, set before it is divided.

    Raises:
      InputError: an unknown name, field or size, or a split factor that the backbone cannot take.
    """
    division = {"split_factor": split_factor, "copies": copies, "rule": rule, "budget": budget}
    sizes = Sizes(num_classes=num_classes, input_shape=tuple(input_shape))
    spec = branch_spec(name, spec=spec, divide_regularisers=divide_regularisers, sizes=sizes, **division, **overrides)
    branches = split_factor if copies is None else copies
    return BranchStack(
        spec=spec,
        split_factor=branches,
        num_classes=num_classes,
        input_shape=input_shape,
        precision=precision,
        seed=seed,
        devices=devices,
        synchronised_norm=synchronised_norm,
        name=name and f"{name}_x{branches}",
    )


@keras.saving.register_keras_serializable("divco_tf")
class BranchStack(refusals.OneLine, keras.Model):
    """S networks of one spec: views [B, S, H, W, C] -> logits [B, S, K], float32.

    An input [B, H, W, C] is shown to every branch. `fit` and co-training losses are CoTrainingModel's.

    Args:
      spec: of each branch (already divided), of a registered backbone.
      split_factor: S.
      num_classes: K.
      input_shape: (H, W, C).
      precision: see `build`.
      seed: of the initial values.
      devices: D names such as "GPU:1", D a divisor of S: the branches lie on them in blocks of S/D neighbours, and a
        variable is D variables [S/D, *shape] (`models.placement`). None: one block, wherever TensorFlow puts it. No
        part of the configuration: a saved stack loads where there are no such devices.
      synchronised_norm: batch normalisation takes the statistics of all replicas' examples together instead of each
        replica's own. Replicas cannot meet inside a function of its own, so each branch is traced, and XLA is out.
    """

    @also_spelt(**KERAS_WORDS)
    @keras_settings.ours()
    def __init__(
        self,
        *,
        spec: Any,
        split_factor: int,
        num_classes: int,
        input_shape: Sequence[int],
        precision: str = "float32",
        seed: int = 0,
        devices: Sequence[str] | None = None,
        synchronised_norm: bool = False,
        name: str | None = None,
    ) -> None:
        view_shape, precision = tuple(input_shape), getattr(precision, "name", precision)  # or one of Keras's policies
        check_split_factor(split_factor)
        if devices is not None:
            devices = check_devices(split_factor, devices)
        check_sizes(num_classes=num_classes, input_shape=view_shape, precision=precision)
        backbone = backbone_of(spec)
        super().__init__(name=name or f"{backbone.builder.__name__}_x{split_factor}", dtype=precision)
        self.spec = spec
        self.split_factor = split_factor
        self.num_classes = num_classes
        self.view_shape = view_shape
        self.precision = precision
        self.seed = seed
        self.devices = devices
        self.synchronised_norm = synchronised_norm
        template = build_template(spec, num_classes=num_classes, input_shape=view_shape, precision=precision)
        if synchronised_norm:
            synchronise_norms(template)
        self.network = Network(template, Blocks(split_factor, devices or (None,)), inline=synchronised_norm)
        self._stacked = StackedVariables(self, self.network, seed=seed)
        self.build((None, split_factor, *view_shape))

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes nothing, as the constructor has made all; Keras's `export` reads what shape it was built for."""

    @property
    def branch_weights(self) -> list[keras.Variable]:
        """Variables that are made to be trained, in an order that does not change when some of them are frozen."""
        return self._stacked.weights

    @property
    def branch_statistics(self) -> list[keras.Variable]:
        """The other variables: moving means and variances, and the state of Keras's own random layers."""
        return self._stacked.statistics

    def run(
        self,
        weights: Sequence[tf.Tensor],
        statistics: Sequence[tf.Tensor],
        views: tf.Tensor,
        branch_draws: Sequence[tf.Tensor] | None = None,
        *,
        training: bool,
        jit: bool = False,
        remat: bool = False,
        in_turn: bool = False,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The S networks as a pure function: nothing is read from or written to this object's variables.

        An empty batch moves no statistics, and a stack that is not `trainable` none of batch normalisation.

        Args:
          weights: stacked [S, *shape], one per `branch_weights`; blocks [S/D, *shape] of a stack on D devices.
          statistics: stacked, one per `branch_statistics`.
          views: [B, S, H, W, C], or [B, H, W, C] for every branch.
          branch_draws: S tensors uint64 [B, 2] (`models.draws.draw_keys`) when training; default: none needed.
          training: a static bool.
          jit: compile each branch by XLA.
          remat: compute activations again for the gradient, block by block, instead of keeping them.
          in_turn: one branch after the other, in the gradient too; none keeps its activations meanwhile.

        Returns:
          logits float32 [B, S, K], new statistics (stacked).
        """
        views = inputs.checked_views(views, split_factor=self.split_factor, view_shape=self.view_shape)
        return self.network.run(
            weights,
            statistics,
            views,
            branch_draws,
            training=training,
            jit=jit,
            remat=remat,
            in_turn=in_turn,
            frozen=training and not self.trainable,
        )

    def call(self, views: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Views [B, S, H, W, C] or [B, H, W, C] -> logits [B, S, K]; training updates the statistics."""
        training, branch_draws = bool(training), None
        if training:
            branch_draws = [draws.random_draw_keys(tf.shape(views)[0]) for _ in range(self.split_factor)]
        logits, statistics = self.run(
            [variable.value for variable in self.branch_weights],
            [variable.value for variable in self.branch_statistics],
            views,
            branch_draws,
            training=training,
        )
        if training:
            for variable, value in zip(self.branch_statistics, statistics, strict=True):
                variable.assign(value)
        return logits

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple:
        """(B, S, K)."""
        inputs.check_shape(input_shape, split_factor=self.split_factor, view_shape=self.view_shape)
        return (input_shape[0], self.split_factor, self.num_classes)

    def branch(self, index: int) -> keras.Model:
        """A copy of branch `index` as a plain Keras model, [B, H, W, C] -> logits [B, K]."""
        self._check_branch(index)
        model = build_network(
            self.spec,
            num_classes=self.num_classes,
            input_shape=self.view_shape,
            precision=self.precision,
            name=f"{self.name}_branch{index}",
        )
        for variable, value in zip(model.variables, self._stacked.of_branch(index), strict=True):
            variable.assign(value)
        return model

    def set_branch(self, index: int, model: keras.Model) -> None:
        """Writes the weights of `model`, a network as `branch` returns it, into branch `index`.

        Raises:
          InputError: no such branch, or other variables; nothing is written then.
        """
        self._check_branch(index)
        theirs = [(variable.path.split("/")[-2:], tuple(variable.shape)) for variable in model.variables]
        ours = [(variable.path.split("/")[-2:], tuple(variable.shape)) for variable in self.network.template.variables]
        if theirs != ours:
            different = next((pair for pair in zip(theirs, ours, strict=False) if pair[0] != pair[1]), None)
            told = f"{different[0]} where {different[1]} belongs" if different else f"{len(theirs)} variables"
            raise InputError(
                f"The model is no branch of this stack ({len(ours)} variables). Received: {told}; "
                "start from stack.branch(i)."
            )
        self._stacked.assign_branch(index, [variable.numpy() for variable in model.variables])

    def stacked_values(self) -> dict[str, np.ndarray]:
        """Copies of all weights and statistics [S, *shape] by name, wherever they lie; in `variables`' order."""
        return self._stacked.values()

    def assign_stacked(self, values: Mapping[str, np.ndarray]) -> None:
        """Writes weights and statistics as `stacked_values` returns them.

        Args:
          values: of all variables, or of some.

        Raises:
          InputError: a name that no variable has, or another shape; nothing is written then.
        """
        self._stacked.assign(values)

    def on(self, devices: Sequence[str] | None) -> "BranchStack":
        """A copy with the same weights on other devices; None: as one block, for saving and export, say.

        Raises:
          InputError: devices that do not suit, see `placement.check_devices`.
        """
        names = ("spec", "split_factor", "num_classes", "precision", "seed", "synchronised_norm")
        config = {name: getattr(self, name) for name in names}
        copy = BranchStack(**config, input_shape=self.view_shape, devices=devices, name=self.name)
        copy.assign_stacked(self.stacked_values())
        copy.trainable = self.trainable
        for name, blocks in copy._stacked.by_name.items():
            for block in blocks:
                block.trainable = self._stacked.by_name[name][0].trainable
        return copy

    def export(
        self,
        filepath: str | os.PathLike,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **options: Any,
    ) -> None:
        """Keras's `export`: float32 views [B, S, H, W, C] or images [B, H, W, C] -> logits [B, S, K]."""
        images, views = (None, *self.view_shape), (None, self.split_factor, *self.view_shape)
        if self.devices is not None:  # which need not be there where it is loaded
            self.on(None).export(filepath, format, verbose, input_signature, **options)
        elif input_signature is None and format == "tf_saved_model":
            export_saved_model(self, filepath, shapes=(views, images), verbose=verbose, **options)
        else:
            super().export(filepath, format, verbose, input_signature or [keras.InputSpec("float32", views)], **options)

    def save_own_variables(self, store: dict) -> None:
        """Writes the variables for Keras's files: the same wherever they lie."""
        for place, value in enumerate(self.stacked_values().values()):
            store[str(place)] = value

    def load_own_variables(self, store: dict) -> None:
        """Reads what `save_own_variables` wrote.

        Raises:
          InputError: of another network; nothing is written then.
        """
        names = list(self._stacked.by_name)
        if len(store.keys()) != len(names):
            raise InputError(
                f"The file is of another network. Received: {len(store.keys())} variables; {self.name} has "
                f"{len(names)}."
            )
        self._stacked.assign({name: store[str(place)] for place, name in enumerate(names)})

    def summary(
        self, line_length: int = 100, print_fn: Callable[[str], None] | None = None, expand_nested: bool = False
    ) -> None:
        """Prints the template's layers with their outputs and their parameters over all S branches."""
        table = layer_table(
            self.network.template,
            copies=self.split_factor,
            title=f"{self.name}: {self.split_factor} branches of {self.spec}",
            line_length=line_length,
            expand_nested=expand_nested,
        )
        (print_fn or print)(table)

    def get_config(self) -> dict:
        """The constructor's arguments; the spec by its backbone's name and its fields."""
        return {
            **spec_to_json(self.spec),
            "split_factor": self.split_factor,
            "num_classes": self.num_classes,
            "input_shape": list(self.view_shape),
            "precision": self.precision,
            "seed": self.seed,
            "synchronised_norm": self.synchronised_norm,
            "name": self.name,
            **({} if self.trainable else {"trainable": False}),
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "BranchStack":
        """The inverse of `get_config`; the backbone must be registered."""
        config = dict(config)
        spec = spec_from_json({key: config.pop(key) for key in ("backbone", "spec")})
        trainable = config.pop("trainable", True)
        stack = cls(spec=spec, **config)
        if not trainable:
            stack.trainable = False
        return stack

    @property
    def synchronized_norm(self) -> bool:
        """Keras's spelling of `synchronised_norm`."""
        return self.synchronised_norm

    def _check_branch(self, index: int) -> None:
        if not 0 <= index < self.split_factor:
            raise InputError(f"No such branch. Received: {index}; there are 0 to {self.split_factor - 1}.")
