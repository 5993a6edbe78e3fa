"""Verdicts on tables where the answer is known: nothing by construction, or a planted difference."""

import dataclasses
import math

import numpy as np
import pytest

from divco_tf.analysis import statistics, verdict
from divco_tf.errors import InputError
from tests.analysis.arms import right_predictions

CLEAR = statistics.Comparison(
    difference=0.0123,
    low=0.0051,
    high=0.0187,
    seed_error=0.002,
    image_error=0.001,
    t_p=0.003,
    sign_flip_p=2 / 64,
    smallest_difference=0.009,
    seeds=6,
    images=10_000,
)
TURNED = dataclasses.replace(CLEAR, difference=-0.0123, low=-0.0187, high=-0.0051)


def nothing_seen(comparison):
    return verdict.verdict(comparison, name="S=4").word == "no difference seen"


@pytest.mark.parametrize(("images", "tables"), [(360, 200), (10_000, 40)])
def test_nothing_is_seen_in_nineteen_of_twenty_tables_of_the_same_network_with_other_seeds(images, tables):
    rng = np.random.default_rng(0)
    made = [
        statistics.compare(*right_predictions(rng, seeds=6, images=images, arms=2), resamples=1000)
        for _ in range(tables)
    ]
    assert np.mean([nothing_seen(comparison) for comparison in made]) >= 0.95


@pytest.mark.parametrize("images", [360, 10_000])
def test_a_planted_difference_of_two_intervals_is_found(images):
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = right_predictions(rng, seeds=6, images=images, arms=2)
        comparison = statistics.compare(a, b, resamples=1000)
        planted = 2 * (comparison.high - comparison.low)
        for sign, word in ((1, "pays"), (-1, "does not pay")):
            found = verdict.verdict(statistics.compare(a + sign * planted, b, resamples=1000), name="S=4")
            assert found.word == word
            assert found.comparison.low - 1e-9 <= comparison.difference + sign * planted <= found.comparison.high + 1e-9


def test_a_table_of_arms_that_do_not_differ_says_so_of_all_in_nineteen_of_twenty():
    rng = np.random.default_rng(2)
    mistaken = 0
    for _ in range(60):
        *arms, base = right_predictions(rng, seeds=8, images=360, arms=6)
        table = {str(i): statistics.compare(arm, base, resamples=1000) for i, arm in enumerate(arms)}
        mistaken += any(found.word != "no difference seen" for found in verdict.verdicts(table).values())
    assert mistaken <= 3


def test_six_seeds_can_show_differences_in_a_table_of_many():
    # Holm's correction of the sign-flip test would leave p at 6 * 2/64 for the first of six.
    table = {f"S={i}": dataclasses.replace(CLEAR, t_p=0.001) for i in range(6)}
    assert {found.word for found in verdict.verdicts(table).values()} == {"pays"}


@pytest.mark.parametrize("doubt", [{"low": -0.001}, {"low": 0.0}, {"sign_flip_p": 4 / 64}, {"t_p": 0.06}])
def test_each_of_the_three_conditions_is_needed(doubt):
    assert verdict.verdict(CLEAR, name="S=4").word == "pays"
    assert verdict.verdict(TURNED, name="S=4").word == "does not pay"
    assert nothing_seen(dataclasses.replace(CLEAR, **doubt))


def test_holms_correction_is_over_the_table():
    table = {"S=2": dataclasses.replace(CLEAR, t_p=0.03), "S=4": dataclasses.replace(CLEAR, t_p=0.01)}
    found = verdict.verdicts(table)
    assert list(found) == ["S=2", "S=4"]
    assert [of_arm.corrected_p for of_arm in found.values()] == pytest.approx([0.03, 0.02])
    table["S=8"] = dataclasses.replace(CLEAR, t_p=0.9)
    assert verdict.verdicts(table)["S=2"].word == "no difference seen"  # 0.06
    assert verdict.verdicts({}) == {}


def test_a_larger_table_sees_less():
    arm = dataclasses.replace(CLEAR, seeds=12)
    alone = verdict.verdict(arm, name="S=4").smallest_difference
    in_table = verdict.verdicts({f"S={i}": arm for i in range(2, 7)})["S=4"].smallest_difference
    assert in_table > 1.1 * alone


@pytest.mark.parametrize(
    ("changes", "unit", "sentence"),
    [
        ({}, "points", "S=4 pays: +1.2 points (95 % interval 0.5 to 1.9, six seeds)"),
        ({"seeds": 13}, "points", "S=4 pays: +1.2 points (95 % interval 0.5 to 1.9, 13 seeds)"),
        ({}, "nats", "S=4 pays: +0.012 nats (95 % interval 0.005 to 0.019, six seeds)"),
    ],
)
def test_a_sentence_has_the_difference_the_interval_and_the_seeds(changes, unit, sentence):
    assert verdict.verdict(dataclasses.replace(CLEAR, **changes), name="S=4", unit=unit).sentence == sentence


NOTHING = {"difference": 0.0, "low": 0.0, "high": 0.0, "seed_error": 0.0, "image_error": 0.0, "t_p": 1.0}
SMALL = {"difference": 0.0004, "low": -0.0003, "high": 0.002, "seed_error": 0.001, "image_error": 0.0}


@pytest.mark.parametrize(
    ("changes", "numbers", "told"),
    [
        (SMALL, "+0.04 points (95 % interval -0.03 to 0.20, six seeds)", "0.44 points would have been seen"),
        (NOTHING, "0.0 points (95 % interval 0.0 to 0.0, six seeds)", "0.0 points would have been seen"),
        ({"seeds": 3}, "+1.2 points (95 % interval 0.5 to 1.9, three seeds)", "fewer than six seeds cannot show one"),
        (
            {"seeds": 1},
            "+1.2 points (95 % interval over images only 0.5 to 1.9, one seed)",
            "fewer than six seeds cannot show one",
        ),
    ],
)
def test_where_nothing_is_seen_a_sentence_tells_what_would_have_been(changes, numbers, told):
    comparison = dataclasses.replace(CLEAR, sign_flip_p=1.0, **changes)
    sentence = verdict.verdict(comparison, name="S=4").sentence
    assert sentence == f"S=4: no difference seen, {numbers}; {told}"


def test_a_worse_arm_has_its_sign():
    expected = "S=4 does not pay: -1.2 points (95 % interval -1.9 to -0.5, six seeds)"
    assert verdict.verdict(TURNED, name="S=4").sentence == expected


def test_fewer_than_six_seeds_show_nothing_however_clear():
    for seeds in range(1, 6):
        found = verdict.verdict(statistics.compare(np.ones((seeds, 9)), np.zeros((seeds, 9))), name="S=4")
        assert found.word == "no difference seen" and math.isinf(found.smallest_difference)
    assert verdict.verdict(statistics.compare(np.ones((6, 9)), np.zeros((6, 9))), name="S=4").word == "pays"


def test_an_unknown_unit_is_refused():
    with pytest.raises(InputError, match="'percent'; pass one of 'points', 'nats'"):
        verdict.verdict(CLEAR, name="S=4", unit="percent")
