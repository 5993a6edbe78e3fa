import contextlib
import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divco_tf.errors import InputError
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.budget import divide_by_budget
from divco_tf.models.divide import by_split, by_sqrt_split, divided
from divco_tf.models.division import branch_spec, check_division
from divco_tf.models.sizes import Sizes, count_parameters
from divco_tf.models.summary import summarize
from tests.tiny import one_line


@dataclasses.dataclass(frozen=True)
class Spec:
    width: float = divided(width=0.25, default=64.0)
    groups: int = divided(by_split, default=8)
    dropout: float = divided(by_sqrt_split, regulariser=True, default=0.2)


class Cost:
    """Of a made-up network, with channels rounded to multiples; it remembers the widths it was asked for."""

    def __init__(self, squared: float, linear: float, constant: float, multiple: int) -> None:
        self.parts, self.multiple, self.asked = (squared, linear, constant), multiple, []

    def __call__(self, spec: Spec) -> int:
        self.asked.append(spec.width)
        squared, linear, constant = self.parts
        stages = [max(self.multiple, round(spec.width * stage / self.multiple) * self.multiple) for stage in (1, 2, 4)]
        return math.ceil(sum(squared * stage**2 + linear * stage for stage in stages) + constant)


costs = st.builds(
    Cost,
    squared=st.floats(0.1, 100),
    linear=st.floats(0, 1000),
    constant=st.floats(0, 1000),
    multiple=st.sampled_from([1, 4, 8]),
)


@given(costs, st.floats(16, 700), st.integers(2, 20))
def test_the_width_is_the_largest_whose_networks_keep_to_the_budget(cost, width, split_factor):
    spec = Spec(width)
    try:
        small = divide_by_budget(spec, split_factor, count=cost)
    except InputError:
        assert split_factor * cost(Spec(0.25)) > cost(spec)
        return
    assert split_factor * cost(small) <= cost(spec)
    assert split_factor * cost(Spec(small.width + 0.25)) > cost(spec)
    assert small.width < width and small.width / 0.25 == int(small.width / 0.25)


@given(costs, st.integers(64, 1000), st.integers(2, 16))
def test_few_networks_are_counted(cost, width, split_factor):
    with contextlib.suppress(InputError):  # too many networks
        divide_by_budget(Spec(width), split_factor, count=cost)
    assert len(cost.asked) <= 2 + 2 * math.log2(width / 0.25)


def test_deep_networks_take_about_five_counts():
    counts = []
    for split_factor in (2, 3, 4, 5, 6, 8, 16):
        cost = Cost(9.0, 4.0, 100.0, multiple=1)
        divide_by_budget(Spec(160.0), split_factor, count=cost)
        counts.append(len(cost.asked))
    assert sum(counts) / len(counts) <= 6


def test_widths_are_searched_regularisers_divided_and_the_rest_kept():
    spec, cost = Spec(), Cost(1.0, 0.0, 0.0, multiple=1)
    small = divide_by_budget(spec, 4, count=cost)
    assert (small.width, small.groups, small.dropout) == (32.0, 8, 0.1)
    assert divide_by_budget(spec, 4, count=cost, regularisers=False) == dataclasses.replace(spec, width=32.0)
    assert divide_by_budget(spec, 1, count=cost) is spec


def test_a_whole_width_stays_a_whole_number():
    whole = divide_by_budget(Spec(64), 4, count=Cost(1.0, 0.0, 0.0, multiple=1)).width
    assert isinstance(whole, int) and whole == 32


def test_too_many_networks_are_refused():
    with pytest.raises(InputError, match=r"budget of 22 .*10 with width=0.25 have 40\)") as error:
        divide_by_budget(Spec(1.0), 10, count=Cost(1.0, 0.0, 1.0, multiple=1))
    assert one_line(error.value, says="split_factor=10")


def test_widths_that_a_spec_refuses_are_too_narrow():
    @dataclasses.dataclass(frozen=True)
    class Wide(Spec):
        def __post_init__(self):
            if self.width < 30:
                raise InputError(f"Too narrow. Received: {self.width}.")

    cost = Cost(1.0, 0.0, 0.0, multiple=1)
    assert divide_by_budget(Wide(), 4, count=cost).width == 32
    with pytest.raises(InputError, match=r"too small for so many networks \(Too narrow.*split_factor=64"):
        divide_by_budget(Wide(), 64, count=cost)


DATA = {"num_classes": 100, "input_shape": (32, 32, 3)}


@pytest.mark.parametrize("budget", ["parameters", "multiply_adds"])
@pytest.mark.parametrize(("name", "split_factors"), [("wide_resnet16_8", (2, 3, 5, 6, 16)), ("resnet110", (3,))])
def test_any_split_factor_comes_within_three_percent(name, split_factors, budget):
    sizes, large = Sizes(**DATA), summarize(name, **DATA)
    for split_factor in split_factors:
        small = summarize(name, split_factor=split_factor, rule="budget", budget=budget, sizes=sizes, **DATA)
        assert small.of_budget == getattr(small, budget) / getattr(large, budget)
        assert 0.97 < small.of_budget <= 1


def test_a_stack_is_built_by_the_budget_rule():
    data = {"num_classes": 3, "input_shape": (8, 8, 3)}
    large = build("tiny", width=40, dropout=0.6, **data)
    stack = build("tiny", width=40, dropout=0.6, split_factor=3, rule="budget", **data)
    assert 0.9 * count_parameters(large) < count_parameters(stack) <= count_parameters(large)
    assert stack.spec.dropout == pytest.approx(0.2) and stack.spec.width == 13
    assert BranchStack.from_config(stack.get_config()).spec == stack.spec


def test_fractions_of_a_width_survive_the_config():
    stack = build("wide_resnet10_1", split_factor=2, num_classes=3, input_shape=(4, 4, 3), rule="budget")
    assert stack.spec.widen_factor % 1 and BranchStack.from_config(stack.get_config()).spec == stack.spec


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rule": "budgets"}, "'budgets'; pass one of paper, budget"),
        ({"rule": "budget", "budget": "flops"}, "'flops'; pass one of parameters, multiply_adds"),
        ({"budget": "flops"}, "'flops'; pass one of"),
        ({"rule": "budget", "split_factor": 0}, "split factor"),
        ({"rule": "budget", "widht": 3}, "widht"),
    ],
)
def test_bad_divisions_are_refused_with_and_without_counting(options, says):
    options = {"split_factor": 2, **options}
    for refuse in (branch_spec, check_division):
        with pytest.raises(InputError) as error:
            refuse("tiny", **options)
        assert one_line(error.value, says=says)


def test_copies_are_not_divided():
    assert branch_spec("tiny", copies=3, rule="budget") == branch_spec("tiny")
