"""SGD against the reference's traces, and what decay, clipping, scaling and replicas do to it."""

import contextlib
import dataclasses
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.training.optimizers import SGD, OptimizerConfig
from divco_tf.training.runtime import make_strategy
from divco_tf.training.schedules import LearningRate
from tests.reference import load_json

with contextlib.suppress(RuntimeError):  # TensorFlow runs already: tests/conftest.py has done it
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )

FACTS = load_json("optimizers.json")
WEIGHT_DECAY = FACTS["weight_decay"]


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """The reference's changing learning rates, in float64."""

    def __call__(self, step):
        return tf.gather(tf.constant(FACTS["lrs"], tf.float64), tf.convert_to_tensor(step))

    def get_config(self):
        return {}


def variable(value, name="kernel", dtype="float32"):
    return keras.Variable(value, name=name, dtype=dtype)


def train(optimizer, variables, gradients):
    """Values of all variables after one update by each of `gradients`."""
    optimizer.build(variables)
    trace = []
    for step_gradients in gradients:
        optimizer.apply([tf.constant(g, v.dtype) for g, v in zip(step_gradients, variables, strict=True)])
        trace.append([v.numpy() for v in variables])
    return trace


def textbook(gradients, start, rate=0.1, momentum=0.9, decay=0.0, nesterov=True):
    """The update rule in numpy, one variable."""
    p, buffer = np.array(start, np.float64), 0.0
    for g in gradients:
        d = g + decay * p
        buffer = momentum * buffer + d
        p = p - rate * (d + momentum * buffer if nesterov else buffer)
    return p


def test_the_trace_is_the_references_through_changes_of_the_learning_rate():
    kernel = variable(FACTS["p0"], dtype="float64")
    trace = train(SGD(Rates(), weight_decay=WEIGHT_DECAY), [kernel], [[g] for g in FACTS["grads"]])
    np.testing.assert_allclose([p for (p,) in trace], FACTS["runs"]["SGD_nesterov_m0p9"], rtol=0, atol=1e-12)


