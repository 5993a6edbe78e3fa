"""The branches of a step one after the other, so that the activations of one live at a time."""

from collections.abc import Callable

import tensorflow as tf

from divco_tf.models.recompute.remat import Tensors, recomputed, when_there


def one_after_the_other(function: Callable, *, recompute: bool) -> Callable:
    """A branch function that is to be called for one branch after the other, forward, and backward in reverse.

    A token goes from branch to branch: each waits for the one before it, and its gradient for that of the one after it.

    Args:
      function: (weights, statistics, view, draw) -> (logits, new statistics).
      recompute: keep nothing of a branch, but run it again before its gradient. Without it a branch's activations live
        until then, so that only what it recomputes by itself is made for one branch at a time.

    Returns:
      A function of the same arguments. It holds the token: make one for each step that is traced.
    """
    token = tf.zeros([])

    def branch(weights: list, others: list) -> tuple[list, list]:
        logits, new = function(weights, others[:-2], *others[-2:])
        return [logits], new

    def call(weights: list, statistics: list, view: tf.Tensor, draw: tf.Tensor) -> tuple:
        nonlocal token
        weights, others = _enter(token, weights, [*statistics, view, draw])
        (logits,), new = recomputed(branch, weights, others) if recompute else branch(weights, others)
        logits, token = _leave(logits)
        return logits, new

    return call


def _enter(token: tf.Tensor, weights: Tensors, others: Tensors) -> tuple[list, list]:
    """The tensors when there is a token; the token's gradient is there when the weights' are."""

    @tf.custom_gradient
    def enter(token: tf.Tensor, *weights: tf.Tensor) -> tuple:
        with when_there([token]):
            passed = [tf.identity(x) for x in weights]

        def gradient(*upstream: tf.Tensor) -> tuple:
            with when_there(upstream):
                return tf.zeros([]), *upstream

        return passed, gradient

    passed = enter(token, *weights)
    with when_there([token]):
        return list(passed), [tf.identity(x) for x in others]


@tf.custom_gradient
def _leave(logits: tf.Tensor) -> tuple:
    """The logits, and a token when they are there; their gradient is there when the token's is."""
    with when_there([logits]):
        token = tf.zeros([])

    def gradient(logits_upstream: tf.Tensor, token_upstream: tf.Tensor) -> tf.Tensor:
        with when_there([token_upstream]):
            return tf.identity(logits_upstream)

    return (tf.identity(logits), token), gradient
