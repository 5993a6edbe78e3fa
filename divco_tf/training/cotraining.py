"""CoTrainingModel: S branches that learn from labels and from each other (arXiv 2011.14660, section III-B)."""

import contextlib
import dataclasses
from typing import Annotated, Any

import keras
import tensorflow as tf

from divco_tf import compat, fields, keras_settings
from divco_tf.errors import InputError
from divco_tf.fields import OneOf, Positive, Within
from divco_tf.models import draws
from divco_tf.models.branch_stack import BranchStack
from divco_tf.models.placement import check_one_replica
from divco_tf.runtime.compute import resolve_jit
from divco_tf.training import batch, losses, moving_average, replicas
from divco_tf.training.keras_metrics import Means
from divco_tf.training.keras_model import EntryPoints
from divco_tf.training.losses import CoTraining
from divco_tf.training.micro_batches import accumulated
from divco_tf.training.optim.placed import beside_inputs

_COTRAINING = CoTraining()


@keras.saving.register_keras_serializable("divco_tf")
class CoTrainingModel(EntryPoints):
    """Trains a branch stack with `compile` and `fit`, and predicts ensemble probabilities [B, K].

    The loss of an example is the sum over branches of the cross-entropy plus weight(step) times the co-training
    loss, averaged over the global batch. With S = 1 this is ordinary supervised training.

    Inputs are views [B, S, H, W, C] (or images [B, H, W, C], shown to every branch), labels int [B] or
    probabilities [B, K], and optional sample weights [B] (`training.batch` refuses others).

    Both schedules, of the learning rate and of the co-training weight, go by the updates that the optimizer has made. A
    step that is skipped, because it is not finite or its loss scale was too high, is none.

    What is frozen (`trainable = False` of the model, the stack or a variable of it) is not updated; a stack that is
    frozen as a whole runs as it predicts. A change after `compile` needs another `compile` where more is trained then.

    Args:
      stack: the branches.
      cotraining: the co-training loss and its weight; None: none, as a weight of 0.
      steps_per_epoch: needed when the weight ramps over epochs.
      ensembling: how predictions are combined, one of `losses.ENSEMBLING`.
      label_smoothing: e of (1 - e) y + e / K, in training only.
      micro_batches: into how many parts a replica's batch is divided, one after the other; the update is the
        whole batch's. Each part starts from the step's batch-norm statistics; the new ones are the parts' mean.
      jit: "auto" (on for GPU and TPU), "on" or "off": compile each branch by XLA.
      remat: less memory for one more forward pass: activations are computed again for the gradient, block by block.
      branches_in_turn: one branch after the other, so that the activations of one live at a time.
      seed: of dropout and its like.
      ema_decay: keeps a moving average of weights and statistics, `ema`: after step t it moves towards them by
        1 - min(ema_decay, (1 + t) / (10 + t)), so that the first steps do not stay in it. None keeps none.

    Attributes:
      ema: the averages, variables in the order of `stack.variables`; empty without `ema_decay`.
    """

    @keras_settings.ours()
    def __init__(
        self,
        stack: BranchStack,
        *,
        cotraining: CoTraining | None = _COTRAINING,
        steps_per_epoch: int | None = None,
        ensembling: str = "mean_logits",
        label_smoothing: float = 0.0,
        micro_batches: int = 1,
        jit: str = "auto",
        remat: bool = False,
        branches_in_turn: bool = False,
        seed: int = 0,
        ema_decay: float | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(stack, BranchStack):
            raise InputError(f"CoTrainingModel trains a branch stack. Received: {stack!r}; pass divco_tf.build(...).")
        if stack.devices:
            check_one_replica()
        # Without a dtype Keras's global policy would cast the images and scale the loss.
        super().__init__(name=name or f"cotraining_{stack.name}", dtype="float32")
        self.stack = stack
        self.cotraining = CoTraining(weight=0.0) if cotraining is None else cotraining
        self.steps_per_epoch = fields.checked(steps_per_epoch, Positive | None, "steps_per_epoch")
        _check_ramp(self.cotraining, self.steps_per_epoch, split_factor=stack.split_factor)
        self.ensembling = fields.checked(ensembling, Annotated[str, OneOf(tuple(losses.ENSEMBLING))], "ensembling")
        self.label_smoothing = fields.checked(label_smoothing, Annotated[float, Within(0, below=1)], "label_smoothing")
        self.micro_batches = fields.checked(micro_batches, Positive, "micro_batches")
        self.jit = jit
        self.remat = fields.checked(remat, bool, "remat")
        self.branches_in_turn = fields.checked(branches_in_turn, bool, "branches_in_turn")
        self.seed = fields.checked(seed, int, "seed")
        self.ema_decay = fields.checked(ema_decay, Annotated[float, Within(above=0, below=1)] | None, "ema_decay")
        check_synchronised_norm(stack.synchronised_norm, jit=jit, remat=remat, branches_in_turn=branches_in_turn)
        self._jit = resolve_jit("off" if stack.synchronised_norm else jit)
        self.means = Means.of_branches(stack.split_factor)
        self.step = self._counter("step")
        self.bad_steps = self._counter("bad_steps")
        self.ema = [] if self.ema_decay is None else moving_average.add_averages(self, stack.variables)
        self.reset_ema()
        self.built = True

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Images or views -> ensemble probabilities float32 [B, K]."""
        return losses.ensemble_probabilities(self.stack(images, training=training), self.ensembling)

    @keras_settings.ours()
    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """One update from views and labels; runs in the replica context."""
        views, labels, targets, sample_weight = batch.unpacked(data, num_classes=self.stack.num_classes)
        self._check_trained()
        smoothed = losses.smooth_labels(targets, self.label_smoothing)
        offset, global_size = replicas.place_in_global_batch(tf.shape(views)[0])
        gradients, statistics, logits = self._gradients(views, smoothed, sample_weight, offset, global_size)
        parts = self._loss_values(logits, smoothed)
        with self._beside_weights():
            self._apply_where_finite(gradients, statistics, tf.reduce_sum(parts["loss"]))
        with tf.control_dependencies([targets]):  # which are waited for until they are known to be labels
            self.step.assign_add(1)
        return self._log(parts, logits, labels, targets, sample_weight)

    @keras_settings.ours()
    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """The metrics of one batch, without label smoothing."""
        images, labels, targets, sample_weight = batch.unpacked(data, num_classes=self.stack.num_classes)
        logits = self._logits(images)
        return self._log(self._loss_values(logits, targets), logits, labels, targets, sample_weight)

    @keras_settings.ours()
    def predict_step(self, data: Any) -> tf.Tensor:
        """Ensemble probabilities [B, K]."""
        images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return losses.ensemble_probabilities(self._logits(batch.one_array(images)), self.ensembling)

    def cotraining_weight(self) -> tf.Tensor:
        """The co-training loss's weight at the next update, float32."""
        updates = self._updates_made() if self.compiled else self.step.value
        return self.cotraining.weight_at(updates, steps_per_epoch=self.steps_per_epoch or 1)

    def reset_ema(self) -> None:
        """Starts the moving average from the stack's present values; to be called when others have been put there."""
        for average, variable in zip(self.ema, self.stack.variables if self.ema else [], strict=True):
            average.assign(variable.value)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            "stack": keras.saving.serialize_keras_object(self.stack),
            "cotraining": dataclasses.asdict(self.cotraining),
            "steps_per_epoch": self.steps_per_epoch,
            "ensembling": self.ensembling,
            "label_smoothing": self.label_smoothing,
            "micro_batches": self.micro_batches,
            "jit": self.jit,
            "remat": self.remat,
            "branches_in_turn": self.branches_in_turn,
            "seed": self.seed,
            "ema_decay": self.ema_decay,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "CoTrainingModel":
        """The inverse of `get_config`."""
        config = dict(config)
        stack = keras.saving.deserialize_keras_object(config.pop("stack"), custom_objects=custom_objects)
        return cls(stack, cotraining=CoTraining(**config.pop("cotraining")), **config)

    def _counter(self, name: str) -> keras.Variable:
        return self.add_weight(
            name=name, shape=(), dtype="int64", initializer="zeros", trainable=False, aggregation="only_first_replica"
        )

    def _state(self) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """The values of the stack's weights and statistics."""

        def read(variables: list) -> list[tf.Tensor]:
            return [tf.convert_to_tensor(variable.value) for variable in variables]

        return read(self.stack.branch_weights), read(self.stack.branch_statistics)

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        logits, _ = self.stack.run(*self._state(), images, training=False, jit=self._jit)
        return logits

    def _loss_values(self, logits: tf.Tensor, targets: tf.Tensor) -> dict[str, tf.Tensor]:
        """Per-example values [B] of the loss and its parts, by name."""
        cross_entropy = tf.reduce_sum(losses.cross_entropy(targets, logits), axis=1)
        if self.stack.split_factor == 1:
            return {"loss": cross_entropy, "cross_entropy": cross_entropy, "cotraining": tf.zeros_like(cross_entropy)}
        cotraining = self.cotraining_weight() * losses.COTRAINING_LOSSES[self.cotraining.loss](logits)
        return {"loss": cross_entropy + cotraining, "cross_entropy": cross_entropy, "cotraining": cotraining}

    def _gradients(
        self, views: tf.Tensor, targets: tf.Tensor, sample_weight: Any, offset: tf.Tensor, global_size: tf.Tensor
    ) -> tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor]:
        """Gradients of this replica's share of the loss, new statistics, logits [B, S, K]."""
        weights, statistics = self._state()
        watched = self._of_trained(weights)
        step, size = self.step.value, tf.shape(views)[0]
        options = {"training": True, "jit": self._jit, "remat": self.remat, "in_turn": self.branches_in_turn}

        def part(views: tf.Tensor, targets: tf.Tensor, sample_weight: tf.Tensor, positions: tf.Tensor) -> tuple:
            branch_draws = [
                draws.draw_keys(seed=self.seed, step=step, branch=branch, positions=positions)
                for branch in range(self.stack.split_factor)
            ]
            with tf.GradientTape() as tape:
                tape.watch(watched)
                logits, new = self.stack.run(weights, statistics, views, branch_draws, **options)
                values = self._loss_values(logits, targets)["loss"] * sample_weight
                loss = self.optimizer.scale_loss(tf.reduce_sum(values) / tf.cast(global_size, tf.float32))
            return tape.gradient(loss, watched, unconnected_gradients="zero"), new, logits

        gradients, new, logits = accumulated(
            part,
            (views, targets, tf.ones([size]) if sample_weight is None else sample_weight, offset + tf.range(size)),
            count=self.micro_batches,
            weights=watched,
            statistics=statistics,
            unrolled=bool(self.stack.devices or self.stack.synchronised_norm),
        )
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:  # an empty share of a batch has no statistics
            new = [tf.where(size > 0, after, before) for after, before in zip(new, statistics, strict=True)]
        return gradients, new, logits

    def _of_trained(self, weights: list[tf.Tensor]) -> list[tf.Tensor]:
        """Of the values of all weights those that are not frozen."""
        trained = set(map(id, self.stack.trainable_variables))
        pairs = zip(weights, self.stack.branch_weights, strict=True)
        return [value for value, variable in pairs if id(variable) in trained]

    def _beside_weights(self) -> contextlib.AbstractContextManager:
        """What is computed inside from weights, gradients or statistics is computed on the device they lie on."""
        return beside_inputs() if self.stack.devices else contextlib.nullcontext()

    def _apply_where_finite(self, gradients: list, statistics: list, loss: tf.Tensor) -> None:
        """Updates weights and statistics, on no replica if the loss or a gradient of any is not finite."""
        finite = tf.math.is_finite(loss)
        blocks = len(self.stack.devices or [None])
        sums = [[tf.reduce_sum(gradient) for gradient in gradients[block::blocks]] for block in range(blocks)]
        finite_gradients = tf.reduce_all([tf.reduce_all(tf.math.is_finite(of_block)) for of_block in sums])
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = replicas.flawed_unless(finite_gradients, gradients)
        else:
            finite = finite & finite_gradients

        def update(gradients: list, statistics: list) -> None:
            if gradients:
                self.optimizer.apply(gradients, self.stack.trainable_variables)
            for variable, value in zip(self.stack.branch_statistics, statistics, strict=True):
                variable.assign(value)
            self.bad_steps.assign(tf.zeros_like(self.bad_steps.value))

        def skip() -> None:
            self.bad_steps.assign_add(1)

        def move_averages(strategy: tf.distribute.Strategy) -> None:
            if self.ema:
                moving_average.move(
                    self.ema, self.stack.variables, decay=self.ema_decay, step=self.step.value, strategy=strategy
                )

        replicas.update_all_or_none(finite, update, (gradients, statistics), then=move_averages, otherwise=skip)

    def _log(
        self, parts: dict[str, tf.Tensor], logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor, sample_weight: Any
    ) -> dict[str, tf.Tensor]:
        """Counts a batch; what Keras is to show of all since the last reset."""
        probabilities = losses.ensemble_probabilities(logits, self.ensembling)
        self.means.update_of_branches(parts, logits, probabilities, targets, sample_weight)
        if self.compiled:
            compat.compiled_metrics(self).update_users(labels, targets, probabilities, sample_weight)
        return self.get_metrics_result()


def check_synchronised_norm(synchronised_norm: bool, *, jit: str, remat: bool, branches_in_turn: bool) -> None:
    """Refuses synchronised batch norm where replicas cannot meet.

    Raises:
      InputError: as said.
    """
    if synchronised_norm and (jit == "on" or remat or branches_in_turn):
        raise InputError(
            f"Replicas cannot meet inside of XLA or recomputed functions. Received: synchronised_norm=True, "
            f"jit={jit!r}, remat={remat}, branches_in_turn={branches_in_turn}; jit='auto' and no recomputation "
            "would work."
        )


def _check_ramp(cotraining: Any, steps_per_epoch: int | None, *, split_factor: int) -> None:
    if not isinstance(cotraining, CoTraining):
        raise InputError(f"cotraining= is no CoTraining. Received: {cotraining!r}; pass CoTraining(loss='js', ...).")
    if cotraining.warmup_epochs and steps_per_epoch is None and split_factor > 1:
        raise InputError(
            f"The co-training weight ramps over epochs whose length is not known. Received: warmup_epochs="
            f"{cotraining.warmup_epochs}, steps_per_epoch=None; pass steps_per_epoch."
        )
