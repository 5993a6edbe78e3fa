"""CoTrainingModel: S branches that learn from labels and from each other (arXiv 2011.14660, section III-B)."""

import contextlib
import dataclasses
from typing import Any

import keras
import tensorflow as tf

from divco_tf import compat, fields, keras_settings
from divco_tf.errors import InputError
from divco_tf.models import draws, placement
from divco_tf.models.branch_stack import BranchStack
from divco_tf.runtime.compute import resolve_jit
from divco_tf.training import losses
from divco_tf.training.keras_metrics import Means
from divco_tf.training.keras_model import EntryPoints
from divco_tf.training.labels import as_probabilities, as_weights, length
from divco_tf.training.losses import CoTraining
from divco_tf.training.micro_batches import accumulate, accumulate_unrolled
from divco_tf.training.optim.placed import prepare_for_blocks

_COTRAINING = CoTraining()


@keras.saving.register_keras_serializable("divco_tf")
class CoTrainingModel(EntryPoints):
    """Trains a branch stack with `compile` and `fit`, and predicts ensemble probabilities [B, K].

    The loss of an example is the sum over branches of the cross-entropy plus weight(step) times the co-training
    loss, averaged over the global batch. With S = 1 this is ordinary supervised training.

    Inputs are views [B, S, H, W, C] (or images [B, H, W, C], shown to every branch), labels int [B] or
    probabilities [B, K], and optional sample weights [B] (`training.labels` refuses others).

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
        cotraining = CoTraining(weight=0.0) if cotraining is None else cotraining
        _check_stack(stack)
        _check_cotraining(cotraining, steps_per_epoch, split_factor=stack.split_factor)
        label_smoothing, micro_batches, seed = map(fields.plain, (label_smoothing, micro_batches, seed))
        _check_options(ensembling, label_smoothing, micro_batches, seed)
        for option, value in (("remat", remat), ("branches_in_turn", branches_in_turn)):
            fields.checked(value, bool, option)
        check_synchronised_norm(stack.synchronised_norm, jit=jit, remat=remat, branches_in_turn=branches_in_turn)
        check_ema_decay(ema_decay)
        # Without a dtype Keras's global policy would cast the images and scale the loss.
        super().__init__(name=name or f"cotraining_{stack.name}", dtype="float32")
        self.stack = stack
        self.cotraining = cotraining
        self.ensembling = ensembling
        self.label_smoothing = label_smoothing
        self.micro_batches = micro_batches
        self.jit = jit
        self.remat = remat
        self.branches_in_turn = branches_in_turn
        self.seed = seed
        self.ema_decay = ema_decay
        self._steps_per_epoch = steps_per_epoch
        self._jit = resolve_jit("off" if stack.synchronised_norm else jit)
        self.means = Means.of_branches(stack.split_factor)
        self.step = self._counter("step")
        self.bad_steps = self._counter("bad_steps")
        self.ema = [] if ema_decay is None else [self._average_of(variable) for variable in stack.variables]
        self.reset_ema()
        self._traced_for: tuple = ()
        self.built = True

    @keras_settings.ours()
    def compile(self, optimizer: Any = "rmsprop", **options: Any) -> None:
        """As Keras's `compile`, without `loss` (it is the constructor's) and `jit_compile` (`jit` is ours)."""
        for name, instead in (("loss", "cotraining and label_smoothing"), ("jit_compile", "jit")):
            if options.pop(name, None) not in (None, "auto", False):
                raise InputError(
                    f"compile takes no {name} here. Received: {name}=...; give CoTrainingModel {instead} instead."
                )
        replicas = self.distribute_strategy.num_replicas_in_sync
        if replicas > 1 and options.get("steps_per_execution", 1) != 1:  # Keras 3.15: an obscure placeholder error
            raise InputError(
                f"Several steps an execution do not run on {replicas} replicas. Received: steps_per_execution="
                f"{options['steps_per_execution']}; leave it out."
            )
        with self.distribute_strategy.scope():
            optimizer = keras.optimizers.get(optimizer)
            scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
            if self.stack.precision == "mixed_float16" and options.get("auto_scale_loss", True) and not scales:
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
            if self.stack.devices:
                prepare_for_blocks(optimizer)
            super().compile(optimizer=optimizer, jit_compile=False, **options)
            self.optimizer.build(self.stack.trainable_variables)

    def compile_from_config(self, config: dict) -> None:
        """Compiles as the saved model was."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    def call(self, images: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """Images or views -> ensemble probabilities float32 [B, K]."""
        return losses.ensemble_probabilities(self.stack(images, training=training), self.ensembling)

    @keras_settings.ours()
    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """One update from views and labels; runs in the replica context."""
        views, labels, targets, sample_weight = self._unpacked(data)
        self._check_trained()
        offset, global_size = _place_in_global_batch(tf.shape(views)[0])
        gradients, statistics, logits = self._gradients(views, targets, sample_weight, offset, global_size)
        values = self._loss_values(logits, losses.smooth_labels(targets, self.label_smoothing))
        with self._beside_weights():
            self._apply_where_finite(gradients, statistics, tf.reduce_sum(values["loss"]))
        with tf.control_dependencies([targets]):  # which are waited for until they are known to be labels
            self.step.assign_add(1)
        return self._log(values, logits, labels, targets, sample_weight)

    @keras_settings.ours()
    def test_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """The metrics of one batch, without label smoothing."""
        images, labels, targets, sample_weight = self._unpacked(data)
        logits = self._logits(images)
        return self._log(self._loss_values(logits, targets), logits, labels, targets, sample_weight)

    @keras_settings.ours()
    def predict_step(self, data: Any) -> tf.Tensor:
        """Ensemble probabilities [B, K]."""
        images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        return losses.ensemble_probabilities(self._logits(_one_array(images)), self.ensembling)

    def cotraining_weight(self) -> tf.Tensor:
        """The co-training loss's weight at the next update, float32."""
        return self.cotraining.weight_at(self._updates(), steps_per_epoch=self._steps_per_epoch or 1)

    def reset_ema(self) -> None:
        """Starts the moving average from the stack's present values; to be called when others have been put there."""
        for average, variable in zip(self.ema, self.stack.variables if self.ema else [], strict=True):
            average.assign(variable.value)

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {
            "stack": keras.saving.serialize_keras_object(self.stack),
            "cotraining": dataclasses.asdict(self.cotraining),
            "steps_per_epoch": self._steps_per_epoch,
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

    def _updates(self) -> tf.Tensor:
        """How many steps have updated the weights, or gone into an update that the optimizer gathers gradients for."""
        if not self.compiled:
            return self.step.value
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        iterations = optimizer.iterations
        gathered = optimizer.gradient_accumulation_steps or 1
        return getattr(iterations, "value", iterations) * gathered

    def _counter(self, name: str) -> keras.Variable:
        return self.add_weight(
            name=name, shape=(), dtype="int64", initializer="zeros", trainable=False, aggregation="only_first_replica"
        )

    def _average_of(self, variable: keras.Variable) -> keras.Variable:
        average = self.add_weight(
            name=f"ema.{variable.name}",
            shape=variable.shape,
            dtype=variable.dtype,
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",  # each replica averages the same values by itself
            autocast=False,
        )
        setattr(self, average.name, average)  # tf.train.Checkpoint finds attributes only
        return average

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        logits, _ = self.stack.run(*self._state(), images, training=False, jit=self._jit)
        return logits

    def _state(self) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        def read(variables: list) -> list[tf.Tensor]:
            return [tf.convert_to_tensor(variable.value) for variable in variables]

        return read(self.stack.branch_weights), read(self.stack.branch_statistics)

    def _of_trained(self, weights: list[tf.Tensor]) -> list[tf.Tensor]:
        """Of the values of all weights those that are not frozen."""
        trained = set(map(id, self.stack.trainable_variables))
        pairs = zip(weights, self.stack.branch_weights, strict=True)
        return [value for value, variable in pairs if id(variable) in trained]

    def _beside_weights(self) -> contextlib.AbstractContextManager:
        """What is computed inside from weights, gradients or statistics is computed on the device they lie on."""
        return placement.beside_inputs() if self.stack.devices else contextlib.nullcontext()

    def _unpacked(self, data: Any) -> tuple[tf.Tensor, Any, tf.Tensor, tf.Tensor | None]:
        """Images or views, labels as given, labels as probabilities [B, K], sample weights [B] if there are any."""
        images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        images = _one_array(images)
        examples = length(images)
        targets = as_probabilities(labels, num_classes=self.stack.num_classes, examples=examples)
        return images, labels, targets, as_weights(sample_weight, examples=examples)

    def _check_trained(self) -> None:
        known = set(map(id, compat.variables_known(self.optimizer)))
        unknown = [variable.name for variable in self.stack.trainable_variables if id(variable) not in known]
        if unknown:
            raise InputError(
                f"The optimizer was made before these are trained. Received: {len(unknown)} variables such as "
                f"{unknown[0]}; call compile again, with a new optimizer."
            )

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
        smoothed = losses.smooth_labels(targets, self.label_smoothing)
        step, size = self.step.value, tf.shape(views)[0]
        options = {"training": True, "jit": self._jit, "remat": self.remat, "in_turn": self.branches_in_turn}
        sample_weight = tf.ones([size]) if sample_weight is None else sample_weight

        def part(views: tf.Tensor, smoothed: tf.Tensor, sample_weight: tf.Tensor, positions: tf.Tensor) -> tuple:
            branch_draws = [
                draws.draw_keys(seed=self.seed, step=step, branch=branch, positions=positions)
                for branch in range(self.stack.split_factor)
            ]
            with tf.GradientTape() as tape:
                tape.watch(watched)
                logits, new = self.stack.run(weights, statistics, views, branch_draws, **options)
                values = self._loss_values(logits, smoothed)["loss"] * sample_weight
                loss = self.optimizer.scale_loss(tf.reduce_sum(values) / tf.cast(global_size, tf.float32))
            return tape.gradient(loss, watched, unconnected_gradients="zero"), new, logits

        inputs = (views, smoothed, sample_weight, offset + tf.range(size))
        if self.micro_batches == 1:
            gradients, new, logits = part(*inputs)
        else:
            # Replicas meet in a synchronised norm, which a loop of the graph does not allow.
            unrolled = self.stack.devices or self.stack.synchronised_norm
            accumulated = accumulate_unrolled if unrolled else accumulate
            gradients, new, logits = accumulated(part, inputs, self.micro_batches, watched, statistics)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:  # an empty share of a batch has no statistics
            new = [tf.where(size > 0, after, before) for after, before in zip(new, statistics, strict=True)]
        return gradients, new, logits

    def _apply_where_finite(self, gradients: list, statistics: list, loss: tf.Tensor) -> None:
        """Updates weights and statistics, on no replica if the loss or a gradient of any is not finite.

        The cond must stand in the cross-replica context: a branch of a cond in the replica context may not merge.
        """
        finite = tf.math.is_finite(loss)
        blocks = len(self.stack.devices or [None])
        sums = [[tf.reduce_sum(gradient) for gradient in gradients[block::blocks]] for block in range(blocks)]
        finite_gradients = tf.reduce_all([tf.reduce_all(tf.math.is_finite(of_block)) for of_block in sums])
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            # It answers overflows itself, but asks the first replica only whether there is one (Keras 3.15).
            flaw = tf.where(finite_gradients, 0.0, float("nan"))
            if self.distribute_strategy.num_replicas_in_sync > 1:
                flaw = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, flaw)
            gradients = [*(gradient + flaw for gradient in gradients[:1]), *gradients[1:]]
        else:
            finite = finite & finite_gradients
        finite = tf.cast(finite, tf.float32)

        def update(gradients: list, statistics: list) -> None:
            if gradients:
                self.optimizer.apply(gradients, self.stack.trainable_variables)
            for variable, value in zip(self.stack.branch_statistics, statistics, strict=True):
                variable.assign(value)
            self.bad_steps.assign(tf.zeros_like(self.bad_steps.value))

        def skip() -> None:
            self.bad_steps.assign_add(1)

        def merged(strategy: tf.distribute.Strategy, gradients: list, statistics: list, finite: Any) -> None:
            run = strategy.extended.call_for_each_replica
            everywhere = strategy.reduce("MEAN", finite, axis=None) == 1.0

            def apply() -> None:
                run(update, args=(gradients, statistics))
                self._update_ema(strategy)

            tf.cond(everywhere, apply, lambda: run(skip))

        tf.distribute.get_replica_context().merge_call(merged, args=(gradients, statistics, finite))

    def _update_ema(self, strategy: tf.distribute.Strategy) -> None:
        """Moves the averages, on each device by itself; in the cross-replica context."""
        if not self.ema:
            return
        step = tf.cast(self.step.value, tf.float64)
        rest = 1 - tf.minimum(tf.constant(self.ema_decay, tf.float64), (1 + step) / (10 + step))

        def move(average: tf.Variable, value: tf.Variable) -> None:
            if value.dtype.is_floating:
                average.assign_add(tf.cast(rest, value.dtype) * (value - average))
            else:  # the state of Keras's own random layers
                average.assign(value)

        for average, variable in zip(self.ema, self.stack.variables, strict=True):
            strategy.extended.update(average.value, move, args=(variable.value,), group=False)

    def _log(
        self, values: dict[str, tf.Tensor], logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor, sample_weight: Any
    ) -> dict[str, tf.Tensor]:
        probabilities = losses.ensemble_probabilities(logits, self.ensembling)
        classes = tf.argmax(targets, axis=-1)
        right = tf.cast(tf.argmax(probabilities, axis=-1) == classes, tf.float32)
        branches_right = tf.cast(tf.argmax(logits, axis=-1) == classes[:, None], tf.float32)
        parts = (values["loss"], values["cross_entropy"], values["cotraining"], right)
        self.means.update_state(tf.concat([tf.stack(parts, axis=1), branches_right], axis=1), sample_weight)
        if self.compiled:
            compat.compiled_metrics(self).update_users(labels, targets, probabilities, sample_weight)
        return self.get_metrics_result()


