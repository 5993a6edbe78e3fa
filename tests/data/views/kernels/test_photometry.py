"""Grey levels and colours: Pillow is the specification."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.data.views.kernels.operated import by_kernel, by_pillow, differences, images

ARGUMENTS = {
    "identity": st.just(0.0),
    "posterize": st.integers(0, 8),
    "solarize": st.floats(0, 256, width=32),
    "solarize_add": st.integers(0, 255),
    "auto_contrast": st.just(0.0),
    "equalize": st.just(0.0),
    "invert": st.just(0.0),
}
NOISE = np.random.default_rng(0).integers(0, 256, (33, 21, 3), np.uint8)


@pytest.mark.parametrize("operation", ARGUMENTS)
def test_what_works_by_whole_levels_is_exactly_pillows(operation):
    @settings(deadline=None, max_examples=60)
    @given(image=images(), argument=ARGUMENTS[operation])
    def check(image, argument):
        np.testing.assert_array_equal(by_kernel(image, operation, argument), by_pillow(image, operation, argument))

    check()


@pytest.mark.parametrize("operation", ["color", "contrast", "brightness", "sharpness"])
def test_enhancements_are_within_a_level_of_pillows(operation):
    @settings(deadline=None, max_examples=80)
    @given(image=images(), factor=st.floats(0, 2) | st.sampled_from([0.1, 0.5, 1.0, 1.9, 2.0, 5.0, -1.0]))
    def check(image, factor):
        assert differences(image, operation, factor).max() <= 1

    check()


@pytest.mark.parametrize("operation", ["color", "contrast", "brightness", "sharpness"])
def test_a_factor_of_1_changes_nothing(operation):
    np.testing.assert_array_equal(by_kernel(NOISE, operation, 1.0), NOISE)


@settings(deadline=None, max_examples=60)
@given(counts=st.lists(st.integers(0, 1200), min_size=2, max_size=6), low=st.integers(0, 255))
@example(counts=[509, 1], low=3)  # the table runs beyond 255
@example(counts=[254, 1], low=0)  # too few pixels for a step
def test_equalize_is_pillows_for_any_histogram(counts, low):
    levels = np.repeat((low + 37 * np.arange(len(counts))) % 256, counts).astype(np.uint8)
    image = np.repeat(levels[:, None, None], 3, axis=2)
    if image.size:
        np.testing.assert_array_equal(by_kernel(image, "equalize", 0), by_pillow(image, "equalize", 0))


@settings(deadline=None, max_examples=60)
@given(low=st.integers(0, 255), high=st.integers(0, 255))
def test_auto_contrast_is_pillows_between_any_two_levels(low, high):
    image = np.repeat(np.linspace(low, high, 64).astype(np.uint8)[:, None, None], 3, axis=2)
    np.testing.assert_array_equal(by_kernel(image, "auto_contrast", 0), by_pillow(image, "auto_contrast", 0))


def test_channels_are_stretched_and_flattened_each_by_itself():
    image = NOISE.copy()
    image[..., 1] //= 4
    image[..., 2] = 9
    for operation in ("auto_contrast", "equalize"):
        view = by_kernel(image, operation, 0)
        assert view[..., 1].max() == 255 and (view[..., 2] == 9).all()


def test_the_ends_of_the_ranges():
    assert not by_kernel(NOISE, "posterize", 0).any()
    np.testing.assert_array_equal(by_kernel(NOISE, "posterize", 8), NOISE)
    np.testing.assert_array_equal(by_kernel(NOISE, "solarize", 256), NOISE)
    np.testing.assert_array_equal(by_kernel(NOISE, "solarize", 0), 255 - NOISE)
    np.testing.assert_array_equal(by_kernel(NOISE, "solarize_add", 0), NOISE)
    assert not by_kernel(NOISE, "brightness", 0).any()
    assert np.ptp(by_kernel(NOISE, "color", 0), axis=2).max() == 0  # grey
    assert np.ptp(by_kernel(NOISE, "contrast", 0)) == 0


def test_sharpness_copies_the_border():
    view = by_kernel(NOISE, "sharpness", 0.1)
    inner = np.zeros(NOISE.shape[:2], bool)
    inner[1:-1, 1:-1] = True
    np.testing.assert_array_equal(view[~inner], NOISE[~inner])
    assert (view[inner] != NOISE[inner]).mean() > 0.9
