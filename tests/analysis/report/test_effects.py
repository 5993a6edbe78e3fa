"""Differences are those of the statistics, within tasks, over what both arms have; and a sentence tells them."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from divco_tf.analysis.report.effects import (
    ACCURACY,
    CALIBRATION,
    LIKELIHOOD,
    Interval,
    bars,
    effects,
    headline,
    over_seeds,
)
from divco_tf.analysis.report.study import read_study
from divco_tf.analysis.statistics import compare
from tests.analysis.report import synthetic

LABELS = np.arange(60) % 10


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """Two amounts of data, six seeds."""
    folder = tmp_path_factory.mktemp("sweeps") / "grown"
    return read_study(synthetic.sweep(folder, labels=LABELS, seeds=range(6), amounts=(500, 2000)))


def test_an_interval_over_seeds_is_students():
    values = np.random.default_rng(0).normal(size=7)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    found = over_seeds(values)
    np.testing.assert_allclose([found.mean, found.low, found.high], [values.mean(), *expected], rtol=1e-12)


def test_one_seed_has_no_interval():
    assert over_seeds([0.5]).told(2) == "0.50" and bars([over_seeds([0.5])]) == [[0.0], [0.0]]


def test_numbers_are_told_with_their_interval():
    interval = Interval(0.0123, -0.001, 0.03).scaled(100)
    assert interval.told(1) == "1.2 (-0.1 to 3.0)" and interval.told(1, sign=True) == "+1.2 (-0.1 to 3.0)"
    assert Interval(-0.001).told(1, sign=True) == "0.0"
    assert bars([interval]) == [[pytest.approx(1.33)], [pytest.approx(1.77)]]


def test_arms_are_compared_with_the_baseline_of_their_own_task(grown):
    found = effects(grown, ACCURACY)
    assert [effect.label for effect in found] == [
        f"{arm}, {images} images" for images in ("500", "2,000") for arm in ("S=4", "S=4, loss=none")
    ]
    for effect in found:
        baseline = grown.baseline_of(effect.arm.task)
        scores = [np.stack([judged.correct for judged in arm.judged]) for arm in (effect.arm, baseline)]
        expected = compare(*scores)
        assert effect.interval == Interval(expected.difference, expected.low, expected.high).scaled(100)
        assert effect.seeds == 6 and effect.verdict.comparison == expected


def test_likelihood_is_in_nats_and_above_0_where_the_arm_is_better(grown):
    for effect in effects(grown, LIKELIHOOD):
        baseline = grown.baseline_of(effect.arm.task)
        nll = [np.mean(arm.values("negative_log_likelihood")) for arm in (baseline, effect.arm)]
        assert effect.interval.mean == pytest.approx(nll[0] - nll[1], abs=1e-3)  # judged answers have 11 bits


def test_the_calibration_error_avoided_is_paired_over_seeds(grown):
    for effect in effects(grown, CALIBRATION):
        baseline = grown.baseline_of(effect.arm.task)
        ours, theirs = (arm.values("expected_calibration_error") for arm in (effect.arm, baseline))
        expected = stats.ttest_rel(theirs, ours).confidence_interval()
        assert (effect.interval.low, effect.interval.high) == pytest.approx([100 * end for end in expected])


def test_only_seeds_that_both_have_are_compared(tmp_path):
    folder = synthetic.sweep(tmp_path / "sweep", labels=LABELS, arms=synthetic.ARMS[:2], seeds=range(3))
    (folder / "judged" / "split_factor=4,seed=1.npz").unlink()
    (effect,) = effects(read_study(folder), ACCURACY)
    assert effect.seeds == 2
    for seed in (0, 2):
        (folder / "judged" / f"split_factor=4,seed={seed}.npz").unlink()
    study = read_study(folder)
    assert effects(study, ACCURACY) == [] and len(effects(study, CALIBRATION)) == 1
    assert headline(study, []).startswith("Nothing is compared")


def test_arms_judged_on_other_images_are_not_compared(tmp_path):
    folder = synthetic.sweep(tmp_path / "one", labels=LABELS, arms=synthetic.ARMS[:2], seeds=[0])
    other = synthetic.sweep(tmp_path / "other", labels=LABELS[::-1].copy(), arms=synthetic.ARMS[:2], seeds=[0])
    name = "judged/split_factor=4,seed=0.npz"
    (other / name).replace(folder / name)
    assert effects(read_study(folder), ACCURACY) == []


def test_one_comparison_is_told_by_its_verdict(tmp_path):
    study = read_study(synthetic.sweep(tmp_path / "sweep", labels=LABELS, arms=synthetic.ARMS[:2], seeds=range(6)))
    (effect,) = found = effects(study, ACCURACY)
    assert headline(study, found) == f"{effect.verdict.sentence}."


def test_of_several_comparisons_the_largest_is_told_with_its_interval(grown):
    found = effects(grown, ACCURACY)
    largest = max(found, key=lambda effect: abs(effect.interval.mean))
    told = headline(grown, found)
    assert told.endswith(f" The largest: {largest.verdict.sentence}.") and "4 comparisons" in told
    assert "95 % interval" in told


def test_words_are_counted_in_one_sentence(grown):
    found = effects(grown, ACCURACY)
    words = ("pays", "no difference seen", "does not pay", "pays")
    found = [
        dataclasses.replace(effect, verdict=dataclasses.replace(effect.verdict, word=word))
        for effect, word in zip(found, words, strict=True)
    ]
    told = "Of 4 comparisons 2 pay, 1 does not pay and 1 shows no difference. The largest"
    assert headline(grown, found).startswith(told)
    assert headline(grown, [found[1]] * 2).startswith("None of 2 comparisons shows a difference.")
    assert headline(grown, [found[2]] * 2).startswith("None of 2 comparisons pays.")


def test_a_single_arm_tells_its_accuracy(tmp_path):
    study = read_study(synthetic.sweep(tmp_path / "sweep", labels=LABELS, arms=synthetic.ARMS[:1], seeds=[0]))
    accuracy = 100 * study.arms[0].values("accuracy")[0]
    assert headline(study, []) == f"S=1 has an accuracy of {accuracy:.1f} %; there is no other arm to compare it with."
