"""Runs beside each other: costs, intervals, and what makes a comparison unfair."""

import numpy as np
import pytest

from divco_tf.analysis.comparison import Scored, accuracy_interval, compare_runs, differences
from divco_tf.analysis.statistics import compare
from divco_tf.data.sources import open_source
from divco_tf.errors import InputError
from divco_tf.models.branch_stack import build
from divco_tf.models.sizes import count_parameters
from divco_tf.models.summary import summarize
from divco_tf.runs.model_dir import claim_model_dir
from tests.runs import runs


@pytest.fixture(scope="module")
def claimed(tmp_path_factory):
    """Folders of runs that have not been trained, by what is said of them."""
    root, source = tmp_path_factory.mktemp("runs"), open_source("digits", "train")

    def claim(name, source=source, **changes):
        return claim_model_dir(root / name, runs.experiment(**changes), source)

    return {
        "one": claim("one", split_factor=1),
        "two": claim("two"),
        "longer": claim("longer", epochs=None, steps=7, seed=3, dropout_samples=2),
        "fewer": claim("fewer", source=source.only(np.arange(500))),
    }


def test_intervals_are_wilsons():
    low, high = accuracy_interval(90, 100)  # by hand, with z = 1.959964
    assert (low, high) == (pytest.approx(0.82563, abs=1e-5), pytest.approx(0.94477, abs=1e-5))
    assert accuracy_interval(10, 10)[1] == 1 and accuracy_interval(0, 10)[0] == 0
    with pytest.raises(InputError, match="Received: 11 of 10"):
        accuracy_interval(11, 10)


def test_sizes_are_those_of_a_summary_and_of_the_network(claimed):
    one, two, longer = compare_runs([Scored(claimed[name], np.ones(9, bool), 0) for name in ("one", "two", "longer")])
    for found, split_factor in ((one, 1), (two, 2)):
        told = summarize("tiny", num_classes=10, input_shape=(8, 8, 3), split_factor=split_factor, dropout=0.2)
        assert (found.parameters, found.multiply_adds) == (told.parameters, told.multiply_adds)
        assert (found.split_factor, found.epochs, found.steps) == (split_factor, 2, None)
    assert two.parameters == count_parameters(build("tiny", split_factor=2, num_classes=10, input_shape=(8, 8, 3)))
    assert (longer.epochs, longer.steps, longer.multiply_adds) == (None, 7, 2 * two.multiply_adds)


def test_differences_are_paired_over_images(claimed):
    rng = np.random.default_rng(0)
    first = rng.random(300) < 0.8
    second = first ^ (rng.random(300) < 0.1)
    found = compare_runs([Scored(claimed["one"], first, "images"), Scored(claimed["two"], second, "images")])
    paired = compare(second[None], first[None])
    assert found[0].difference is None
    assert found[1].difference == pytest.approx(second.mean() - first.mean()) == paired.difference
    assert found[1].difference_interval == (paired.low, paired.high)
    other = compare_runs([Scored(claimed["one"], first, "images"), Scored(claimed["two"], second, "others")])
    assert other[1].difference is None


def test_what_else_than_the_split_factor_differs_is_named(claimed):
    assert list(differences(claimed["two"], claimed["one"])) == []
    told = list(differences(claimed["longer"], claimed["two"]))
    assert told == ["dropout_samples 2 (there 0)", "epochs None (there 2)", "steps 7 (there None)", "seed 3 (there 0)"]
    assert list(differences(claimed["fewer"], claimed["two"])) == ["training images"]
