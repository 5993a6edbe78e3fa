import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.common import global_state

from divco_tf.errors import InputError
from divco_tf.models import draws, layers
from divco_tf.models.backbones.wide_resnet_cifar import WideResNetSpec
from divco_tf.models.branch_stack import BranchStack, build
from tests import tiny
from tests.tiny import lively, tiny_stack


@pytest.fixture(scope="module")
def stack() -> BranchStack:
    """Two branches that differ in everything, statistics included."""
    stack = tiny_stack()
    rng = np.random.default_rng(0)
    for variable in stack.variables:
        variable.assign(0.2 + rng.random(variable.shape))
    return stack


@pytest.fixture(scope="module")
def views() -> np.ndarray:
    return tiny.batch(5)[0]


def test_views_become_logits(stack, views):
    logits = stack(views)
    assert logits.shape == (5, 2, 3)
    assert logits.dtype == tf.float32
    assert stack.compute_output_shape((None, 2, 8, 8, 3)) == (None, 2, 3)


def test_each_branch_sees_its_own_view(stack, views):
    logits = stack(views).numpy()
    other = views.copy()
    other[:, 1] += 1
    changed = stack(other).numpy()
    np.testing.assert_array_equal(changed[:, 0], logits[:, 0])
    assert np.abs(changed[:, 1] - logits[:, 1]).min() > 1e-3


def test_an_image_is_shown_to_every_branch(stack, views):
    images = views[:, 0]
    repeated = np.repeat(images[:, None], 2, axis=1)
    np.testing.assert_array_equal(stack(images), stack(repeated))
    np.testing.assert_array_equal(stack.predict(images, verbose=0), stack.predict(repeated, verbose=0))


@pytest.mark.parametrize("training", [False, True])
def test_the_stack_is_its_branches(stack, views, training):
    before = tiny.values(stack.variables)
    branches = [stack.branch(index) for index in range(2)]
    logits = stack(views, training=training).numpy()
    for index, branch in enumerate(branches):
        np.testing.assert_allclose(branch(views[:, index], training=training), logits[:, index], rtol=1e-5, atol=1e-5)
    for index, branch in enumerate(branches):  # and so are the statistics that training moves
        again = stack.branch(index)
        for ours, theirs in zip(again.variables, branch.variables, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    moved = tiny.largest_difference(before, tiny.values(stack.variables))
    assert (moved > 0) == training
    for variable, value in zip(stack.variables, before, strict=True):
        variable.assign(value)


def test_a_branch_is_a_copy(stack, views):
    logits = stack(views).numpy()
    branch = stack.branch(1)
    assert isinstance(branch, keras.Model)
    assert branch.count_params() * 2 == stack.count_params()
    for variable in branch.variables:
        variable.assign(tf.zeros_like(variable.value))
    np.testing.assert_array_equal(stack(views), logits)


def test_a_branch_is_written_back(views):
    stack, other = lively(tiny_stack(seed=3)), lively(tiny_stack(seed=4), seed=4)
    first = stack(views).numpy()[:, 0]
    stack.set_branch(1, other.branch(0))
    images = views[:, 1]
    np.testing.assert_allclose(stack(images)[:, 1], other(images)[:, 0], rtol=1e-6)
    np.testing.assert_array_equal(stack(views)[:, 0], first)
    before = tiny.values(stack.variables)
    stack.set_branch(0, stack.branch(0))
    assert tiny.largest_difference(before, tiny.values(stack.variables)) == 0


@pytest.mark.parametrize(
    "model",
    [
        lambda: tiny_stack(width=16).branch(0),
        lambda: tiny_stack("tiny_no_norm").branch(0),
        lambda: keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)]),
        lambda: keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Flatten()]),
    ],
    ids=["width", "layers", "foreign", "no variables"],
)
def test_another_network_is_no_branch(stack, model):
    before = tiny.values(stack.variables)
    with pytest.raises(InputError) as error:
        stack.set_branch(0, model())
    assert tiny.one_line(error.value, says="start from stack.branch(i)")
    assert tiny.largest_difference(before, tiny.values(stack.variables)) == 0


@pytest.mark.parametrize("index", [-1, 2])
def test_there_is_no_such_branch(stack, index):
    for refuse in (lambda: stack.branch(index), lambda: stack.set_branch(index, stack.branch(0))):
        with pytest.raises(InputError, match=rf"No such branch. Received: {index}; there are 0 to 1"):
            refuse()


def test_a_stack_saves_and_loads(stack, views, tmp_path):
    stack.save(tmp_path / "stack.keras")
    loaded = keras.models.load_model(tmp_path / "stack.keras")
    assert isinstance(loaded, BranchStack)
    assert loaded.spec == stack.spec
    assert loaded.name == stack.name
    np.testing.assert_array_equal(loaded(views), stack(views))
    again = tiny_stack(seed=9)
    stack.save_weights(tmp_path / "stack.weights.h5")
    again.load_weights(tmp_path / "stack.weights.h5")
    np.testing.assert_array_equal(again(views), stack(views))


