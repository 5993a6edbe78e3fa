"""A backbone as one functional Keras model: with values, or as a template that has shapes only."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divco_tf import compat, keras_settings
from divco_tf.errors import InputError
from divco_tf.models import builder_checks, draws
from divco_tf.models.backbones.registry import backbone_of

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def build_network(
    spec: Any,
    *,
    num_classes: int,
    input_shape: tuple[int, int, int],
    precision: str = "float32",
    name: str | None = None,
) -> keras.Model:
    """One network with values of its own: image [B, H, W, C] -> logits [B, num_classes]."""
    with keras_settings.ours():
        image = keras.Input(input_shape, name="image")
        with keras_settings.ours(precision), compat.fresh_names():
            logits = backbone_of(spec).builder(spec, image, draw=None, num_classes=num_classes)
        return keras.Model(image, logits, name=name)


def build_template(
    spec: Any, *, num_classes: int, input_shape: tuple[int, int, int], precision: str = "float32"
) -> keras.Model:
    """The network without values: (image [B, H, W, C], draw uint64 [B, 2]) -> logits.

    Its variables have shapes and initializers (`compat.initializer_of`), nothing is drawn or allocated: a deep one's
    sizes are known within seconds, and the branch stack keeps the only values there are.
    """
    backbone = backbone_of(spec)
    deferred = keras.StatelessScope(initialize_variables=False)
    with compat.forgotten_deferred_variables(), deferred, keras_settings.ours(precision), compat.fresh_names():
        image = keras.Input(input_shape, name="image")
        draw = keras.Input(draws.DRAW_SHAPE, dtype="uint64", name="draw")
        with builder_checks.no_losses(backbone.name):
            logits = backbone.builder(spec, image, draw=draw, num_classes=num_classes)
        logits = builder_checks.checked_logits(backbone.name, logits, num_classes)
        template = builder_checks.functional(backbone.name, [image, draw], logits)
    builder_checks.check_network(backbone.name, template)
    for variable in template.variables:  # weights that the builder has read from somewhere
        value = deferred.get_current_value(variable)
        if value is not None and keras.backend.is_float_dtype(variable.dtype):
            compat.set_initializer(variable, _Assigned(np.asarray(value)))
    builder_checks.check_initializers(backbone.name, template)
    return template


def weights_and_statistics(template: keras.Model) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """The variables that were made to be trained, and the others; in the template's order, whatever is frozen now."""
    made = {id(variable) for layer in compat.flat_layers(template) for variable in compat.made_trainable(layer)}
    weights = [variable for variable in template.variables if id(variable) in made]
    return weights, [variable for variable in template.variables if id(variable) not in made]


def synchronise_norms(template: keras.Model) -> None:
    """Makes every batch normalisation of a network one over all replicas.

    Raises:
      InputError: it has none.
    """
    norms = [layer for layer in compat.flat_layers(template) if isinstance(layer, keras.layers.BatchNormalization)]
    if not norms:
        raise InputError("The network has no batch norm. Received: synchronised_norm=True; False would work.")
    for norm in norms:
        norm.synchronized = True


def check_sizes(*, num_classes: int, input_shape: tuple[int, int, int], precision: str) -> None:
    """Refuses sizes that no network has.

    Raises:
      InputError: as said.
    """
    if not isinstance(num_classes, int) or num_classes < 2:
        raise InputError(f"A classifier needs at least two classes. Received: num_classes={num_classes!r}.")
    if len(input_shape) != 3 or not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise InputError(
            f"The input shape is not (height, width, channels). Received: {input_shape!r}; pass (32, 32, 3), say."
        )
    if precision not in PRECISIONS:
        raise InputError(f"Unknown precision. Received: {precision!r}; pass one of {', '.join(PRECISIONS)}.")


class _Assigned(keras.initializers.Initializer):
    """The value that a builder has assigned to a variable: every branch begins with it."""

    def __init__(self, value: np.ndarray) -> None:
        self._value = value

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> tf.Tensor:
        """The value, which has the shape."""
        return tf.ensure_shape(tf.cast(self._value, dtype), shape)
