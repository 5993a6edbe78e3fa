"""Moves, shears and rotations: Pillow is the specification."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from divco_tf.data.views.schema import RESAMPLINGS
from tests.data.views.kernels.operated import by_kernel, by_pillow, differences, images

ARGUMENTS = {
    "shear_x": st.floats(-1, 1),
    "shear_y": st.floats(-1, 1),
    "translate_x": st.floats(-1.2, 1.2),
    "translate_y": st.floats(-1.2, 1.2),
    "translate_x_pixels": st.integers(-40, 40) | st.floats(-40, 40),
    "translate_y_pixels": st.integers(-40, 40) | st.floats(-40, 40),
    "rotate": st.floats(-800, 800) | st.sampled_from([-360, -90, 0, 45, 90, 180, 270, 360, 450, 540, 720, 89.999999]),
}
PIXELS = ("translate_x_pixels", "translate_y_pixels")
FILL = (128, 7, 255)
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


@pytest.mark.parametrize("operation", ARGUMENTS)
def test_nearest_is_exactly_pillows(operation):
    @settings(deadline=None, max_examples=60)
    @given(image=images(), argument=ARGUMENTS[operation])
    def check(image, argument):
        options = {"resampling": "nearest", "fill": FILL}
        view, expected = (by(image, operation, argument, **options) for by in (by_kernel, by_pillow))
        np.testing.assert_array_equal(view, expected)

    check()


@pytest.mark.parametrize("resampling", ["bilinear", "bicubic"])
@pytest.mark.parametrize("operation", ARGUMENTS)
def test_interpolation_is_within_a_level_of_pillows(operation, resampling):
    @settings(deadline=None, max_examples=60)
    @given(image=images(), argument=ARGUMENTS[operation])
    def check(image, argument):
        assert differences(image, operation, argument, resampling=resampling, fill=FILL).max() <= 1

    check()


@pytest.mark.parametrize("operation", ARGUMENTS)
def test_interpolation_is_hardly_ever_another_level_than_pillows(operation):
    arguments = np.random.default_rng(2).uniform(-0.9, 0.9, 20) * (40 if operation in ("rotate", *PIXELS) else 1)
    for resampling in ("bilinear", "bicubic"):
        off = [differences(NOISE, operation, argument, resampling=resampling, fill=FILL) for argument in arguments]
        assert np.mean(off) < 1e-3
    flat = np.full_like(NOISE, 255)
    for argument in arguments:  # float32 alone would leave some at 254
        assert (by_kernel(flat, operation, argument, resampling="bicubic", fill=(255, 255, 255)) == 255).all()


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("degrees", [0, 90, 180, 270, 360, 450, -90, 3.6e6 - 180])
@pytest.mark.parametrize("shape", [(32, 32), (17, 17), (20, 31), (1, 9)])
def test_quarter_turns_are_pillows_to_the_bit(shape, degrees, resampling):
    image = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    view = by_kernel(image, "rotate", degrees, resampling=resampling, fill=FILL)
    np.testing.assert_array_equal(view, by_pillow(image, "rotate", degrees, resampling=resampling, fill=FILL))


@settings(deadline=None, max_examples=30)
@given(image=images(), resampling=st.sampled_from(RESAMPLINGS))
@example(image=NOISE, resampling="bicubic")
def test_no_move_changes_nothing(image, resampling):
    for operation in ARGUMENTS:
        np.testing.assert_array_equal(by_kernel(image, operation, 0.0, resampling=resampling, fill=FILL), image)


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_whole_pixels_are_moved_as_they_are_and_the_rest_is_filled(resampling):
    for operation, axis in zip(PIXELS, (1, 0), strict=True):
        view = np.moveaxis(by_kernel(NOISE, operation, 5, resampling=resampling, fill=FILL), axis, 0)
        np.testing.assert_array_equal(view[:-5], np.moveaxis(NOISE, axis, 0)[5:])
        assert (view[-5:] == FILL).all()


def test_an_image_moved_out_of_sight_is_all_fill():
    for operation in ("translate_x", "translate_y"):
        assert (by_kernel(NOISE, operation, 1.0, resampling="bicubic", fill=FILL) == FILL).all()


def test_a_rotation_is_counter_clockwise():
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 8] = 255  # at the right
    assert by_kernel(image, "rotate", 90)[0, 4].all()  # at the top
