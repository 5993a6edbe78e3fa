"""What is drawn is as frequent as its table says, and independent of what else is drawn."""

import pytest

from tests.data.frequencies import POLICIES, independence, p_values


@pytest.mark.parametrize("name", POLICIES)
def test_draws_are_as_frequent_as_the_table_says(name):
    found = p_values(name)
    assert "sub-policies" in found and min(found.values()) > 1e-3, found


def test_branches_positions_steps_and_draws_are_independent():
    found = independence()
    assert {"branches", "positions", "steps"} <= set(found) and min(found.values()) > 1e-3, found