def test_a_stack_without_batch_normalisation_saves_and_loads(views, tmp_path):
    stack = lively(tiny_stack("tiny_no_norm", precision="mixed_bfloat16"))
    stack.save(tmp_path / "stack.keras")
    loaded = keras.models.load_model(tmp_path / "stack.keras")
    assert loaded.precision == "mixed_bfloat16"
    np.testing.assert_array_equal(loaded(views), stack(views))


def test_a_config_is_json_and_makes_the_same_stack(stack):
    config = json.loads(json.dumps(stack.get_config()))
    again = BranchStack.from_config(config)
    assert again.get_config() == stack.get_config()
    for ours, theirs in zip(again.variables, tiny_stack().variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_stack_inside_a_functional_model(stack, views):
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, keras.layers.Softmax()(stack(images)))
    assert model.output.shape == (None, 2, 3)
    np.testing.assert_allclose(model(views[:, 0]), tf.nn.softmax(stack(views[:, 0])), rtol=1e-6)
    assert len(model.trainable_variables) == len(stack.trainable_variables)


def test_a_stack_is_named_after_its_backbone():
    assert tiny_stack().name == "tiny_x2"
    assert build("wide_resnet10_1", split_factor=4, num_classes=3, input_shape=(8, 8, 3)).name == "wide_resnet10_1_x4"
    spec = WideResNetSpec(depth=10, widen_factor=1)
    assert build(spec=spec, num_classes=3, input_shape=(8, 8, 3)).name == "wide_resnet_x1"


def test_the_summary_lists_layers_and_totals(capsys):
    stack = tiny_stack(dropout=0.1)
    stack.summary()
    text = capsys.readouterr().out
    assert text.startswith("tiny_x2: 2 branches of TinySpec(width=4, norm=True, dropout=0.05)")
    parameters = 2 * (3 * 3 * 3 * 4 + 2 * 4 + 4 * 3 + 3)
    assert f"trainable: {parameters:,}  statistics: {2 * 2 * 4}" in text
    for layer in ("conv (Conv2D)", "norm (BatchNormalization)", "dropout (Dropout)", "fc (Dense)"):
        assert layer in text
    assert sum(int(v.shape.num_elements()) for v in (w.value for w in stack.trainable_variables)) == parameters
    lines = []
    stack.summary(line_length=80, print_fn=lines.append)
    assert max(map(len, "\n".join(lines).splitlines()[1:])) == 80


def test_overrides_change_the_large_network_and_are_then_divided():
    stack = tiny_stack(split_factor=4, width=12, dropout=0.4)
    assert stack.spec == tiny.TinySpec(width=3, dropout=0.1)
    stack = tiny_stack(split_factor=4, width=12, dropout=0.4, divide_regularisers=False)
    assert stack.spec == tiny.TinySpec(width=3, dropout=0.4)


def test_a_spec_is_divided_like_a_name():
    spec = tiny.TinySpec(width=10)
    options = {"split_factor": 2, "num_classes": 3, "input_shape": (8, 8, 3)}
    assert build(spec=spec, **options).spec == dataclasses.replace(spec, width=5)
    assert build(spec=spec, width=4, **options).spec == dataclasses.replace(spec, width=2)


