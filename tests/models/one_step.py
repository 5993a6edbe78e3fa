"""One training step of a stack, whose gradients tests compare."""

import numpy as np
import tensorflow as tf

from divco_tf.models import draws
from divco_tf.models.branch_stack import BranchStack

BATCH = 4


def gradients(stack: BranchStack, *, jit: bool = False, **options: bool) -> tuple[list, list]:
    """Gradients and new statistics.

    No scale is zero, as some are at first: what is before them would have no gradient.
    """
    rng = np.random.default_rng(0)
    weights = [
        tf.constant(0.5 + rng.random(variable.shape), tf.float32) if variable.name.endswith("gamma") else variable.value
        for variable in stack.trainable_variables
    ]
    views = tf.constant(rng.standard_normal((BATCH, stack.split_factor, *stack.view_shape)), tf.float32)
    outer = tf.constant(rng.standard_normal((BATCH, stack.split_factor, stack.num_classes)), tf.float32)

    @tf.function(autograph=False)
    def step(weights: list, statistics: list) -> tuple[list, list]:
        keys = [
            draws.draw_keys(seed=0, step=tf.constant(0), branch=branch, positions=tf.range(BATCH))
            for branch in range(stack.split_factor)
        ]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            logits, updated = stack.run(weights, statistics, views, keys, training=True, jit=jit, **options)
            loss = tf.reduce_sum(outer * logits)
        return tape.gradient(loss, weights), updated

    return step(weights, [variable.value for variable in stack.non_trainable_variables])
