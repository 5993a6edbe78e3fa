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
    blocks = placement.Blocks(split_factor, used)
    branches = [blocks.branches(block) for block in range(len(used))]
    assert [branch for block in branches for branch in block] == list(range(split_factor))
    assert {len(block) for block in branches} == {blocks.size}


def test_four_branches_on_four_three_two_devices_and_one():
    devices = ["GPU:0", "GPU:1", "GPU:2", "GPU:3"]
    for number, used in ((4, 4), (3, 2), (2, 2), (1, 1)):
        assert placement.usable_devices(4, devices[:number]) == tuple(devices[:used])
    assert placement.usable_devices(3, devices[:2]) == ("GPU:0",)
    assert placement.Blocks(4, ("GPU:0", "GPU:1")).branches(1) == range(2, 4)


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


def test_one_device_is_one_block_with_the_usual_names(alone):
    stack = tiny_stack(split_factor=4, devices=["CPU:1"])
    assert [variable.name for variable in stack.variables] == [variable.name for variable in alone.variables]
    assert {variable.value.device[-5:] for variable in stack.variables} == {"CPU:1"}


def test_layers_of_other_names_are_no_blocks():
    for name in ("mod2.block1.conv.kernel", "x.conv_block1.kernel", "denseblock1.denselayer1.gamma"):
        assert placement.canonical_name(name) == name


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
