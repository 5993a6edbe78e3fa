import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divco_tf.analysis.grid import cell_name, cells, with_arguments
from divco_tf.errors import InputError
from divco_tf.training.losses import CoTraining
from tests.runs import runs


def test_a_grid_is_all_combinations_in_their_order():
    found = cells(["split_factor=1,4; seed=0..2; cotraining.loss=js"])
    assert [cell.name for cell in found[:3]] == [f"split_factor=1,seed={seed},cotraining.loss=js" for seed in range(3)]
    assert len(found) == 6
    assert found[-1].arguments == {"split_factor": 4, "seed": 2, "cotraining.loss": "js"}


def test_several_grids_are_one_after_the_other_and_a_cell_stands_once():
    found = cells(["seed=0,1", "seed=1..3"])
    assert [cell.arguments["seed"] for cell in found] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("5e-4", 5e-4),
        ("None", None),
        ("True", True),
        ("-2..0", [-2, -1, 0]),
        ("(1, 2)", (1, 2)),
        ("'a,b;c'", "a,b;c"),
        ("crop_flip+rand-m9", "crop_flip+rand-m9"),
        ("mean_logits", "mean_logits"),
    ],
)
def test_values_are_pythons_or_a_text(text, value):
    values = value if isinstance(value, list) else [value]
    assert [cell.arguments["x"] for cell in cells([f"x={text}"])] == values


@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_there_are_as_many_cells_as_combinations_with_names_of_their_own(sizes):
    grid = "; ".join(f"field{axis}=0..{size - 1}" for axis, size in enumerate(sizes))
    found = cells([grid])
    assert len(found) == len({cell.name for cell in found}) == math.prod(sizes)


@pytest.mark.parametrize(
    ("grids", "says"),
    [
        ([], r"A sweep has a grid. Received: \[\]"),
        ("seed=0", "A sweep has a grid. Received: 'seed=0'"),
        (["seed"], "field=value,value. Received: seed"),
        (["=1"], "field=value,value. Received: =1"),
        (["seed="], "field=value,value. Received: seed="),
        (["a b=1"], "field=value,value. Received: a b=1"),
        (["seed=0,,1"], "an empty value. Received: seed=0,,1"),
        (["seed=0; seed=1"], "a field twice. Received: seed"),
        (["seed=5..0"], "Received: 5..0; 0..5 would work"),
        ([" ; "], "A grid is empty"),
    ],
)
def test_what_is_no_grid_is_refused(grids, says):
    with pytest.raises(InputError, match=says):
        cells(grids)


def test_names_are_good_for_files_and_never_the_same():
    assert cell_name({"views": "a/b"}) != cell_name({"views": "a_b"})
    assert "/" not in cell_name({"views": "a/b"})
    long = [cell_name({"views": "x" * 300 + end}) for end in "ab"]
    assert long[0] != long[1] and max(map(len, long)) < 200


def test_arguments_reach_fields_of_what_an_experiment_holds():
    experiment = runs.experiment()
    changed = with_arguments(
        experiment, {"seed": 3, "cotraining.loss": "kl", "cotraining.weight": 1.0, "overrides.dropout": 0.1}
    )
    assert changed.seed == 3 and changed.overrides == {"dropout": 0.1}
    assert changed.cotraining == dataclasses.replace(experiment.cotraining, loss="kl", weight=1.0)
    whole = with_arguments(experiment, {"cotraining": CoTraining(), "cotraining.weight": 0.25})
    assert whole.cotraining == CoTraining(weight=0.25)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sede": 1}, "Experiment has no such field. Received: sede. Did you mean seed"),
        ({"cotraining.los": "js"}, "CoTraining has no such field. Received: los"),
        ({"warm_start.weights": "ema"}, "warm_start holds no fields. Received: warm_start.weights"),
        ({"split_factor": "four"}, "Experiment.split_factor has another type"),
    ],
)
def test_a_field_that_is_not_there_is_refused(arguments, says):
    with pytest.raises(InputError, match=says):
        with_arguments(runs.experiment(), arguments)
