"""Keras's entry points, for a model whose training step is its own."""

from typing import Any

import keras

from divco_tf import compat
from divco_tf.models.branch_stack import BranchStack
from divco_tf.models.keras_export import export_saved_model
from divco_tf.models.refusals import OneLine
from divco_tf.training.keras_metrics import EnsembleMetrics, Means


class EntryPoints(OneLine, keras.Model):
    """`fit`, `evaluate` and what goes with them, around a `train_step` that feeds `means` and `EnsembleMetrics`.

    Attributes:
      stack: what is trained.
      means: of the losses and accuracies.
    """

    stack: BranchStack
    means: Means

    def compile(self, **options: Any) -> None:
        """As Keras's; what `metrics` and `weighted_metrics` hold is fed with labels in the form that it takes."""
        super().compile(**options)
        given = (options.get("metrics"), options.get("weighted_metrics"))
        metrics = EnsembleMetrics(self.means, *given, num_classes=self.stack.num_classes)
        compat.replace_compiled_metrics(self, metrics)

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
