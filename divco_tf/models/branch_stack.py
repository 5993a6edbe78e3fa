"""The branch stack: S small networks as one template and weights stacked on axis 0.

S separate Keras models cost S traces and S times the optimizer's ops. The branches are identical in shape, so one
template is traced once and called S times, and the optimizer updates tensors of shape [S, *shape].
"""

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models import draws
from divco_tf.models import remat as recomputation
from divco_tf.models.backbones import BACKBONES, backbone_of
from divco_tf.models.divide import check_split_factor
from divco_tf.models.spec import branch_spec
from divco_tf.models.summary import Sizes, layer_table
from divco_tf.models.template import build_network, build_template, check_sizes, initializer_of


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
    **overrides: Any,
) -> "BranchStack":
    """The stack of the `split_factor` small networks that a backbone divides into.

    Args:
      name: of a registered backbone, "wide_resnet28_10"; or give `spec`.
      num_classes: K.
      input_shape: (H, W, C) of one view.
      split_factor: S.
      spec: instead of a name, the large network's spec.
      copies: stack this many undivided copies instead of dividing.
      divide_regularisers: False divides widths only.
      rule: "paper", the rules of the spec's fields; or "budget", any split factor, by the width whose S networks come
        closest to what the large one costs and do not exceed it (`models.budget`).
      budget: what the budget rule compares, "parameters" or "multiply_adds" (for one image of `input_shape`).
      precision: "float32", "mixed_bfloat16" or "mixed_float16"; logits are float32 in all of them.
      seed: of the initial values; every branch has a draw of its own.
      **overrides: fields of the large network's spec, set before it is divided.

    Raises:
      InputError: an unknown name, field or size, or a split factor that the backbone cannot take.
    """
    spec = branch_spec(
        name,
        split_factor=split_factor,
        spec=spec,
        copies=copies,
        divide_regularisers=divide_regularisers,
        rule=rule,
        budget=budget,
        sizes=Sizes(num_classes=num_classes, input_shape=tuple(input_shape)),
        **overrides,
    )
    branches = split_factor if copies is None else copies
    return BranchStack(
        spec=spec,
        split_factor=branches,
        num_classes=num_classes,
        input_shape=input_shape,
        precision=precision,
        seed=seed,
        name=name and f"{name}_x{branches}",
    )


