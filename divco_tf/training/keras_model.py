"""Keras's entry points, for a model whose training step is its own."""

from typing import Any

import keras
import tensorflow as tf

from divco_tf import compat, keras_settings
from divco_tf.errors import InputError
from divco_tf.models.branch_stack import BranchStack
from divco_tf.models.keras_export import export_saved_model
from divco_tf.models.refusals import OneLine
from divco_tf.training.keras_metrics import EnsembleMetrics, Means
from divco_tf.training.optim.placed import prepare_for_blocks


class EntryPoints(OneLine, keras.Model):
    """`fit`, `evaluate` and what goes with them, around a `train_step` that feeds `means` and `EnsembleMetrics`.

    Attributes:
      stack: what is trained.
      means: of the losses and accuracies.
    """

    stack: BranchStack
    means: Means
    _traced_for: tuple[int, ...] = ()  # ids of the variables that the traced step trains

    @keras_settings.ours()
    def compile(self, optimizer: Any = "rmsprop", **options: Any) -> None:
        """As Keras's `compile`, without `loss` (it is the constructor's) and `jit_compile` (`jit` is ours).

        What `metrics` and `weighted_metrics` hold is fed with labels in the form that it takes.

        Raises:
          InputError: an option that is not taken, or metrics of the model's own names.
        """
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
            given = (options.get("metrics"), options.get("weighted_metrics"))
            metrics = EnsembleMetrics(self.means, *given, num_classes=self.stack.num_classes)
            compat.replace_compiled_metrics(self, metrics)
            self.optimizer.build(self.stack.trainable_variables)

    def compile_from_config(self, config: dict) -> None:
        """Compiles as the saved model was."""
        self.compile(**keras.saving.deserialize_keras_object(config))

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Those of the losses and accuracies with the ones given to `compile`, then a subclass's own."""
        metrics = compat.without_loss_tracker(self, super().metrics)
        return [metric for metric in metrics if not (self.compiled and metric is self.means)]

    @property
    def metrics_names(self) -> list[str]:
        """What the lists of `evaluate`, `train_on_batch` and `test_on_batch` hold, in their order, the loss first."""
        names = [each.name for metric in self.metrics for each in getattr(metric, "metrics", [metric])]
        return [*names, *sorted(set(self.get_metrics_result()) - set(names))]

    def make_train_function(self, force: bool = False) -> Any:
        """As Keras's; the step is traced anew where other variables are trained than before."""
        trained = tuple(map(id, self.stack.trainable_variables))
        changed, self._traced_for = trained != self._traced_for, trained
        return super().make_train_function(force=force or changed)

    def export(
        self, filepath: Any, format: str = "tf_saved_model", input_signature: Any = None, **options: Any
    ) -> None:
        """As Keras's, for images [B, H, W, C] or views unless a signature is given: `serve` gives `predict`'s."""
        if self.stack.devices is not None:  # which need not be there where it is loaded
            copy = type(self).from_config(self.get_config())
            copy.stack.assign_stacked(self.stack.stacked_values())
            copy.export(filepath, format, input_signature, **options)
        elif input_signature is None and format == "tf_saved_model":
            shape = self.stack.view_shape
            shapes = ((None, *shape), (None, self.stack.split_factor, *shape))
            export_saved_model(self, filepath, shapes=shapes, **options)
        else:
            images = keras.InputSpec(shape=(None, *self.stack.view_shape), dtype="float32")
            super().export(filepath, format=format, input_signature=input_signature or [images], **options)

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing is left to build after `compile`; Keras's takes a batch for it, which a generator has once."""

    def _check_trained(self) -> None:
        """Refuses to train what the optimizer does not know.

        Raises:
          InputError: as said.
        """
        known = set(map(id, compat.variables_known(self.optimizer)))
        unknown = [variable.name for variable in self.stack.trainable_variables if id(variable) not in known]
        if unknown:
            raise InputError(
                f"The optimizer was made before these are trained. Received: {len(unknown)} variables such as "
                f"{unknown[0]}; call compile again, with a new optimizer."
            )

    def _updates_made(self) -> tf.Tensor:
        """How many steps have gone into the weights, or into an update that the optimizer gathers gradients for."""
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        iterations = optimizer.iterations
        return getattr(iterations, "value", iterations) * (optimizer.gradient_accumulation_steps or 1)
