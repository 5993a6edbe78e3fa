"""What the replicas of a step tell each other; every function here is called in the replica context."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


def place_in_global_batch(size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where this replica's `size` examples begin in the global batch, and how many that has; shares may be uneven."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return tf.zeros_like(size), size
    mine = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync) * tf.cast(size, tf.float32)
    sizes = tf.cast(context.all_reduce(tf.distribute.ReduceOp.SUM, mine), tf.int32)
    before = tf.range(context.num_replicas_in_sync) < context.replica_id_in_sync_group
    return tf.reduce_sum(tf.where(before, sizes, 0)), tf.reduce_sum(sizes)


def flawed_unless(finite: tf.Tensor, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The gradients, the first one NaN where those of any replica are not `finite`.

    For Keras's LossScaleOptimizer, which answers overflows itself, but asks the first replica only whether there is one
    (Keras 3.15).
    """
    flaw = tf.where(finite, 0.0, float("nan"))
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync > 1:
        flaw = context.all_reduce(tf.distribute.ReduceOp.SUM, flaw)
    return [*(gradient + flaw for gradient in gradients[:1]), *gradients[1:]]


def update_all_or_none(
    finite: tf.Tensor,
    update: Callable[..., None],
    arguments: tuple[Any, ...],
    *,
    then: Callable[[tf.distribute.Strategy], None],
    otherwise: Callable[[], None],
) -> None:
    """Updates on every replica, or on none.

    Args:
      finite: a bool of this replica's own: whether it may be updated.
      update: of one replica, where all of them may be.
      arguments: of `update`.
      then: comes after it, in the cross-replica context.
      otherwise: on each replica, where one may not be updated.
    """

    # The cond must stand in the cross-replica context: a branch of a cond in the replica context may not merge.
    def merged(strategy: tf.distribute.Strategy, finite: Any, *arguments: Any) -> None:
        run = strategy.extended.call_for_each_replica
        everywhere = strategy.reduce("MEAN", finite, axis=None) == 1.0

        def apply() -> None:
            run(update, args=arguments)
            then(strategy)

        tf.cond(everywhere, apply, lambda: run(otherwise))

    tf.distribute.get_replica_context().merge_call(merged, args=(tf.cast(finite, tf.float32), *arguments))
