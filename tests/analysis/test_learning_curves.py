"""Learning curves against laws that were planted, an independent fit, and arms of which the winner is known."""

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.analysis import learning_curves
from divco_tf.analysis.learning_curves import PowerLaw
from divco_tf.errors import InputError

SIZES = [1000, 2500, 5000]
FULL = 50_000


def curve(law, *, sizes=SIZES, seeds=3, noise=0.0, rng=None):
    """Errors [seeds, sizes] of a law, with noise of that standard deviation."""
    errors = np.tile([law(images) for images in sizes], (seeds, 1))
    return np.clip(errors + noise * rng.normal(size=errors.shape), 0, 1) if noise else errors


@settings(deadline=None, max_examples=30)
@given(limit=st.floats(0.0, 0.2), at_first=st.floats(0.1, 0.6), exponent=st.floats(0.25, 1.0))
def test_planted_laws_are_recovered(limit, at_first, exponent):
    planted = PowerLaw(limit, at_first * SIZES[0] ** exponent, exponent)
    fitted = learning_curves.fit(SIZES, curve(planted))
    assert fitted.exponent == pytest.approx(exponent, abs=1e-3)
    assert fitted.limit == pytest.approx(limit, abs=1e-3)
    assert fitted(FULL) == pytest.approx(planted(FULL), abs=1e-4)


def test_the_fit_is_the_minimum_that_another_optimiser_finds():
    rng = np.random.default_rng(0)
    sizes = np.array([500, 1000, 2500, 5000])
    errors = curve(PowerLaw(0.05, 9.0, 0.45), sizes=sizes, noise=0.004, rng=rng)
    means, variance = errors.mean(axis=0), errors.var(axis=0, ddof=1).mean() / 3

    def distance(numbers):
        limit, at_largest, exponent = numbers
        residuals = limit + at_largest * (sizes / 5000) ** -exponent - means
        return np.sum(residuals**2) / variance + ((exponent - 0.5) / 0.2) ** 2

    found = scipy.optimize.minimize(
        distance, [0.1, 0.2, 0.5], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10_000}
    )
    law = learning_curves.fit(sizes, errors)
    assert [law.limit, law.scale * 5000**-law.exponent, law.exponent] == pytest.approx(found.x, abs=1e-4)


def test_two_sizes_have_an_exponent_of_one_half():
    planted = PowerLaw(0.04, 8.0, 0.5)
    fitted = learning_curves.fit([1000, 4000], curve(planted, sizes=[1000, 4000]))
    assert (fitted.limit, fitted.scale, fitted.exponent) == pytest.approx((0.04, 8.0, 0.5), abs=1e-4)


@pytest.mark.parametrize("exponent", [0.35, 0.65])
def test_what_two_sizes_do_not_say_about_the_exponent_is_in_the_interval(exponent):
    planted = PowerLaw(0.04, 0.3 * 1000**exponent, exponent)
    errors = curve(planted, sizes=[1000, 4000])
    arm = learning_curves.predict({"S=1": errors}, sizes=[1000, 4000], images=FULL).arms["S=1"]
    assert arm.low < planted(FULL) < arm.high
    assert abs(arm.error - planted(FULL)) > 0.01


@pytest.mark.parametrize(
    "means",
    [
        [0.3, 0.35, 0.32],  # not monotone
        [0.1, 0.2, 0.3],  # worse with more
        [0.5, 0.1, 0.0],  # falls to nothing
        [0.0, 0.0, 0.0],
        [1.0, 1.0, 1.0],
    ],
)
def test_curves_of_any_shape_have_a_law_within_bounds(means):
    errors = np.tile(means, (3, 1))
    law = learning_curves.fit(SIZES, errors)
    assert law.limit >= 0 and law.scale >= 0 and 0.05 <= law.exponent <= 2
    assert 0 <= law(FULL) <= max(means) + 1e-9
    predicted = learning_curves.predict({"S=1": errors}, sizes=SIZES, images=FULL).arms["S=1"]
    assert 0 <= predicted.low <= predicted.high <= 1


def test_an_error_of_zero_stays_zero_and_nobody_wins():
    zero = np.zeros((3, 3))
    prediction = learning_curves.predict({"S=1": zero, "S=4": zero}, sizes=SIZES, images=FULL)
    assert [arm.error for arm in prediction.arms.values()] == [0, 0]
    assert prediction.winner is None and prediction.probability == 0


