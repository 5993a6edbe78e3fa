"""One branch as functions of its weights and statistics."""

import contextlib
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from divco_tf import compat, keras_settings
from divco_tf.errors import InputError
from divco_tf.models.recompute import remat as recomputation
from divco_tf.models.template import weights_and_statistics


class Network:
    """One branch's template, (image, draw) -> logits, and the functions made of it.

    A plain class, so that Keras neither tracks nor saves the template, whose variables have no values.

    Attributes:
      template: the functional model.
      weights: its variables that were made to be trained, whether or not they are frozen.
      statistics: its other variables.
    """

    def __init__(self, template: keras.Model, *, inline: bool = False) -> None:
        self.template = template
        self.weights, self.statistics = weights_and_statistics(template)
        self._inline = inline
        self._precision = template.dtype_policy.name
        self._functions: dict[tuple[bool, ...], Callable] = {}

    def function(
        self, *, training: bool, jit: bool, remat: bool = False, in_turn: bool = False, frozen: bool = False
    ) -> Callable:
        """(weights, statistics, view, draw) -> (logits, new statistics), of one branch, traced once.

        With `in_turn` it is for the branches of one step: each call waits for the one before. `frozen` leaves batch
        normalisation as it is in inference, as Keras does in layers that are not trainable.
        """
        key = (training, jit, remat, in_turn and remat, frozen)

        def network(weights: list, statistics: list, view: tf.Tensor, draw: tf.Tensor) -> tuple:
            with keras_settings.ours(self._precision), self._norms_in_inference(frozen):
                return self._stateless(weights, statistics, view, draw, training=training)

        if self._inline and training:
            return network
        if key not in self._functions:
            plain = network
            if remat:  # XLA compiles the segments
                parts = recomputation.segmented(self.template, training=training, jit=jit, keep_last=not in_turn)

                def plain(weights: list, statistics: list, view: tf.Tensor, draw: tf.Tensor) -> tuple:
                    with keras_settings.ours(self._precision), self._norms_in_inference(frozen):
                        return parts(weights, statistics, view, draw)

            self._functions[key] = tf.function(plain, jit_compile=jit and not remat, autograph=False)
        function = self._functions[key]
        return recomputation.in_turn(function, recompute=training and not remat) if in_turn else function

    def _stateless(
        self, weights: list, statistics: list, view: tf.Tensor, draw: tf.Tensor, *, training: bool
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Keras's `stateless_call`, whose order of variables depends on what is frozen."""
        values = zip((*self.weights, *self.statistics), (*weights, *statistics), strict=True)
        with keras.StatelessScope(state_mapping=values, collect_losses=True) as scope:
            logits = self.template([view, draw], training=training)
            if scope.losses:  # of a layer that says its output's shape, so that it has not been called before
                raise InputError(
                    "A layer adds a loss, which a stack drops. Received: add_loss in the network's call; weight decay "
                    "of the optimizer, or a loss of one's own train step, would work."
                )
            return logits, [scope.get_current_value(variable) for variable in self.statistics]

    @contextlib.contextmanager
    def _norms_in_inference(self, frozen: bool) -> Iterator[None]:
        layers = compat.flat_layers(self.template) if frozen else []
        norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
        for norm in norms:
            norm.trainable = False
        try:
            yield
        finally:
            for norm in norms:
                norm.trainable = True
