import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divco_tf.errors import InputError
from divco_tf.models.backbones.resnet_cifar import CifarResNetSpec
from divco_tf.models.backbones.wide_resnet_cifar import WideResNetSpec, widen
from divco_tf.models.divide import (
    by_split,
    by_sqrt_split,
    by_table,
    by_whole_split,
    divide,
    divide_weight_decay,
    divided,
    kept,
    regularisation,
    width_of,
    widths,
)
from tests.reference import load_json

wide_resnets = st.builds(
    WideResNetSpec,
    depth=st.sampled_from([10, 16, 28, 40]),
    widen_factor=st.integers(1, 64),
    dropout=st.floats(0, 0.9),
)


@given(wide_resnets)
def test_one_network_is_the_large_one(spec):
    assert divide(spec, 1) is spec


@given(wide_resnets, st.integers(2, 64))
def test_only_divided_fields_change(spec, split_factor):
    small = divide(spec, split_factor)
    assert type(small) is type(spec)
    assert small.depth == spec.depth
    assert 1 <= small.widen_factor <= spec.widen_factor
    assert small.dropout == spec.dropout / split_factor


@given(wide_resnets, st.integers(1, 64))
def test_regularisers_are_left_alone_on_demand(spec, split_factor):
    small = divide(spec, split_factor, regularisers=False)
    assert small == dataclasses.replace(divide(spec, split_factor), dropout=spec.dropout)


@pytest.mark.parametrize(
    ("factor", "widths"), [(10, (10, 7, 5, 3)), (8, (8, 6, 4, 3)), (12, (12, 8, 6, 4)), (1, (1, 1, 1, 1))]
)
def test_widening_factors_are_the_published_ones(factor, widths):
    assert tuple(widen(factor, split_factor) for split_factor in (1, 2, 4, 8)) == widths


@pytest.mark.parametrize(("split_factor", "width"), [(1, 16), (2, 12), (4, 8), (8, 6), (16, 4)])
def test_resnet_stems_are_the_published_ones(split_factor, width):
    assert divide(CifarResNetSpec(depth=110), split_factor).width == width


def test_rules_of_regularisers():
    assert by_split(0.2, 4) == 0.05
    assert by_sqrt_split(0.2, 4) == 0.1
    assert by_sqrt_split(0.2, 2) == pytest.approx(0.2 / math.sqrt(2), rel=1e-15)


@given(st.integers(1, 100), st.integers(1, 20))
def test_whole_numbers_are_split_exactly_or_refused(value, split_factor):
    if value % split_factor == 0:
        assert by_whole_split(value, split_factor) * split_factor == value
    else:
        with pytest.raises(InputError, match=rf"{value} divides by 1, .*{value}$|1 divides by 1$") as error:
            by_whole_split(value, split_factor)
        works = map(int, str(error.value).split(" by ")[1].split(", "))
        assert {by_whole_split(value, divisor) * divisor for divisor in works} == {value}


@dataclasses.dataclass(frozen=True)
class Table:
    width: int = divided(by_table({64: {2: 44, 4: 32}}), default=64)
    name: str = "x"


def test_a_table_gives_its_entries():
    assert divide(Table(), 4) == Table(width=32)


@pytest.mark.parametrize(
    ("spec", "split_factor", "works"), [(Table(), 3, "64 divides by 2, 4"), (Table(60), 2, "only 64")]
)
def test_a_table_refuses_and_names_what_works(spec, split_factor, works):
    with pytest.raises(
        InputError, match=rf"^Table.width cannot be divided.* Received: {split_factor};.*{works}"
    ) as error:
        divide(spec, split_factor)
    assert "copies=" in str(error.value) and "budget" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_backbones_error_names_its_split_factors_and_offers_the_budget_rule():
    with pytest.raises(InputError, match=r"CifarResNetSpec.width .*Received: 3; 16 divides by 1, 2, 4, 8, 16") as error:
        divide(CifarResNetSpec(depth=110), 3)
    assert 'rule="budget" divides by any number' in str(error.value)


