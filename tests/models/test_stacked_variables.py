"""The variables of a stack are read and written by name and by branch, wherever they lie."""

import numpy as np
import pytest

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
