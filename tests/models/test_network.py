"""The networks of a stack are one pure function, of one trace, wherever the branches lie."""

import numpy as np
import pytest
import tensorflow as tf

from divco_tf.models import draws
from tests import tiny
from tests.tiny import tiny_stack

TWO = ["CPU:0", "CPU:1"]


@pytest.mark.parametrize("split_factor", [1, 4])
def test_a_step_traces_one_branch(split_factor):
    stack = tiny_stack(split_factor=split_factor, dropout=0.1)
    tiny.TRACES.clear()
    weights, statistics = (
        [variable.value for variable in variables]
        for variables in (stack.trainable_variables, stack.non_trainable_variables)
    )

    @tf.function
    def step(views: tf.Tensor, index: tf.Tensor) -> list[tf.Tensor]:
        keys = [
            draws.draw_keys(seed=0, step=index, branch=branch, positions=tf.range(4)) for branch in range(split_factor)
        ]
        values = [tf.convert_to_tensor(weight) for weight in weights]
        with tf.GradientTape() as tape:
            tape.watch(values)
            logits, _ = stack.run(values, [tf.convert_to_tensor(s) for s in statistics], views, keys, training=True)
        return tape.gradient(logits, values)

    for index in range(3):
        step(tiny.batch(4, split_factor=split_factor)[0], tf.constant(index))
    assert len(tiny.TRACES) == 1


@pytest.mark.parametrize("training", [False, True])
def test_logits_statistics_and_gradients_are_those_of_one_block(training):
    results = []
    for devices in (None, TWO):
        stack = tiny.lively(tiny_stack(split_factor=4)).on(devices)
        views = tf.constant(tiny.batch(5, split_factor=4)[0])
        weights, statistics = (
            [tf.convert_to_tensor(variable.value) for variable in variables]
            for variables in (stack.trainable_variables, stack.non_trainable_variables)
        )
        with tf.GradientTape() as tape:
            tape.watch([*weights, views])
            logits, new = stack.run(weights, statistics, views, training=training)
            loss = tf.reduce_sum(logits**2)
        *gradients, of_views = tape.gradient(loss, [*weights, views])
        blocks = len(devices or [None])
        merged = [
            np.concatenate([value.numpy() for value in values[start : start + blocks]])
            for values in (new, gradients)
            for start in range(0, len(values), blocks)
        ]
        results.append([logits.numpy(), of_views.numpy(), *merged])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)
    assert all(np.any(value) for value in (*results[0][:2], results[0][-1]))  # logits and gradients are not zero