def _place_in_global_batch(size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where this replica's `size` examples begin in the global batch, and how many that has; shares may be uneven."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tf.zeros_like(size), size
    mine = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync) * tf.cast(size, tf.float32)
    sizes = tf.cast(context.all_reduce(tf.distribute.ReduceOp.SUM, mine), tf.int32)
    before = tf.range(context.num_replicas_in_sync) < context.replica_id_in_sync_group
    return tf.reduce_sum(tf.where(before, sizes, 0)), tf.reduce_sum(sizes)


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


def _one_array(images: Any) -> tf.Tensor:
    if isinstance(images, dict | list | tuple):
        raise InputError(
            f"Images are several arrays. Received: a {type(images).__name__} of {len(images)}; pass one, views "
            "[B, S, H, W, C] (np.stack(views, axis=1), say) or images [B, H, W, C]."
        )
    return tf.convert_to_tensor(images)


def check_ema_decay(decay: float | None) -> None:
    """Refuses what no moving average decays by.

    Raises:
      InputError: neither None nor a number above 0 and below 1.
    """
    if decay is not None and (isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 < decay < 1):
        raise InputError(f"ema_decay is not above 0 and below 1. Received: {decay!r}; 0.999 is usual, None is off.")


def _check_stack(stack: Any) -> None:
    if not isinstance(stack, BranchStack):
        raise InputError(f"CoTrainingModel trains a branch stack. Received: {stack!r}; pass divco_tf.build(...).")
    if stack.devices:
        placement.check_one_replica()


