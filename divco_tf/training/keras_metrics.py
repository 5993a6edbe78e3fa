"""What a CoTrainingModel counts while it trains: its own means, and the metrics that were given to `compile`."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from divco_tf import compat
from divco_tf.errors import InputError

_PARTS = ("loss", "cross_entropy", "cotraining")


@keras.saving.register_keras_serializable("divco_tf")
class Means(keras.metrics.Metric):
    """Means of several named values an example: one total and one count, whatever their number."""

    def __init__(self, names: Sequence[str], name: str = "means") -> None:
        super().__init__(name=name, dtype="float32")  # whatever Keras's floatx
        self.names = tuple(names)
        self.total = self.add_variable(shape=(len(names),), initializer="zeros", dtype="float32", name="total")
        self.count = self.add_variable(shape=(), initializer="zeros", dtype="float32", name="count")

    @classmethod
    def of_branches(cls, split_factor: int) -> "Means":
        """Those of a model with so many branches: the loss and its parts, the ensemble's and each branch's accuracy."""
        return cls((*_PARTS, "accuracy", *(f"branch{branch}_accuracy" for branch in range(split_factor))))

    def update_of_branches(
        self,
        parts: dict[str, tf.Tensor],
        logits: tf.Tensor,
        probabilities: tf.Tensor,
        targets: tf.Tensor,
        sample_weight: tf.Tensor | None,
    ) -> None:
        """Adds a batch to what `of_branches` made.

        Args:
          parts: the loss and its parts [B], by name.
          logits: of the branches, [B, S, K].
          probabilities: the ensemble's, [B, K].
          targets: what they should be, [B, K].
          sample_weight: [B].
        """
        classes = tf.argmax(targets, axis=-1)
        right = tf.cast(tf.argmax(probabilities, axis=-1) == classes, tf.float32)
        branches_right = tf.cast(tf.argmax(logits, axis=-1) == classes[:, None], tf.float32)
        values = tf.stack([*(parts[name] for name in _PARTS), right], axis=1)
        self.update_state(tf.concat([values, branches_right], axis=1), sample_weight)

    @property
    def metrics(self) -> list[compat.Monitored]:
        """The values as Keras's callbacks look for them."""
        return [compat.Monitored(name, higher_is_better=name.endswith("accuracy")) for name in self.names]

    def update_state(self, values: tf.Tensor, sample_weight: tf.Tensor | None = None) -> None:
        """Adds values [B, len(names)], weighted by [B]."""
        weight = tf.ones_like(values[:, 0]) if sample_weight is None else tf.cast(sample_weight, values.dtype)
        self.total.assign_add(tf.linalg.matvec(values, weight, transpose_a=True))
        self.count.assign_add(tf.reduce_sum(weight))

    def read(self) -> tf.Tensor:
        """The means in the order of `names`, float32 [len(names)]: one tensor, as each is a wait on a GPU."""
        return tf.math.divide_no_nan(tf.convert_to_tensor(self.total.value), tf.convert_to_tensor(self.count.value))

    def result(self) -> dict[str, tf.Tensor]:
        """The means by name."""
        return dict(zip(self.names, tf.unstack(self.read(), num=len(self.names)), strict=True))

    def get_config(self) -> dict:
        """The constructor's arguments."""
        return {"name": self.name, "names": list(self.names)}


class EnsembleMetrics(compat.compile_metrics()):
    """The model's own means, then the metrics given to `compile`, each fed with labels in the form that it takes.

    Keras gives every metric the labels as they come, so that a sparse one is wrong for one-hot labels and any other for
    class numbers. Here Keras's sparse metrics get class numbers [B], its others probabilities [B, K] as the
    predictions are, and those of users (functions, classes of their own) the labels that they gave.

    Args:
      means: of the model.
      metrics, weighted_metrics: as `compile` takes them.
      num_classes: K.

    Raises:
      InputError: one is called as one of the model's own; only "accuracy" may be, which it is then instead.
    """

    def __init__(self, means: Means, metrics: Any, weighted_metrics: Any, *, num_classes: int) -> None:
        super().__init__(metrics, weighted_metrics)
        self.means = means
        # Keras chooses by these shapes what "accuracy" is.
        self.build(keras.KerasTensor((None,), "int32"), keras.KerasTensor((None, num_classes), "float32"))
        for metric in super().metrics:
            if metric.name in means.names and metric.name != "accuracy":
                raise InputError(
                    f"A metric is called as one of the model's own. Received: {metric.name!r}; another name would do."
                )

    @property
    def metrics(self) -> list[Any]:
        """In the order of the results, the loss first."""
        by_name = {metric.name: metric for metric in (*self.means.metrics, *super().metrics)}
        return list(by_name.values())

    @property
    def variables(self) -> list[keras.Variable]:
        """Of all of them."""
        return [*self.means.variables, *super().variables]

    def update_users(
        self, labels: tf.Tensor, targets: tf.Tensor, probabilities: tf.Tensor, sample_weight: tf.Tensor | None
    ) -> None:
        """Updates the metrics that were given to `compile`.

        Args:
          labels: as they were given.
          targets: the same as probabilities [B, K].
          probabilities: the ensemble's [B, K].
          sample_weight: [B], for `weighted_metrics`.
        """
        forms = {"sparse": tf.argmax(targets, axis=-1), "dense": targets, "given": labels}
        plain, weighted = compat.metrics_given(self)
        for metrics, weight in ((plain, None), (weighted, sample_weight)):
            for metric in metrics:
                metric.update_state(forms[_form_of(metric)], probabilities, sample_weight=weight)

    def reset_state(self) -> None:
        """Starts anew."""
        self.means.reset_state()
        super().reset_state()

    def result(self) -> dict[str, tf.Tensor]:
        """By name, the loss first."""
        return self.means.result() | super().result()


_GENERIC = (keras.metrics.Metric, keras.metrics.Mean, keras.metrics.Sum, keras.metrics.MeanMetricWrapper)


def _form_of(metric: keras.metrics.Metric) -> str:
    """Which labels a metric takes: "sparse" (class numbers), "dense" (probabilities), or "given", as the user's are."""
    sparse = getattr(metric, "sparse_y_true", None)  # of keras.metrics.IoU and its like
    if sparse is not None:
        return "sparse" if sparse else "dense"
    known = next(kind for kind in type(metric).__mro__ if kind.__module__.startswith("keras."))
    if known is keras.metrics.MeanMetricWrapper:
        function = compat.function_of(metric)
        known = function if hasattr(function, "__name__") else type(function)
    if known in _GENERIC or not known.__module__.startswith("keras."):
        return "given"
    return "sparse" if known.__name__.lower().startswith("sparse") else "dense"
