import numpy as np
import pytest
import scipy.ndimage

from divco_tf.data.corruptions import CORRUPTIONS, blur
from divco_tf.data.corruptions.filters import grey_levels
from divco_tf.data.draws import fold
from tests.data.corruptions.photographs import photographs

KEYS = np.array([5, 6, 2**63], np.uint64)
IMAGES = photographs(3, 32)


@pytest.mark.parametrize("radius", [0.3, 1, 1.5, 3, 6])
@pytest.mark.parametrize("sigma", [0.1, 0.6])
def test_defocus_is_a_disc_that_a_gaussian_smooths(radius, sigma):
    disc = np.array([[y * y + x * x <= radius**2 for x in range(-9, 10)] for y in range(-9, 10)], float)
    edge = np.exp(-np.array([1, 0, 1]) / (2 * sigma**2))
    disc = scipy.ndimage.convolve(disc, np.outer(edge, edge) / edge.sum() ** 2)
    expected = scipy.ndimage.correlate(IMAGES.astype(float), (disc / disc.sum())[None, :, :, None], mode="mirror")
    np.testing.assert_allclose(blur.defocus(IMAGES, KEYS, radius=radius, sigma=sigma), expected, atol=2e-3)


@pytest.mark.parametrize(("sigma", "reach", "rounds"), [(0.05, 1, 1), (0.4, 1, 2), (0.9, 2, 1)])
def test_glass_copies_pixels_of_the_neighbourhood_in_turn(sigma, reach, rounds):
    def smoothed(image):
        return scipy.ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="nearest")

    for image, key, got in zip(
        IMAGES, KEYS, blur.glass(IMAGES, KEYS, sigma=sigma, reach=reach, rounds=rounds), strict=True
    ):
        pixels = grey_levels(smoothed(image))
        for turn in range(rounds):
            for y in range(32 - reach, reach, -1):
                for x in range(32 - reach, reach, -1):
                    place = [(fold(int(key), turn, 2 * (32 * y + x) + k) >> 11) * 2.0**-53 for k in (0, 1)]
                    dy, dx = (int(share * 2 * reach) - reach for share in place)
                    pixels[y, x] = pixels[y + dy, x + dx]
        np.testing.assert_allclose(got, smoothed(pixels), atol=1e-3)


def test_clear_glass_leaves_what_it_does_not_reach():
    got = blur.glass(IMAGES, KEYS, sigma=0.05, reach=1, rounds=1)
    np.testing.assert_array_equal(got[:, :2], IMAGES[:, :2])
    np.testing.assert_array_equal(got[:, :, :2], IMAGES[:, :, :2])
    assert (got != IMAGES).mean() > 0.3


def test_motion_is_within_45_degrees_of_the_horizontal():
    keys = np.arange(200, dtype=np.uint64)
    point = np.zeros((200, 41, 41, 3), np.uint8)
    point[:, 20, 20] = 255
    smeared = blur.motion(point, keys, radius=8, sigma=6)[..., 0]
    rows, columns = (smeared.sum(axis=axis) @ (np.arange(41) - 20.0) / smeared.sum(axis=(1, 2)) for axis in (2, 1))
    degrees = np.degrees(np.arctan2(rows, columns)) % 180
    degrees[degrees > 90] -= 180
    assert -46 < degrees.min() < -40 and 40 < degrees.max() < 46 and abs(degrees.mean()) < 6


@pytest.mark.parametrize("stop", [1.06, 1.26])
def test_zoom_blur_is_the_mean_over_the_factors_and_the_image(stop):
    factors = np.arange(1, stop, 0.01)  # whose rounding decides where the number of pixels is a half
    total = IMAGES.astype(float)
    for factor in factors:
        kept = int(np.ceil(32 / factor))
        first = (32 - kept) // 2
        part = IMAGES[:, first : first + kept, first : first + kept].astype(float)
        larger = scipy.ndimage.zoom(part, (1, factor, factor, 1), order=1, mode="nearest")
        cut = (larger.shape[1] - 32) // 2
        total += larger[:, cut : cut + 32, cut : cut + 32]
    np.testing.assert_allclose(blur.zoom(IMAGES, KEYS, stop=stop, step=0.01), total / (len(factors) + 1), atol=1e-3)


@pytest.mark.parametrize("family", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur"])
@pytest.mark.parametrize("severity", [1, 5])
def test_blur_keeps_one_colour(family, severity):
    image = np.full((3, 32, 32, 3), (10, 130, 255), np.uint8)
    corruption = CORRUPTIONS[family]
    np.testing.assert_array_equal(
        grey_levels(corruption.make(image, KEYS, **corruption.constants(severity, 32))), image
    )