def test_the_trace_is_the_same_in_a_graph_and_under_xla():
    for jit in (False, True):
        kernel = variable(FACTS["p0"], dtype="float64")
        optimizer = SGD(Rates(), weight_decay=WEIGHT_DECAY)
        optimizer.build([kernel])
        step = tf.function(lambda g, apply=optimizer.apply: apply([g]), jit_compile=jit)
        for gradient, expected in zip(FACTS["grads"], FACTS["runs"]["SGD_nesterov_m0p9"], strict=True):
            step(tf.constant(gradient, tf.float64))
            np.testing.assert_allclose(kernel.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_every_kind_of_momentum_is_the_textbooks(momentum, nesterov):
    kernel = variable([1.0, -2.0], dtype="float64")
    gradients = [np.array([0.5, 1.0]), np.array([-1.0, 0.25]), np.array([0.0, 2.0])]
    optimizer = SGD(lambda: tf.constant(0.1, tf.float64), momentum, nesterov, weight_decay=0.01)
    result = train(optimizer, [kernel], [[g] for g in gradients])[-1][0]
    np.testing.assert_allclose(result, textbook(gradients, [1, -2], 0.1, momentum, 0.01, nesterov), rtol=1e-12)
    assert len(optimizer.variables) == (1 if momentum == 0 else 2)


def test_only_kernels_are_decayed_unless_norm_scales_are_asked_for():
    names = ["stem_conv.kernel", "kernel", "stage1_norm.gamma", "beta", "head.bias", "gamma_block.kernel"]
    for decay_norm_scales, decayed in [(False, {0, 1, 5}), (True, {0, 1, 2, 5})]:
        variables = [variable([1.0], name) for name in names]
        config = OptimizerConfig(weight_decay=0.5, decay_norm_scales=decay_norm_scales, momentum=0.0)
        after = train(config.build(0.1), variables, [[[0.0]] * len(names)])[0]
        assert {i for i, value in enumerate(after) if value[0] < 1} == decayed


def test_variables_of_layers_are_told_apart_by_the_last_part_of_their_path():
    model = keras.Sequential([keras.Input([3]), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    zeros = [np.zeros(v.shape) for v in model.trainable_variables]
    before = model.get_weights()
    train(SGD(0.1, weight_decay=0.5), model.trainable_variables, [zeros])
    changed = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert changed == [True, False, False, False, False, False]


def test_keras_own_way_to_exclude_variables_is_heard_too():
    variables = [variable([1.0], "kernel"), variable([1.0], "head_kernel")]
    optimizer = SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["head"])
    after = train(optimizer, variables, [[[0.0], [0.0]]])[0]
    assert after[0] < 1
    assert after[1] == 1


def test_gradients_are_clipped_before_decay_is_added():
    kernel = variable([3.0, 4.0])
    result = train(SGD(1.0, 0.0, weight_decay=0.1, clipnorm=1.0), [kernel], [[[30.0, 40.0]]])[0][0]
    np.testing.assert_allclose(result, [3 - 0.6 - 0.3, 4 - 0.8 - 0.4], rtol=1e-6)


def test_global_clipping_joins_all_variables():
    variables = [variable([0.0]), variable([0.0])]
    optimizer = OptimizerConfig(momentum=0.0, global_clipnorm=1.0).build(1.0)
    np.testing.assert_allclose(train(optimizer, variables, [[[30.0], [40.0]]])[0], [[-0.6], [-0.8]], rtol=1e-6)


@pytest.mark.parametrize("dynamic", [False, True])
def test_loss_scaling_changes_nothing(dynamic):
    kernel, gradients = variable([3.0, 4.0]), [np.array([0.5, -1.0]), np.array([1.0, 2.0])]
    if dynamic:
        optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.1, weight_decay=0.1), initial_scale=1024.0)
    else:
        optimizer = SGD(0.1, weight_decay=0.1, loss_scale_factor=1024.0)
    optimizer.build([kernel])
    for gradient in gradients:
        optimizer.apply([float(optimizer.scale_loss(1.0)) * tf.constant(gradient, tf.float32)])
    np.testing.assert_allclose(kernel.numpy(), textbook(gradients, [3, 4], decay=0.1), rtol=1e-6)


def test_gradients_that_overflow_under_loss_scaling_leave_weights_and_momentum():
    kernel = variable([3.0, 4.0])
    optimizer = keras.optimizers.LossScaleOptimizer(SGD(0.1, weight_decay=0.1), initial_scale=1024.0)
    trace = train(optimizer, [kernel], [[[np.inf, 1.0]]])
    np.testing.assert_array_equal(trace[-1][0], [3, 4])
    np.testing.assert_array_equal(optimizer.inner_optimizer.buffers[0].numpy(), [0, 0])


def test_gradients_of_an_embedding_are_taken_too():
    kernel = variable(np.ones([3, 2]))
    optimizer = SGD(1.0, 0.0, weight_decay=0.1)
    optimizer.build([kernel])
    optimizer.apply([tf.IndexedSlices(tf.ones([1, 2]), tf.constant([1]), tf.constant([3, 2]))])
    np.testing.assert_allclose(kernel.numpy(), [[0.9, 0.9], [-0.1, -0.1], [0.9, 0.9]], atol=1e-6)


@pytest.mark.parametrize("rate", [0.25, LearningRate(warmup_epochs=1).resolve(epochs=3, steps_per_epoch=5)])
def test_configuration_goes_through_keras_and_json(rate):
    optimizer = SGD(rate, 0.8, False, 1e-4, ["bias"], clipnorm=2.0, use_ema=True, name="mine")
    stored = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    restored = keras.optimizers.deserialize(stored)
    assert isinstance(restored, SGD)
    assert restored.get_config() == optimizer.get_config()
    assert restored.weight_decay is None
    assert restored.coupled_weight_decay == 1e-4


