"""The networks of a stack as one pure function: every stack runs here, in one block or in one a device."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from divco_tf import compat, keras_settings
from divco_tf.errors import InputError
from divco_tf.models import inputs
from divco_tf.models.placement import Blocks, on_device
from divco_tf.models.recompute.in_turn import one_after_the_other
from divco_tf.models.recompute.remat import segmented
from divco_tf.models.template import weights_and_statistics


class Network:
    """S branches of one template, (image, draw) -> logits, as functions of their weights and statistics.

    A plain class, so that Keras neither tracks nor saves the template, whose variables have no values.

    Attributes:
      template: the functional model, of one branch.
      blocks: which branches lie where.
      weights: its variables that were made to be trained, whether or not they are frozen.
      statistics: its other variables.
    """

    def __init__(self, template: keras.Model, blocks: Blocks, *, inline: bool = False) -> None:
        self.template = template
        self.blocks = blocks
        self.weights, self.statistics = weights_and_statistics(template)
        self._inline = inline
        self._precision = template.dtype_policy.name
        self._functions: dict[tuple[bool, ...], Callable] = {}

    def run(
        self,
        weights: Sequence[tf.Tensor],
        statistics: Sequence[tf.Tensor],
        views: tf.Tensor,
        branch_draws: Sequence[tf.Tensor] | None,
        *,
        training: bool,
        **options: bool,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """All branches, as `BranchStack.run` describes it.

        Args:
          weights: stacked, blocks [S/D, *shape] of each of the template's.
          statistics: likewise.
          views: as `inputs.checked_views` returns them.
          branch_draws: as `BranchStack.run` takes them.
          training: a static bool.
          **options: of `function`.
        """
        function, blocks = self.function(training=training, **options), self.blocks
        with on_device(blocks.devices[0]):
            per_view, branch_draws = inputs.per_branch(views, branch_draws, blocks.split_factor)
        outputs, updated = [], []
        for block, device in enumerate(blocks.devices):
            branches = blocks.branches(block)
            own_views, own_draws = (each[branches.start : branches.stop] for each in (per_view, branch_draws))
            own_weights, before = weights[block :: len(blocks)], statistics[block :: len(blocks)]
            run = functools.partial(_run_block, function, before, own_draws, training=training)
            if training and device is not None:
                logits, after = _differentiated_on(device, run, own_weights, own_views)
            else:
                with on_device(device):
                    logits, after = run(own_weights, own_views)
            with on_device(device):
                updated.append(inputs.unless_empty(views, after, before) if training else after)
            outputs.append(logits)
        with on_device(blocks.devices[0]):
            logits = outputs[0] if len(blocks) == 1 else tf.concat(outputs, axis=1)
            logits = logits[: tf.shape(views)[0]]
        return logits, [statistic for of_blocks in zip(*updated, strict=True) for statistic in of_blocks]

    def function(
        self, *, training: bool, jit: bool, remat: bool = False, in_turn: bool = False, frozen: bool = False
    ) -> Callable:
        """(weights, statistics, view, draw) -> (logits, new statistics), of one branch, traced once.

        With `in_turn` it is for the branches of one step: each call waits for the one before. `frozen` leaves batch
        normalisation as it is in inference, as Keras does in layers that are not trainable.
        """
        remat = remat and training
        stateless = functools.partial(self._stateless, training=training)
        if self._inline and training:
            return self._under_our_settings(stateless, frozen=frozen)
        key = (training, jit, remat, in_turn and remat, frozen)
        if key not in self._functions:
            if remat:  # XLA compiles the segments
                stateless = segmented(self.template, training=training, jit=jit, keep_last=not in_turn)
            network = self._under_our_settings(stateless, frozen=frozen)
            self._functions[key] = tf.function(network, jit_compile=jit and not remat, autograph=False)
        function = self._functions[key]
        return one_after_the_other(function, recompute=training and not remat) if in_turn else function

    def _under_our_settings(self, stateless: Callable, *, frozen: bool) -> Callable:
        def network(weights: list, statistics: list, view: tf.Tensor, draw: tf.Tensor) -> tuple:
            with keras_settings.ours(self._precision), self._norms_in_inference(frozen):
                return stateless(weights, statistics, view, draw)

        return network

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


def _run_block(
    function: Callable,
    statistics: Sequence[tf.Tensor],
    branch_draws: Sequence[tf.Tensor],
    weights: Sequence[tf.Tensor],
    views: Sequence[tf.Tensor],
    *,
    training: bool,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The branches of one block: logits [B, S/D, K], new statistics [S/D, *shape]."""
    # unstack's gradient is one stack; slicing would pad each branch's gradient to full size and add S of them.
    unstacked_weights = [tf.unstack(weight, num=len(views)) for weight in weights]
    unstacked_statistics = [tf.unstack(statistic, num=len(views)) for statistic in statistics]
    outputs, updated = [], []
    for branch, (view, draw) in enumerate(zip(views, branch_draws, strict=True)):
        logits, new = function(
            [weight[branch] for weight in unstacked_weights],
            [statistic[branch] for statistic in unstacked_statistics],
            view,
            draw,
        )
        outputs.append(logits)
        updated.append(new)
    new_statistics = [tf.stack(values) for values in zip(*updated, strict=True)] if training else list(statistics)
    return tf.stack(outputs, axis=1), new_statistics


def _differentiated_on(device: str, function: Callable, weights: Sequence, views: Sequence) -> tuple[tf.Tensor, list]:
    """(weights, views) -> (logits, statistics) on `device`, gradients of the logits included.

    A tape does not keep the devices of what it records (TensorFlow 2.21): left to itself, it would compute gradients
    on the first device, and fetch the weights for it.
    """
    count = len(weights)

    @tf.custom_gradient
    def placed(*inputs: tf.Tensor) -> tuple:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            logits, statistics = function(inputs[:count], inputs[count:])

        def gradient(upstream: tf.Tensor, *_: Any) -> list:
            with tf.device(device):
                return tape.gradient(logits, inputs, output_gradients=upstream, unconnected_gradients="zero")

        return (logits, *statistics), gradient

    with tf.device(device):
        logits, *statistics = placed(*weights, *views)
    return logits, statistics
