import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from divco_tf.errors import InputError
from divco_tf.models import placement
from divco_tf.models.branch_stack import BranchStack
from tests import tiny
from tests.tiny import tiny_stack

TWO = ["CPU:0", "CPU:1"]


@pytest.fixture(scope="module")
def alone() -> BranchStack:
    return tiny_stack(split_factor=4)


@pytest.fixture(scope="module")
def placed() -> BranchStack:
    return tiny_stack(split_factor=4, devices=TWO)


@given(st.integers(1, 12), st.integers(1, 12))
def test_branches_are_shared_out_evenly_over_as_many_devices_as_divide_them(split_factor, number):
    devices = [f"GPU:{index}" for index in range(number)]
    used = placement.usable_devices(split_factor, devices)
    assert split_factor % len(used) == 0
    assert not any(split_factor % more == 0 for more in range(len(used) + 1, number + 1))
    assert used == tuple(devices[: len(used)])
    branches = placement.place_branches(split_factor, devices)
    assert branches == [device for device in used for _ in range(split_factor // len(used))]


def test_four_branches_on_four_three_two_devices_and_one():
    devices = ["GPU:0", "GPU:1", "GPU:2", "GPU:3"]
    assert placement.place_branches(4, devices) == devices
    assert placement.place_branches(4, devices[:3]) == ["GPU:0", "GPU:0", "GPU:1", "GPU:1"]
    assert placement.place_branches(4, devices[:2]) == ["GPU:0", "GPU:0", "GPU:1", "GPU:1"]
    assert placement.place_branches(4, devices[:1]) == ["GPU:0"] * 4
    assert placement.place_branches(3, devices[:2]) == ["GPU:0"] * 3


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        (["CPU:0", "CPU:1", "CPU:0"], "1, 2, 4 would work"),
        ([], "1, 2, 4 would work"),
        (["CPU:0", "GPU:7"], "there are CPU:0, CPU:1"),
        (["CPU:0", "elsewhere"], "there are CPU:0, CPU:1"),
        (["CPU:0", "/device:CPU:0"], "named twice"),
    ],
)
def test_devices_that_do_not_suit_are_refused(devices, says):
    with pytest.raises(InputError) as error:
        tiny_stack(split_factor=4, devices=devices)
    assert tiny.one_line(error.value, says=says)


@pytest.mark.parametrize("names", [TWO, ["cpu:0", "/device:CPU:1"], ["/CPU:0", "/job:localhost/device:CPU:1"]])
def test_devices_may_be_named_in_several_ways(names):
    assert placement.check_devices(2, names) == tuple(
        device.name for device in tf.config.list_logical_devices("CPU")[:2]
    )


def test_blocks_lie_on_their_devices_variable_by_variable(alone, placed):
    names = [variable.name for variable in alone.variables]
    assert [variable.name for variable in placed.variables] == [
        f"block{block}of2.{name}" for name in names for block in range(2)
    ]
    assert [variable.value.device[-5:] for variable in placed.variables] == TWO * len(names)
    for one, halves in zip(alone.variables, placement.grouped_blocks(placed.variables), strict=True):
        assert [half.shape for half in halves] == [(2, *one.shape[1:])] * 2
        assert placement.canonical_name(halves[1].name) == one.name
        assert placement.canonical_name(one.name) == one.name
        np.testing.assert_array_equal(placement.merged_value(halves), one.numpy())


def test_one_device_is_one_block_with_the_usual_names(alone):
    stack = tiny_stack(split_factor=4, devices=["CPU:1"])
    assert [variable.name for variable in stack.variables] == [variable.name for variable in alone.variables]
    assert {variable.value.device[-5:] for variable in stack.variables} == {"CPU:1"}


def test_layers_of_other_names_are_no_blocks():
    for name in ("mod2.block1.conv.kernel", "x.conv_block1.kernel", "denseblock1.denselayer1.gamma"):
        assert placement.canonical_name(name) == name


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


def test_branches_are_read_and_written_through_their_block(alone, placed):
    views = tiny.batch(3)[0][:, 0]
    for index in range(4):
        np.testing.assert_array_equal(placed.branch(index)(views), alone.branch(index)(views))
    stack = tiny_stack(split_factor=4, devices=TWO)
    stack.set_branch(2, alone.branch(0))
    for name, value in stack.stacked_values().items():
        before = placed.stacked_values()[name]
        np.testing.assert_array_equal(value[2], before[0])
        np.testing.assert_array_equal(value[[0, 1, 3]], before[[0, 1, 3]])


def test_values_are_assigned_by_name():
    stack = tiny_stack(split_factor=4, devices=TWO)
    values = {name: value + 1 for name, value in stack.stacked_values().items()}
    stack.assign_stacked(values)
    for name, value in stack.stacked_values().items():
        np.testing.assert_array_equal(value, values[name])
    name = next(iter(values))
    for wrong, says in (({name: values[name][:2]}, "another shape"), ({"con.kernel": values[name]}, "conv.kernel")):
        with pytest.raises(InputError) as error:
            stack.assign_stacked({**values, name: values[name] * 0, **wrong})
        assert tiny.one_line(error.value, says=says)
    np.testing.assert_array_equal(stack.stacked_values()[name], values[name])


def test_a_saved_stack_knows_no_devices(placed, tmp_path):
    views = tiny.batch(3)[0][:, 0]
    assert "devices" not in placed.get_config()
    placed.save(tmp_path / "stack.keras")
    loaded = keras.models.load_model(tmp_path / "stack.keras")
    assert loaded.devices is None
    np.testing.assert_array_equal(loaded(views), placed(views))
    again = tiny_stack(split_factor=4, devices=TWO, seed=9)
    loaded.save_weights(tmp_path / "stack.weights.h5")
    again.load_weights(tmp_path / "stack.weights.h5")
    np.testing.assert_array_equal(again(views), placed(views))
    with pytest.raises(ValueError, match=r"of another network. Received: 7 variables; tiny_no_norm_x4 has 4"):
        tiny_stack("tiny_no_norm", split_factor=4, devices=TWO).load_weights(tmp_path / "stack.weights.h5")


def test_the_summary_and_calls_do_not_depend_on_devices(alone, placed):
    texts = []
    for stack in (alone, placed):
        stack.summary(print_fn=texts.append)
    assert texts[0] == texts[1]
    views = tiny.batch(3, split_factor=4)[0]
    np.testing.assert_array_equal(placed(views), alone(views))
    np.testing.assert_array_equal(placed.predict(views, verbose=0), alone.predict(views, verbose=0))