def test_saved_state_goes_on_as_if_nothing_had_happened(tmp_path):
    def model_with(optimizer):
        model = keras.Sequential([keras.Input([2]), keras.layers.Dense(2, kernel_initializer="ones")])
        model.compile(optimizer, "mse")
        return model

    x, y = np.ones([4, 2], np.float32), np.zeros([4, 2], np.float32)
    model = model_with(SGD(0.01, weight_decay=0.1))
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(restored.optimizer, SGD)
    for each in (model, restored):
        each.fit(x, y, epochs=2, verbose=0)
    assert np.abs(model.optimizer.buffers[0].numpy()).max() > 0
    np.testing.assert_array_equal(model.get_weights()[0], restored.get_weights()[0])


def mirrored_trace(make_optimizer, shares, start):
    """Final weights on both replicas; `shares[step][replica]` is a replica's share of the gradient."""
    devices = tf.config.list_logical_devices("CPU")
    assert len(devices) == 2, "the suite runs on two logical CPU devices"
    strategy = make_strategy("mirrored")
    with strategy.scope():
        kernel = variable(start)
        optimizer = make_optimizer()
        optimizer.build([kernel])

    @tf.function
    def step(shares_of_step):
        def replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            optimizer.apply([tf.gather(shares_of_step, index)])

        strategy.run(replica)

    for shares_of_step in shares:
        step(tf.constant(shares_of_step, tf.float32))
    return [v.numpy() for v in strategy.experimental_local_results(kernel.value)]


@pytest.mark.parametrize("clip", [{}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 0.5}])
@pytest.mark.parametrize("scaled", [False, True])
def test_two_replicas_do_what_one_does_with_the_sum_of_uneven_shares(clip, scaled):
    shares = np.array([[[0.5, 3.0], [0.1, -1.0]], [[-1.0, 0.0], [2.0, 0.2]], [[0.1, 0.0], [0.0, 0.1]]])
    rate = LearningRate(learning_rate=0.2).resolve(epochs=1, steps_per_epoch=4)
    scale = 4.0 if scaled else 1.0

    def make_optimizer():
        optimizer = SGD(rate, weight_decay=0.1, **clip)
        return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale) if scaled else optimizer

    first, second = mirrored_trace(make_optimizer, scale * shares, [1.0, -2.0])
    kernel = variable([1.0, -2.0])
    single = train(make_optimizer(), [kernel], [[g] for g in scale * shares.sum(axis=1)])[-1][0]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, single, rtol=1e-6)


def test_weight_decay_is_divided_only_when_asked():
    config = OptimizerConfig(weight_decay=1e-4)
    assert config.build(0.1, split_factor=4).coupled_weight_decay == 1e-4
    divided = dataclasses.replace(config, divide_weight_decay=True)
    assert divided.build(0.1, split_factor=4).coupled_weight_decay == pytest.approx(1e-4 * math.exp(-3 / 4))
    assert divided.build(0.1).coupled_weight_decay == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OptimizerConfig("sdg"), "Received: sdg"),
        (lambda: OptimizerConfig(momentum=1.0), "Received: 1.0"),
        (lambda: OptimizerConfig(weight_decay=-1e-4), "Received: -0.0001"),
        (lambda: OptimizerConfig(weight_decay=None), "Received: None"),
        (lambda: OptimizerConfig(clipnorm=0), "Received: 0"),
        (lambda: OptimizerConfig(clipnorm=1.0, global_clipnorm=1.0), "one of the two"),
        (lambda: SGD("0.1"), "learning_rate"),
        (lambda: SGD(momentum=-0.1), "Received: -0.1"),
        (lambda: SGD(exclude_from_decay="bias"), "'bias'"),
        (lambda: OptimizerConfig(divide_weight_decay=True).build(0.1, split_factor=0), "split factor"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
