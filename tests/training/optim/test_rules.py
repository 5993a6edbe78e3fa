"""Every optimizer against the reference's traces, and what decay, clipping, scaling and replicas do to it."""

import contextlib
import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.runtime.strategy import make_strategy
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.learning_rate import LearningRate
from divco_tf.training.optim.rules import SGD, AdamW, RMSprop, RMSpropTF
from tests import tiny
from tests.reference import load_json

with contextlib.suppress(RuntimeError):  # TensorFlow runs already: tests/conftest.py has done it
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )

FACTS = load_json("optimizers.json")
WEIGHT_DECAY = FACTS["weight_decay"]
TRACES = {
    "SGD_nesterov_m0p9": SGD,
    "RMSpropTF_alpha0p9_eps0p001_m0p9": RMSpropTF,
    "RMSprop_alpha0p9_m0p9": RMSprop,
    "AdamW_eps1e_4": functools.partial(AdamW, epsilon=1e-4),
}
"""The reference's optimizers: our defaults are its values, but for AdamW's epsilon."""
OPTIMIZERS = [SGD, RMSprop, RMSpropTF, AdamW]
of_each = pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)


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


def test_every_run_of_the_reference_is_here():
    assert set(TRACES) == set(FACTS["runs"])


@pytest.mark.parametrize("how", ["eager", "graph", "xla"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
@pytest.mark.parametrize("name", TRACES)
def test_the_trace_is_the_references_through_changes_of_the_learning_rate(name, dtype, tolerance, how):
    kernel = variable(FACTS["p0"], dtype=dtype)
    optimizer = TRACES[name](Rates(), weight_decay=WEIGHT_DECAY)
    optimizer.build([kernel])
    step = optimizer.apply
    if how != "eager":
        step = tf.function(step, jit_compile=how == "xla")
    for gradient, expected in zip(FACTS["grads"], FACTS["runs"][name], strict=True):
        step([tf.constant(gradient, dtype)])
        np.testing.assert_allclose(kernel.numpy(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop_is_the_textbooks_with_momentum_and_without(momentum):
    gradients = [np.array([0.5, 1.0]), np.array([-1.0, 0.25]), np.array([0.0, 2.0])]
    rate, alpha, epsilon, decay = 0.1, 0.8, 0.01, 0.05
    for kind in (RMSprop, RMSpropTF):
        kernel = variable([1.0, -2.0], dtype="float64")
        optimizer = kind(
            lambda: tf.constant(rate, tf.float64), alpha=alpha, momentum=momentum, epsilon=epsilon, weight_decay=decay
        )
        result = train(optimizer, [kernel], [[g] for g in gradients])[-1][0]
        p, square, buffer = np.array([1.0, -2.0]), float(kind is RMSpropTF), 0.0
        for g in gradients:
            d = g + decay * p
            square = alpha * square + (1 - alpha) * d**2
            root = np.sqrt(square + epsilon) if kind is RMSpropTF else np.sqrt(square) + epsilon
            buffer = momentum * buffer + rate * d / root
            p = p - buffer
        np.testing.assert_allclose(result, p, rtol=1e-12)


def test_adamw_in_float32_keeps_its_digits_over_many_steps():
    """A kernel that corrects by 1 - beta2 ** step in float32 is off by 1e-5 at first."""
    rng = np.random.default_rng(0)
    gradients, ours = rng.standard_normal((50, 20)), []
    for dtype in ("float64", "float32"):
        kernel = variable(np.ones(20), dtype=dtype)
        ours.append(train(AdamW(0.01, weight_decay=0.1), [kernel], [[g] for g in gradients]))
    for exact, rounded in zip(*ours, strict=True):
        np.testing.assert_allclose(rounded[0], exact[0], atol=2e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_every_kind_of_momentum_is_the_textbooks(momentum, nesterov):
    kernel = variable([1.0, -2.0], dtype="float64")
    gradients = [np.array([0.5, 1.0]), np.array([-1.0, 0.25]), np.array([0.0, 2.0])]
    optimizer = SGD(lambda: tf.constant(0.1, tf.float64), momentum, nesterov, weight_decay=0.01)
    result = train(optimizer, [kernel], [[g] for g in gradients])[-1][0]
    np.testing.assert_allclose(result, textbook(gradients, [1, -2], 0.1, momentum, 0.01, nesterov), rtol=1e-12)
    assert len(optimizer.variables) == (1 if momentum == 0 else 2)


@of_each
def test_only_kernels_are_decayed_unless_told_otherwise(kind):
    names = ["stem_conv.kernel", "kernel", "stage1_norm.gamma", "beta", "head.bias", "gamma_block.kernel"]
    for arguments, decayed in [({}, {0, 1, 5}), ({"exclude_from_decay": ["bias", "beta"]}, {0, 1, 2, 5})]:
        assert decayed_by(kind(0.1, weight_decay=0.5, **arguments), names) == decayed


@of_each
def test_patterns_spare_layers(kind):
    names = ["stem_conv.kernel", "stage1.0.conv1.kernel", "stage2.0.conv1.kernel", "fc.kernel", "fc.bias"]
    for patterns, decayed in [(["^stem"], {1, 2, 3}), ([r"\.0\.", "fc.kernel"], {0}), (["fc.bias"], {0, 1, 2, 3})]:
        assert decayed_by(kind(0.1, weight_decay=0.5, exclude_patterns=patterns), names) == decayed


def decayed_by(optimizer, names):
    """Indices of the variables that shrink where no gradient moves them."""
    variables = [variable([1.0], name) for name in names]
    after = train(optimizer, variables, [[[0.0]] * len(names)])[0]
    return {i for i, value in enumerate(after) if value[0] < 1}


def test_patterns_are_searched_in_a_stacks_names_and_in_the_paths_of_layers():
    stack = tiny.lively(tiny.tiny_stack())
    model = keras.Sequential(
        [keras.Input([3]), keras.layers.Dense(2, name="first"), keras.layers.Dense(2, name="last")]
    )
    for variables, pattern, spared in [
        (stack.trainable_variables, "^fc.kernel$", {"fc.kernel"}),
        (
            stack.on(["CPU:0", "CPU:1"]).trainable_variables,
            "^fc.kernel$",
            {"block0of2.fc.kernel", "block1of2.fc.kernel"},
        ),
        (model.trainable_variables, "last/", {"last/kernel"}),
    ]:
        before = tiny.values(variables)
        optimizer = SGD(0.1, weight_decay=0.5, exclude_patterns=[pattern])
        after = train(optimizer, variables, [[np.zeros(v.shape) for v in variables]])[-1]
        paths = {v.path.partition("/")[2] for v in variables if v.path.endswith("kernel")}
        changed = [v.path.partition("/")[2] for v, a, b in zip(variables, before, after, strict=True) if np.any(a != b)]
        assert set(changed) == paths - spared and len(changed) >= 1


@of_each
def test_a_pattern_that_matches_no_variable_is_refused_when_the_optimizer_is_built(kind):
    optimizer = kind(weight_decay=0.5, exclude_patterns=["kernel", "^steam"])
    with pytest.raises(
        InputError, match=r"matches no variable. Received: '\^steam'; variables are called conv.kernel, fc"
    ):
        optimizer.build([variable([1.0], name) for name in ("conv.kernel", "fc.kernel")])


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


def test_decoupled_decay_does_not_go_through_the_mean():
    """AdamW's first step is the rate in each direction; decay comes on top."""
    kernel = variable([3.0, -4.0], dtype="float64")
    result = train(AdamW(0.5, weight_decay=0.1, epsilon=1e-12), [kernel], [[[30.0, -1.0]]])[0][0]
    np.testing.assert_allclose(result, [3 - 0.5 - 0.15, -4 + 0.5 + 0.2], rtol=1e-6)


def test_gradients_are_clipped_before_decay_is_added():
    kernel = variable([3.0, 4.0])
    result = train(SGD(1.0, 0.0, weight_decay=0.1, clipnorm=1.0), [kernel], [[[30.0, 40.0]]])[0][0]
    np.testing.assert_allclose(result, [3 - 0.6 - 0.3, 4 - 0.8 - 0.4], rtol=1e-6)


def test_global_clipping_joins_all_variables():
    variables = [variable([0.0]), variable([0.0])]
    optimizer = SGD(1.0, 0.0, global_clipnorm=1.0)
    np.testing.assert_allclose(train(optimizer, variables, [[[30.0], [40.0]]])[0], [[-0.6], [-0.8]], rtol=1e-6)


@of_each
@pytest.mark.parametrize("dynamic", [False, True])
def test_loss_scaling_changes_nothing(kind, dynamic):
    gradients = [np.array([0.5, -1.0]), np.array([1.0, 2.0])]
    plain, kernel = variable([3.0, 4.0]), variable([3.0, 4.0])
    train(kind(0.1, weight_decay=0.1), [plain], [[g] for g in gradients])
    if dynamic:
        optimizer = keras.optimizers.LossScaleOptimizer(kind(0.1, weight_decay=0.1), initial_scale=1024.0)
    else:
        optimizer = kind(0.1, weight_decay=0.1, loss_scale_factor=1024.0)
    optimizer.build([kernel])
    for gradient in gradients:
        optimizer.apply([float(optimizer.scale_loss(1.0)) * tf.constant(gradient, tf.float32)])
    np.testing.assert_allclose(kernel.numpy(), plain.numpy(), rtol=1e-6)


@of_each
def test_gradients_that_overflow_under_loss_scaling_leave_weights_and_what_is_kept_of_them(kind):
    kernel = variable([3.0, 4.0])
    optimizer = keras.optimizers.LossScaleOptimizer(kind(0.1, weight_decay=0.1), initial_scale=1024.0)
    optimizer.build([kernel])
    kept = tiny.values(optimizer.inner_optimizer.variables)
    optimizer.apply([tf.constant([np.inf, 1.0])])
    np.testing.assert_array_equal(kernel.numpy(), [3, 4])
    for before, after in zip(kept, optimizer.inner_optimizer.variables, strict=True):
        np.testing.assert_array_equal(before, after.numpy())


@of_each
def test_gradients_of_an_embedding_are_taken_too(kind):
    dense, sparse = variable(np.ones([3, 2])), variable(np.ones([3, 2]))
    train(kind(1.0, weight_decay=0.1), [dense], [[[[0, 0], [1, 1], [0, 0]]]])
    optimizer = kind(1.0, weight_decay=0.1)
    optimizer.build([sparse])
    optimizer.apply([tf.IndexedSlices(tf.ones([1, 2]), tf.constant([1]), tf.constant([3, 2]))])
    np.testing.assert_array_equal(sparse.numpy(), dense.numpy())
    assert np.all(dense.numpy() != 1)


SETTINGS = {
    SGD: {"momentum": 0.8, "nesterov": False},
    RMSprop: {"alpha": 0.5, "momentum": 0.8, "epsilon": 1e-5},
    RMSpropTF: {"alpha": 0.5, "momentum": 0.8, "epsilon": 1e-5},
    AdamW: {"betas": (0.8, 0.99), "epsilon": 1e-5},
}
"""Another value for each argument that an optimizer has alone."""


@of_each
@pytest.mark.parametrize("rate", [0.25, LearningRate(warmup_epochs=1).resolve(epochs=3, steps_per_epoch=5)])
def test_configuration_goes_through_keras_and_json(kind, rate):
    common = {"weight_decay": 1e-4, "exclude_from_decay": ["bias"], "exclude_patterns": ["^stem"]}
    optimizer = kind(rate, **common, **SETTINGS[kind], clipnorm=2.0, use_ema=True, name="mine")
    stored = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    restored = keras.optimizers.deserialize(stored)
    assert type(restored) is kind
    assert restored.get_config() == optimizer.get_config()
    assert restored.weight_decay is None
    assert restored.decay == 1e-4
    assert restored.exclude_from_decay == {"bias"} and restored.exclude_patterns == ("^stem",)
    assert {name: getattr(restored, name) for name in SETTINGS[kind]} == SETTINGS[kind]


@of_each
def test_saved_state_goes_on_as_if_nothing_had_happened(kind, tmp_path):
    def model_with(optimizer):
        model = keras.Sequential([keras.Input([2]), keras.layers.Dense(2, kernel_initializer="ones")])
        model.compile(optimizer, "mse")
        return model

    x, y = np.ones([4, 2], np.float32), np.zeros([4, 2], np.float32)
    model = model_with(kind(0.01, weight_decay=0.1))
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert type(restored.optimizer) is kind
    assert any(np.abs(v.numpy()).max() > 0 for v in model.optimizer.variables[2:])
    for each in (model, restored):
        each.fit(x, y, epochs=2, verbose=0)
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


CLIPS = [{}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 0.5}]


@pytest.mark.parametrize(
    ("kind", "clip", "scaled"),
    [
        *((SGD, clip, scaled) for clip in CLIPS for scaled in (False, True)),
        *((kind, clip, True) for kind in OPTIMIZERS[1:] for clip in CLIPS[::2]),
    ],
)
def test_two_replicas_do_what_one_does_with_the_sum_of_uneven_shares(kind, clip, scaled):
    shares = np.array([[[0.5, 3.0], [0.1, -1.0]], [[-1.0, 0.0], [2.0, 0.2]], [[0.1, 0.0], [0.0, 0.1]]])
    rate = LearningRate(learning_rate=0.2).resolve(epochs=1, steps_per_epoch=4)
    scale = 4.0 if scaled else 1.0

    def make_optimizer():
        optimizer = kind(rate, weight_decay=0.1, **clip)
        return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale) if scaled else optimizer

    first, second = mirrored_trace(make_optimizer, scale * shares, [1.0, -2.0])
    kernel = variable([1.0, -2.0])
    single = train(make_optimizer(), [kernel], [[g] for g in scale * shares.sum(axis=1)])[-1][0]
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, single, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "precision"),
    [*((kind, "float32") for kind in OPTIMIZERS), *((kind, "mixed_float16") for kind in (RMSpropTF, AdamW))],
)
def test_stacked_branches_are_trained_as_each_alone_is(kind, precision):
    """Without a co-training loss, and without clipping, a stack's branches do not know each other."""
    together = tiny.lively(tiny.tiny_stack("tiny_no_norm", precision=precision))
    alone = [tiny.tiny_stack(None, spec=together.spec, copies=1, split_factor=1, precision=precision) for _ in range(2)]
    for index, stack in enumerate(alone):
        stack.set_branch(0, together.branch(index))
    views, labels = tiny.batch()
    for stack, shown in [(together, views), (alone[0], views[:, :1]), (alone[1], views[:, 1:])]:
        model = CoTrainingModel(stack, cotraining=CoTraining(weight=0.0))
        model.compile(kind(0.01, weight_decay=0.1, exclude_patterns=["^fc"]))
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
        for _ in range(3):
            model.train_on_batch(shown, labels)
        assert int(model.bad_steps.numpy()) == 0
    for index, stack in enumerate(alone):
        ours, theirs = (tiny.values(s.branch(i).variables) for s, i in [(together, index), (stack, 0)])
        assert tiny.largest_difference(ours, theirs) < (1e-5 if precision == "float32" else 1e-3)


@of_each
def test_numbers_outside_their_range_are_refused_in_one_line(kind):
    wrong = {
        "learning_rate": ["0.1", -1.0],
        "weight_decay": [-1e-4, None],
        "exclude_from_decay": ["bias", [1], 5],
        "exclude_patterns": ["^stem", ["("]],
        "clipnorm": ["1", -1.0],
        "use_ema": ["False", 1],
        "gradient_accumulation_steps": ["2", True],
    }
    own = {
        "momentum": [-0.1, 1.0],
        "nesterov": ["False", None],
        "alpha": [1.0],
        "epsilon": [0, None],
        "betas": [0.9, (0.9, 1.0), (0.9,)],
    }
    wrong |= {name: own[name] for name in SETTINGS[kind] if name in own}
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(InputError) as error:
                kind(**{name: value})
            assert tiny.one_line(error.value, says=lambda text, name=name: name.removesuffix("s") in text), name
