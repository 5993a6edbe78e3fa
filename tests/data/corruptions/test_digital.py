import colorsys
import io

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from divco_tf.data.corruptions import digital
from divco_tf.data.corruptions.random_fields import uniforms
from tests.data.corruptions.photographs import photographs

KEYS = np.array([5, 6, 2**63], np.uint64)
IMAGES = photographs(3, 32)


def test_brightness_adds_to_the_value_of_hsv():
    colours = np.random.default_rng(0).integers(0, 256, (1, 10, 50, 3), np.uint8)
    colours[0, 0, :3] = [[0, 0, 0], [255, 255, 255], [0, 0, 200]]
    for got, colour in zip(
        digital.brightness(colours, KEYS[:1], added=0.3).reshape(-1, 3), colours.reshape(-1, 3) / 255, strict=True
    ):
        hue, saturation, value = colorsys.rgb_to_hsv(*colour)
        expected = colorsys.hsv_to_rgb(hue, saturation, min(value + 0.3, 1))
        np.testing.assert_allclose(got / 255, expected, atol=1e-6)


def test_contrast_keeps_the_channels_means():
    flat = digital.contrast(IMAGES, KEYS, factor=0.3)
    np.testing.assert_allclose(flat.mean(axis=(1, 2)), IMAGES.mean(axis=(1, 2)), atol=1e-3)
    np.testing.assert_allclose(flat.std(axis=(1, 2)), 0.3 * IMAGES.std(axis=(1, 2)), atol=1e-3)


@pytest.mark.parametrize("shape", [(32, 32), (20, 41)])
@pytest.mark.parametrize(("strength", "sigma", "jitter"), [(0.0, 0.0, 2.5), (3.2, 1.28, 0.0), (3.2, 0.96, 1.6)])
def test_elastic_moves_three_points_and_then_each_pixel(shape, strength, sigma, jitter):
    images = photographs(3, 41)[:, : shape[0], : shape[1]]
    got = digital.elastic(images, KEYS, strength=strength, sigma=sigma, jitter=jitter)
    middle, reach = np.array(shape) // 2, min(shape) // 3
    points = middle + reach * np.array([[1, 1], [-1, 1], [-1, -1]])
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for image, points_move, moves, out in zip(
        images, uniforms(KEYS, (3, 2)), uniforms(KEYS, (2, *shape), stream=1), got, strict=True
    ):
        moved = points + jitter * (2 * points_move - 1)
        edges, moved_edges = points[1:] - points[0], moved[1:] - moved[0]
        back = np.linalg.inv(moved_edges) @ edges  # rows: of a step in y, and in x
        from_places = points[0] + (np.stack([rows, columns], axis=-1) - moved[0]) @ back
        dy, dx = (scipy.ndimage.gaussian_filter(2 * move - 1, sigma, truncate=3) * strength for move in moves)
        for channel in range(3):
            affine = scipy.ndimage.map_coordinates(
                image[..., channel].astype(float), np.moveaxis(from_places, -1, 0), order=1, mode="mirror"
            )
            expected = scipy.ndimage.map_coordinates(affine, [rows + dy, columns + dx], order=1, mode="reflect")
            np.testing.assert_allclose(out[..., channel], expected, atol=2e-3)


def test_elastic_without_strength_and_jitter_changes_nothing():
    still = digital.elastic(IMAGES, KEYS, strength=0.0, sigma=0.0, jitter=0.0)
    np.testing.assert_allclose(still, IMAGES, atol=1e-3)


def test_pixels_are_means_of_blocks():
    halves = digital.pixelate(IMAGES, KEYS, scale=0.5)
    means = IMAGES.reshape(3, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(halves, np.repeat(np.repeat(means, 2, axis=1), 2, axis=2), atol=1)
    assert digital.pixelate(IMAGES[:, :9, :20], KEYS, scale=0.65).shape == (3, 9, 20, 3)


def test_jpeg_is_pillows():
    for image, got in zip(IMAGES, digital.jpeg(IMAGES, KEYS, quality=40), strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=40)
        np.testing.assert_array_equal(got, Image.open(file))