def _check_cotraining(cotraining: Any, steps_per_epoch: Any, *, split_factor: int) -> None:
    if not isinstance(cotraining, CoTraining):
        raise InputError(f"cotraining= is no CoTraining. Received: {cotraining!r}; pass CoTraining(loss='js', ...).")
    if steps_per_epoch is not None:
        steps_per_epoch = fields.checked(steps_per_epoch, fields.Positive, "steps_per_epoch")
    elif cotraining.warmup_epochs and split_factor > 1:
        raise InputError(
            f"The co-training weight ramps over epochs whose length is not known. Received: warmup_epochs="
            f"{cotraining.warmup_epochs}, steps_per_epoch=None; pass steps_per_epoch."
        )


def _check_options(ensembling: Any, label_smoothing: Any, micro_batches: Any, seed: Any) -> None:
    if not isinstance(ensembling, str) or ensembling not in losses.ENSEMBLING:
        raise InputError(f"Unknown ensembling. Received: {ensembling!r}; pass one of {', '.join(losses.ENSEMBLING)}.")
    if type(label_smoothing) not in (int, float) or not 0 <= label_smoothing < 1:
        raise InputError(f"Label smoothing is not in [0, 1). Received: {label_smoothing!r}; 0.1 is usual.")
    if type(micro_batches) is not int or micro_batches < 1:
        raise InputError(f"The number of micro-batches is below 1. Received: {micro_batches!r}; pass 1, 2, ...")
    if type(seed) is not int:
        raise InputError(f"The seed is no whole number. Received: {seed!r}; pass 0, 1, ...")