@keras.saving.register_keras_serializable("divco_tf")
class BranchStack(keras.Model):
    """S networks of one spec: views [B, S, H, W, C] -> logits [B, S, K], float32.

    An input [B, H, W, C] is shown to every branch. `fit` and co-training losses are CoTrainingModel's.

    Args:
      spec: of each branch (already divided), of a registered backbone.
      split_factor: S.
      num_classes: K.
      input_shape: (H, W, C).
      precision: see `build`.
      seed: of the initial values.
    """

    def __init__(
        self,
        *,
        spec: Any,
        split_factor: int,
        num_classes: int,
        input_shape: Sequence[int],
        precision: str = "float32",
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        view_shape = tuple(input_shape)
        check_split_factor(split_factor)
        check_sizes(num_classes=num_classes, input_shape=view_shape, precision=precision)
        backbone = backbone_of(spec)
        super().__init__(name=name or f"{backbone.builder.__name__}_x{split_factor}", dtype=precision)
        self.spec = spec
        self.split_factor = split_factor
        self.num_classes = num_classes
        self.view_shape = view_shape
        self.precision = precision
        self.seed = seed
        self.network = Network(
            build_template(spec, num_classes=num_classes, input_shape=view_shape, precision=precision)
        )
        for variable in self.network.template.variables:
            self.add_weight(
                name=variable.path.replace("/", "."),
                shape=(split_factor, *variable.shape),
                dtype=variable.dtype,
                initializer=_stacked_initializer(variable, split_factor, seed),
                trainable=variable.trainable,
                # Replicas would keep apart what they count themselves; the statistics are the mean over them. Whole
                # numbers are the state of Keras's own random layers, which is the same on each.
                aggregation="mean" if keras.backend.is_float_dtype(variable.dtype) else "only_first_replica",
                autocast=False,
            )
        self.built = True

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

        Args:
          weights: stacked [S, *shape], one per `trainable_variables`.
          statistics: stacked, one per `non_trainable_variables`.
          views: [B, S, H, W, C], or [B, H, W, C] for every branch.
          branch_draws: S tensors uint64 [B, 2] (`models.draws.draw_keys`) when training; default: none needed.
          training: a static bool.
          jit: compile each branch by XLA.
          remat: compute activations again for the gradient, block by block, instead of keeping them (`models.remat`).
          in_turn: one branch after the other, in the gradient too; none keeps its activations meanwhile.

        Returns:
          logits float32 [B, S, K], new statistics (stacked).
        """
        views = self._check_views(views)
        split_factor = self.split_factor
        function = self.network.function(training=training, jit=jit, remat=remat and training, in_turn=in_turn)
        per_view = tf.unstack(views, num=split_factor, axis=1) if views.shape.rank == 5 else [views] * split_factor
        if branch_draws is None:
            branch_draws = [tf.zeros([tf.shape(views)[0], *draws.DRAW_SHAPE], tf.uint64)] * split_factor
        if not views.shape[0]:  # None or 0: a replica's share of a small batch may be empty
            per_view, branch_draws = [*map(_never_empty, per_view)], [*map(_never_empty, branch_draws)]
        # unstack's gradient is one stack; slicing would pad each branch's gradient to full size and add S of them.
        unstacked_weights = [tf.unstack(weight, num=split_factor) for weight in weights]
        unstacked_statistics = [tf.unstack(statistic, num=split_factor) for statistic in statistics]
        outputs, updated = [], []
        for branch in range(split_factor):
            logits, new = function(
                [weight[branch] for weight in unstacked_weights],
                [statistic[branch] for statistic in unstacked_statistics],
                per_view[branch],
                branch_draws[branch],
            )
            outputs.append(logits)
            updated.append(new)
        new_statistics = [tf.stack(values) for values in zip(*updated, strict=True)] if training else list(statistics)
        return tf.stack(outputs, axis=1)[: tf.shape(views)[0]], new_statistics

    def call(self, views: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Views [B, S, H, W, C] or [B, H, W, C] -> logits [B, S, K]; training updates the statistics."""
        training, branch_draws = bool(training), None
        if training:
            branch_draws = [draws.random_draw_keys(tf.shape(views)[0]) for _ in range(self.split_factor)]
        logits, statistics = self.run(
            [variable.value for variable in self.trainable_variables],
            [variable.value for variable in self.non_trainable_variables],
            views,
            branch_draws,
            training=training,
        )
        if training:
            for variable, value in zip(self.non_trainable_variables, statistics, strict=True):
                variable.assign(value)
        return logits

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple:
        """(B, S, K)."""
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
        for variable, stacked in zip(model.variables, self._stacked_in_order(), strict=True):
            variable.assign(stacked[index])
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
        for variable, stacked in zip(model.variables, self._stacked_in_order(), strict=True):
            values = stacked.numpy().copy()
            values[index] = variable.numpy()
            stacked.assign(values)

    def summary(self, line_length: int = 100, print_fn: Callable[[str], None] | None = None, **_: Any) -> None:
        """Prints the template's layers with their outputs and their parameters over all S branches."""
        title = f"{self.name}: {self.split_factor} branches of {self.spec}"
        table = layer_table(self.network.template, copies=self.split_factor, title=title, line_length=line_length)
        (print_fn or print)(table)

    def get_config(self) -> dict:
        """The constructor's arguments; the spec by its backbone's name and its fields."""
        return {
            "backbone": backbone_of(self.spec).name,
            "spec": dataclasses.asdict(self.spec),
            "split_factor": self.split_factor,
            "num_classes": self.num_classes,
            "input_shape": list(self.view_shape),
            "precision": self.precision,
            "seed": self.seed,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "BranchStack":
        """The inverse of `get_config`; the backbone must be registered."""
        config = dict(config)
        spec_type = type(BACKBONES.get(config.pop("backbone")).spec)
        fields = {key: tuple(value) if isinstance(value, list) else value for key, value in config.pop("spec").items()}
        return cls(spec=spec_type(**fields), **config)

    def _stacked_in_order(self) -> list[keras.Variable]:
        """The stacked variables in the order of the template's `variables`, which mixes both kinds."""
        by_name = {variable.name: variable for variable in self.variables}
        return [by_name[variable.path.replace("/", ".")] for variable in self.network.template.variables]

    def _check_branch(self, index: int) -> None:
        if not 0 <= index < self.split_factor:
            raise InputError(f"No such branch. Received: {index}; there are 0 to {self.split_factor - 1}.")

    def _check_views(self, views: tf.Tensor) -> tf.Tensor:
        views = tf.convert_to_tensor(views)
        if views.shape.rank is None:  # Keras relaxes the shapes of a function that has been called with both ranks
            size, count = tf.shape(views)[0], tf.where(tf.rank(views) == 5, self.split_factor, 1)
            views = tf.reshape(views, [size, count, *self.view_shape])
            return tf.broadcast_to(views, [size, self.split_factor, *self.view_shape])
        expected = self.view_shape if views.shape.rank == 4 else (self.split_factor, *self.view_shape)
        if views.shape.rank not in (4, 5) or not views.shape[1:].is_compatible_with(expected):
            raise InputError(
                f"Views do not fit the stack. Received: shape {tuple(views.shape)}; pass "
                f"[B, {', '.join(map(str, (self.split_factor, *self.view_shape)))}] or "
                f"[B, {', '.join(map(str, self.view_shape))}]."
            )
        return views


class Network:
    """One branch's template, (image, draw) -> logits, and the functions made of it.

    A plain class, so that Keras neither tracks nor saves the template, whose variables have no values.
    """

    def __init__(self, template: keras.Model) -> None:
        self.template = template
        self._functions: dict[tuple[bool, ...], Callable] = {}

    def function(self, *, training: bool, jit: bool, remat: bool = False, in_turn: bool = False) -> Callable:
        """(weights, statistics, view, draw) -> (logits, new statistics), of one branch, traced once.

        With `in_turn` it is for the branches of one step: each call waits for the one before.
        """
        key = (training, jit, remat, in_turn and remat)
        if key not in self._functions:

            def network(weights: list, statistics: list, view: tf.Tensor, draw: tf.Tensor) -> tuple:
                return self.template.stateless_call(weights, statistics, [view, draw], training=training)

            if remat:  # XLA compiles the segments
                network = recomputation.segmented(self.template, training=training, jit=jit, keep_last=not in_turn)
            self._functions[key] = tf.function(network, jit_compile=jit and not remat, autograph=False)
        function = self._functions[key]
        return recomputation.in_turn(function, recompute=training and not remat) if in_turn else function


def _never_empty(batch: tf.Tensor) -> tf.Tensor:
    """`batch`, or one example of zeros for an empty one, on which oneDNN's convolutions fail (TensorFlow 2.21)."""
    shape = batch.shape
    if shape[0] == 0:
        return tf.zeros([1, *shape[1:]], batch.dtype)
    one = tf.concat([[1], tf.shape(batch)[1:]], axis=0)
    batch = tf.cond(tf.shape(batch)[0] > 0, lambda: batch, lambda: tf.zeros(one, batch.dtype))
    return tf.ensure_shape(batch, [None, *shape[1:]])


def _stacked_initializer(variable: keras.Variable, split_factor: int, seed: int) -> Callable:
    initializer = initializer_of(variable)
    if not keras.backend.is_float_dtype(variable.dtype):
        # (seed, counter) of one of Keras's random layers: each branch has masks of its own.
        seeds = [_seed_of(variable, branch, seed) for branch in range(split_factor)]
        return lambda shape, dtype: tf.constant([[own, 0] for own in seeds], dtype, shape)
    if "seed" not in getattr(initializer, "get_config", dict)():
        return lambda shape, dtype: tf.stack([tf.cast(initializer(shape[1:], dtype=dtype), dtype)] * split_factor)

    def draw(shape: Sequence[int], dtype: Any) -> tf.Tensor:
        values = []
        for branch in range(split_factor):
            config = {**initializer.get_config(), "seed": _seed_of(variable, branch, seed)}
            seeded = type(initializer).from_config(config)
            values.append(seeded(shape[1:], dtype=dtype))
        return tf.stack(values)

    return draw


def _seed_of(variable: keras.Variable, branch: int, seed: int) -> int:
    return zlib.crc32(f"{seed}/{branch}/{variable.path}".encode()) & 0x7FFFFFFF