def test_copies_are_undivided():
    stack = build("tiny", copies=3, num_classes=3, input_shape=(8, 8, 3))
    assert stack.spec == tiny.TinySpec()
    assert stack.split_factor == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "tinny"}, "Did you mean tiny"),
        ({"name": "wide_resnet28-10"}, "Did you mean wide_resnet28_10"),
        ({"name": None}, "a backbone's name or a spec"),
        ({"spec": tiny.TinySpec()}, "not both"),
        ({"name": None, "spec": 3}, "No backbone takes this spec"),
        ({"widht": 3}, "Received: widht; it has width, norm, dropout"),
        ({"split_factor": 0}, "split factor is no positive"),
        ({"copies": 0, "split_factor": 1}, "split factor is no positive"),
        ({"copies": 2}, "give one"),
        ({"name": "resnet110", "split_factor": 3}, "16 divides by 1, 2, 4, 8, 16"),
        ({"num_classes": 1}, "at least two classes"),
        ({"num_classes": "10"}, "at least two classes"),
        ({"input_shape": (8, 8)}, "not (height, width, channels)"),
        ({"input_shape": (8, 0, 3)}, "not (height, width, channels)"),
        ({"input_shape": (None, None, 3)}, "not (height, width, channels)"),
        ({"precision": "float16"}, "pass one of float32, mixed_bfloat16, mixed_float16"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_built_is_refused_in_one_line(options, says):
    with pytest.raises(InputError) as error:
        tiny_stack(**{"name": "tiny", **options})
    assert tiny.one_line(error.value, says=says)


@pytest.mark.parametrize("shape", [(4, 3, 8, 8, 3), (4, 2, 8, 8, 1), (4, 8, 9, 3), (8, 8, 3), (4, 2, 1, 8, 8, 3)])
def test_views_of_another_shape_are_refused(stack, shape):
    with pytest.raises(InputError) as error:
        stack.call(np.zeros(shape, np.float32))
    assert tiny.one_line(error.value, says="pass [B, 2, 8, 8, 3] or [B, 8, 8, 3]")


def test_a_template_has_no_values_and_is_not_counted(views):
    pending = list(global_state.get_global_attribute("uninitialized_variables", []))
    stacks = [tiny_stack(), tiny_stack()]
    for stack in stacks:
        stack(views, training=True)
    for stack in stacks:
        assert all(variable._value is None for variable in stack.network.template.variables)
        assert {variable.shape[0] for variable in stack.variables} == {2}
        assert len(stack.variables) == len(stack.network.template.variables) == 7
        assert stack.layers == []
    assert global_state.get_global_attribute("uninitialized_variables", []) == pending


def failing_builder(*_, **__):
    keras.layers.Dense(3).build((None, 3))
    raise RuntimeError("builder failed")


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "float32"])
def test_a_failing_builder_leaves_kerass_global_state(precision, monkeypatch):
    monkeypatch.setattr(layers, "conv", failing_builder)
    keras.config.set_dtype_policy("mixed_float16")
    pending = list(global_state.get_global_attribute("uninitialized_variables", []))
    try:
        with pytest.raises(RuntimeError, match="builder failed"):
            tiny_stack(precision=precision)
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert global_state.get_global_attribute("uninitialized_variables", []) == pending


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_precision_is_the_stacks_own(precision, views):
    before = keras.config.dtype_policy().name
    stack = lively(tiny_stack(precision=precision, dropout=0.1))
    assert keras.config.dtype_policy().name == before == "float32"
    for model in (stack, stack.branch(0)):
        assert {variable.dtype for variable in model.variables} == {"float32"}
    assert stack.network.template.get_layer("conv").compute_dtype == precision.removeprefix("mixed_")
    exact = lively(tiny_stack(dropout=0.1))(views).numpy()
    error = np.abs(stack(views) - exact).max() / np.abs(exact).max()
    for training in (False, True):
        logits = stack(views, training=training)
        assert logits.dtype == tf.float32
        assert np.all(np.isfinite(logits))
    assert (error < 1e-6) if precision == "float32" else (0 < error < 0.03)


def run(stack: BranchStack, views, *, step: int = 0, seed: int = 0, positions=None, jit: bool = False) -> np.ndarray:
    """Logits in training, drawn for one place."""
    positions = tf.range(len(views)) if positions is None else positions
    keys = [
        draws.draw_keys(seed=seed, step=tf.constant(step), branch=branch, positions=positions)
        for branch in range(stack.split_factor)
    ]
    weights, statistics = (
        [tf.convert_to_tensor(variable.value) for variable in variables]
        for variables in (stack.trainable_variables, stack.non_trainable_variables)
    )
    return stack.run(weights, statistics, views, keys, training=True, jit=jit)[0].numpy()


def test_draws_follow_seed_step_branch_and_position():
    stack = lively(tiny_stack("tiny_no_norm", dropout=0.8, width=32))
    for variable in stack.variables:  # alike branches, so that only draws tell them apart
        variable.assign(np.repeat(variable.numpy()[:1], 2, axis=0))
    views = np.repeat(np.repeat(tiny.batch(1)[0][:, :1], 2, axis=1), 6, axis=0)
    logits = run(stack, views)
    assert len({row.tobytes() for row in logits.reshape(12, 3)}) > 6
    np.testing.assert_array_equal(run(stack, views), logits)
    np.testing.assert_allclose(run(stack, views, jit=True), logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(stack, views[:2], positions=tf.constant([3, 4])), logits[3:5], rtol=1e-5, atol=1e-6)
    for other in (run(stack, views, step=1), run(stack, views, seed=1)):
        assert np.abs(other - logits).max() > 0.01


def test_every_weight_gets_a_gradient(views):
    for name in ("tiny", "tiny_no_norm"):
        stack = lively(tiny_stack(name))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(stack(views, training=True) ** 2)
        gradients = tape.gradient(loss, [variable.value for variable in stack.trainable_variables])
        for variable, gradient in zip(stack.trainable_variables, gradients, strict=True):
            assert np.all(np.any(gradient.numpy().reshape(2, -1) != 0, axis=1)), variable.name


def test_keras_words_are_taken():
    stack = tiny_stack(dtype=keras.DTypePolicy("mixed_bfloat16"), synchronized_norm=True, divide_regularizers=False)
    ours = tiny_stack(precision="mixed_bfloat16", synchronised_norm=True, divide_regularisers=False)
    assert stack.get_config() == ours.get_config()
    assert stack.synchronized_norm and stack.dtype_policy.name == "mixed_bfloat16"
    config = {**stack.get_config(), "dtype": "float32"}
    del config["precision"]
    assert BranchStack.from_config(config).precision == "float32"