def test_a_planted_crossing_is_predicted():
    # S=4 is worse with every size tried, and better with all images.
    one, four = PowerLaw(0.12, 6.0, 0.5), PowerLaw(0.06, 12.0, 0.5)
    assert all(four(images) > one(images) for images in SIZES) and four(FULL) < one(FULL) - 0.03
    rng = np.random.default_rng(1)
    for _ in range(5):
        arms = {name: curve(law, noise=0.001, rng=rng) for name, law in (("S=1", one), ("S=4", four))}
        prediction = learning_curves.predict(arms, sizes=SIZES, images=FULL)
        assert prediction.winner == prediction.likeliest == "S=4"
        assert prediction.probability >= 0.99


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_equal_arms_are_too_close_to_call_in_nineteen_of_twenty(seeds):
    rng = np.random.default_rng(2)
    law = PowerLaw(0.05, 10.0, 0.4)
    called = 0
    for _ in range(40):
        arms = {name: curve(law, seeds=seeds, noise=0.005, rng=rng) for name in ("S=1", "S=4")}
        called += learning_curves.predict(arms, sizes=SIZES, images=FULL, replicates=200).winner is not None
    assert called <= 2


def test_the_same_curve_twice_has_no_winner():
    errors = curve(PowerLaw(0.05, 10.0, 0.5), noise=0.005, rng=np.random.default_rng(3))
    prediction = learning_curves.predict({"S=1": errors, "S=4": errors}, sizes=SIZES, images=FULL)
    assert prediction.winner is None and prediction.probability == 0


@pytest.mark.parametrize("seeds", [2, 3, 6])
def test_intervals_hold_the_error_with_all_images(seeds):
    rng = np.random.default_rng(4)
    held = []
    for _ in range(40):
        exponent = np.clip(rng.normal(0.5, 0.15), 0.2, 1)
        law = PowerLaw(rng.uniform(0, 0.1), rng.uniform(0.2, 0.5) * 1000**exponent, exponent)
        errors = curve(law, seeds=seeds, noise=0.004, rng=rng)
        predicted = learning_curves.predict({"S=1": errors}, sizes=SIZES, images=FULL, replicates=200).arms["S=1"]
        held.append(predicted.low <= law(FULL) <= predicted.high)
    assert np.mean(held) >= 0.85


def test_less_is_known_farther_out():
    errors = curve(PowerLaw(0.05, 10.0, 0.5), noise=0.003, rng=np.random.default_rng(5))
    widths = []
    for images in (5000, 20_000, 200_000):
        predicted = learning_curves.predict({"S=1": errors}, sizes=SIZES, images=images).arms["S=1"]
        widths.append(predicted.high - predicted.low)
    assert widths == sorted(widths)


def test_a_prediction_says_that_it_is_one():
    arms = {"S=1": curve(PowerLaw(0.1, 4.0, 0.5)), "S=4": curve(PowerLaw(0.02, 4.0, 0.5))}
    sentence = learning_curves.predict(arms, sizes=SIZES, images=FULL).sentence
    assert sentence.startswith("Predicted error with 50,000 images, not measured: S=1 11.8 % (11.8 to 11.8), S=4 3.8 %")
    assert sentence.endswith("; S=4 wins (S=4 has the lowest with a probability of 1.00)")
    close = learning_curves.predict({"S=1": arms["S=1"], "S=2": arms["S=1"]}, sizes=SIZES, images=FULL)
    assert "too close to call" in close.sentence
    alone = learning_curves.predict({"S=1": arms["S=1"]}, sizes=SIZES, images=FULL)
    assert alone.winner is None and "wins" not in alone.sentence


def test_the_seed_decides_the_prediction():
    arms = {"S=1": curve(PowerLaw(0.1, 4.0, 0.5), noise=0.003, rng=np.random.default_rng(6))}
    first, again, other = (learning_curves.predict(arms, sizes=SIZES, images=FULL, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert first.arms["S=1"].law == other.arms["S=1"].law


GOOD = np.full((3, 3), 0.5)


@pytest.mark.parametrize(
    ("errors", "sizes", "images", "message"),
    [
        ({"S=1": GOOD}, [1000, 1000, 5000], FULL, "increasing"),
        ({"S=1": GOOD}, [1000], FULL, "two or more"),
        ({"S=1": GOOD}, [0, 1, 2], FULL, "sizes from 1"),
        ({"S=1": GOOD}, [0.1, 0.5, 1.0], FULL, "make no curve"),
        ({"S=1": GOOD[:1]}, SIZES, FULL, "two seeds at least"),
        ({"S=1": GOOD[:, :2]}, SIZES, FULL, r"\[3, 2\] for 3 sizes"),
        ({"S=1": 100 * GOOD}, SIZES, FULL, "50.0 to 50.0"),
        ({"S=1": np.nan * GOOD}, SIZES, FULL, "outside 0..1"),
        ({"S=1": GOOD, "S=4": GOOD[:2]}, SIZES, FULL, r"'S=4': \[2, 3\]"),
        ({}, SIZES, FULL, "Arms are none"),
        ({"S=1": GOOD}, SIZES, 4999, "pass 5000 or more"),
    ],
)
def test_bad_input_is_refused_in_one_line(errors, sizes, images, message):
    with pytest.raises(InputError, match=message) as error:
        learning_curves.predict(errors, sizes=sizes, images=images)
    assert "\n" not in str(error.value) and "Received: " in str(error.value)
