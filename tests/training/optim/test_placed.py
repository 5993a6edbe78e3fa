"""Updates of branches on several devices are computed where these lie (logical CPUs)."""

import numpy as np
import tensorflow as tf

from divco_tf.training.optim.placed import beside_inputs


def test_updates_stay_where_the_largest_input_lies():
    with tf.device("CPU:1"):
        variable = tf.Variable(tf.ones([4, 4]))

    @tf.function(autograph=False)
    def update(scale: tf.Tensor) -> tf.Tensor:
        with beside_inputs():
            product = scale * variable
            tf.cond(scale > 0, lambda: variable.assign(variable * scale + product), lambda: variable)
            alone = scale + 1.0
        return product[0, 0] + alone

    graph = update.get_concrete_function(tf.constant(2.0)).graph
    assert {op.device[-5:] for op in graph.get_operations() if op.type == "Mul"} == {"CPU:1"}
    assert {op.device for op in graph.get_operations() if op.type in ("AddV2", "Greater")} == {""}
    inner = {node.op: node.device[-5:] for f in graph.as_graph_def().library.function for node in f.node_def}
    assert inner["Mul"] == inner["AddV2"] == "CPU:1"
    assert float(update(tf.constant(2.0))) == 5.0
    np.testing.assert_array_equal(variable, np.full((4, 4), 4.0))