@dataclasses.dataclass(frozen=True)
class Unpublished:
    width: float = divided(width=0.5, default=4.0)
    groups: int = divided(by_split, default=8)
    other_width: int = divided(kept, default=3)
    dropout: float = divided(by_sqrt_split, regulariser=True, default=0.2)


def test_a_width_without_a_rule_offers_the_budget_rule():
    assert divide(Unpublished(), 1) == Unpublished()
    with pytest.raises(InputError, match=r"Unpublished.width .*Received: 4; its division is not published.*budget"):
        divide(Unpublished(), 4)


def test_widths_are_left_alone_on_demand():
    assert divide(Unpublished(), 4, widths=False) == Unpublished(dropout=0.1)
    assert divide(Unpublished(), 4, widths=False, regularisers=False) == Unpublished()


def test_a_spec_names_one_width():
    assert width_of(Unpublished()) == ("width", 0.5)
    assert widths(Unpublished(6.5)) == {"width": 6.5}
    several = dataclasses.make_dataclass("Several", [(name, int, divided(kept, width=1, default=2)) for name in "ab"])
    for spec, named in ((Table(), "Table with none"), (several(), "Several with a, b")):
        with pytest.raises(InputError, match=rf"needs one field declared as the width.* Received: {named}"):
            width_of(spec)
    assert widths(Table()) == {}


@pytest.mark.parametrize(("declaration", "says"), [({}, "neither"), ({"width": 0}, "0"), ({"width": -1.0}, "-1.0")])
def test_a_field_is_divided_by_a_rule_or_is_a_width_of_some_step(declaration, says):
    with pytest.raises(InputError, match=rf"Received: {says}; "):
        divided(**declaration)


@pytest.mark.parametrize("split_factor", [0, -1, 2.0, "2", True, None])
def test_a_split_factor_is_a_positive_whole_number(split_factor):
    for refuse in (lambda: divide(Table(), split_factor), lambda: divide_weight_decay(1e-4, split_factor)):
        with pytest.raises(InputError, match=r"split factor is no positive whole number. Received: "):
            refuse()


@pytest.mark.parametrize("thing", [Table, {"width": 64}, None, "wide_resnet28_10"])
def test_only_a_spec_is_divided(thing):
    with pytest.raises(InputError, match=r"Only a spec can be divided. Received: "):
        divide(thing, 2)


def test_a_spec_checks_itself():
    for depth in (9, 12, 4):
        with pytest.raises(InputError, match=r"depth is 6 n \+ 4. Received: "):
            WideResNetSpec(depth=depth, widen_factor=1)
    with pytest.raises(InputError, match=r"widening factor is not positive. Received: 0"):
        WideResNetSpec(depth=10, widen_factor=0)
    for depth in (2, 100):
        with pytest.raises(InputError, match=r"depth is 9 n \+ 2. Received: "):
            CifarResNetSpec(depth=depth)


def test_regularisation_lists_strengths_only():
    assert regularisation(WideResNetSpec(depth=40, widen_factor=10, dropout=0.1)) == {"dropout": 0.1}
    assert regularisation(Table()) == {}


def test_weight_decay_is_divided_as_in_the_reference():
    facts = load_json("hyperparameters.json")["weight_decay_division"]
    for split_factor, factor in facts["factors"].items():
        assert divide_weight_decay(1.0, int(split_factor)) == pytest.approx(factor, rel=1e-14)
    for row in facts["table"].values():
        for split_factor, divided_decay in row.items():
            assert divide_weight_decay(row["1"], int(split_factor)) == pytest.approx(divided_decay, rel=1e-14)


@pytest.mark.parametrize("weight_decay", [-1e-9, float("nan")])
def test_negative_weight_decay_is_refused(weight_decay):
    with pytest.raises(InputError, match=r"Weight decay is negative. Received: "):
        divide_weight_decay(weight_decay, 2)


@given(st.floats(0, 1), st.integers(1, 1000))
def test_divided_weight_decay_is_never_larger(weight_decay, split_factor):
    assert 0 <= divide_weight_decay(weight_decay, split_factor) <= weight_decay
