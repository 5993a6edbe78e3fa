import math

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.corruptions.filters import grey_levels, motion_blurred, shifted_sum, zoomed

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 12, 17, 3), np.uint8)


def test_levels_are_clipped_and_cut_off():
    values = np.array([-3.0, 0.9, 1 - 1e-4, 254.6, 255.0, 400.0])
    np.testing.assert_array_equal(grey_levels(values), [0, 0, 1, 254, 255, 255])


@pytest.mark.parametrize(("border", "scipys"), [("edge", "nearest"), ("reflect", "mirror")])
def test_a_sum_of_shifted_images_is_a_correlation(border, scipys):
    weights = np.random.default_rng(1).standard_normal((5, 7))
    offsets = np.stack(np.mgrid[-2:3, -3:4], axis=-1).reshape(1, -1, 2)
    sums = shifted_sum(IMAGES, offsets, weights.ravel(), border=border)
    expected = scipy.ndimage.correlate(IMAGES.astype(float), weights[None, :, :, None], mode=scipys)
    np.testing.assert_allclose(sums, expected, atol=2e-3)


@settings(deadline=None, max_examples=30)
@given(degrees=st.floats(-180, 180), radius=st.integers(1, 20), sigma=st.floats(0.5, 15))
def test_motion_smears_each_image_along_a_line_of_its_own(degrees, radius, sigma):
    directions = np.array([0.0, degrees, 90.0])
    blurred = motion_blurred(IMAGES, directions, radius=radius, sigma=sigma)
    taps = range(2 * radius + 1)
    weights = [math.exp(-(tap**2) / (2 * sigma**2)) for tap in taps]
    for image, angle, got in zip(IMAGES, directions, blurred, strict=True):
        total, (height, width, _) = np.zeros(image.shape), image.shape
        for tap, weight in zip(taps, weights, strict=True):
            down = math.ceil(tap * math.sin(math.radians(angle)) - 0.5)
            right = math.ceil(tap * math.cos(math.radians(angle)) - 0.5)
            rows, columns = np.clip(np.arange(height) + down, 0, height - 1), np.arange(width) + right
            total += weight * image[rows][:, np.clip(columns, 0, width - 1)]
        np.testing.assert_allclose(got, total / sum(weights), atol=2e-3)


@pytest.mark.parametrize("factor", [1.0, *np.arange(1.01, 1.31, 0.01), 1.75, 2.25, 2.5, 3.0, 4.5])
def test_zooming_is_scipys_with_what_sticks_out_cut_off(factor):
    images = IMAGES.astype(np.float32)
    kept = [math.ceil(length / factor) for length in (12, 17)]
    top, left = (12 - kept[0]) // 2, (17 - kept[1]) // 2
    middle = images[:, top : top + kept[0], left : left + kept[1]]
    larger = scipy.ndimage.zoom(middle, (1, factor, factor, 1), order=1, mode="nearest")
    top, left = (larger.shape[1] - 12) // 2, (larger.shape[2] - 17) // 2
    np.testing.assert_allclose(zoomed(images, float(factor)), larger[:, top : top + 12, left : left + 17], atol=2e-4)
