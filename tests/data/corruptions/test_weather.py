import numpy as np
import pytest

from divco_tf.data.corruptions import CORRUPTIONS, weather
from divco_tf.data.corruptions.filters import motion_blurred, zoomed
from divco_tf.data.corruptions.random_fields import normals, plasma, uniforms
from tests.data.corruptions.photographs import photographs

KEYS = np.array([5, 6, 2**63, 9], np.uint64)
IMAGES = photographs(4, 32)
FLAKES = {"mean": 0.3, "std": 0.3, "size": 1.25, "threshold": 0.65, "radius": 14, "sigma": 12}


def test_fog_is_a_mixture_of_clouds_and_image():
    clouds = plasma(KEYS, 32, 32, decay=1.75)[..., None]
    x = IMAGES / 255
    largest = x.max(axis=(1, 2, 3), keepdims=True)
    expected = (x + 1.5 * clouds) * largest / (largest + 1.5)
    np.testing.assert_allclose(weather.fog(IMAGES, KEYS, thickness=1.5, decay=1.75), 255 * expected, atol=1e-3)


def test_snow_without_flakes_pales():
    snowy = weather.snow(IMAGES, KEYS, **FLAKES | {"threshold": 99}, share=0.8) / 255
    x = IMAGES / 255
    grey = (x @ [0.299, 0.587, 0.114])[..., None]
    np.testing.assert_allclose(snowy, 0.8 * x + 0.2 * np.maximum(x, 1.5 * grey + 0.5), atol=1e-5)


def test_flakes_fall_twice_the_second_time_upside_down():
    snowy = weather.snow(np.zeros_like(IMAGES), KEYS, **FLAKES, share=1.0)
    flakes = zoomed(0.3 + 0.3 * normals(KEYS, (32, 32, 1)), 1.25)
    flakes = np.where(flakes < 0.65, 0, np.minimum(flakes, 1))
    fallen = motion_blurred(255 * flakes, -45 - 90 * (1 - uniforms(KEYS, (), stream=1)), radius=14, sigma=12)
    np.testing.assert_allclose(snowy, np.repeat(fallen + np.rot90(fallen, 2, axes=(1, 2)), 3, axis=3), atol=1e-2)
    assert 10 < snowy.mean() < 200


def test_snow_falls_within_45_degrees_of_the_vertical():
    # Flakes are longer than wide: neighbours above each other are more alike than those beside each other.
    snowy = weather.snow(np.zeros((50, 32, 32, 3), np.uint8), np.arange(50, dtype=np.uint64), **FLAKES, share=1.0)
    assert np.abs(np.diff(snowy, axis=1)).mean() < np.abs(np.diff(snowy, axis=2)).mean()


@pytest.mark.parametrize(("side", "steps"), [(32, (27, 29, 30, 31)), (224, (17, 23, 26, 28))])
def test_frost_is_like_the_photographs_of_the_paper(side, steps):
    """Their figures were measured on parts of `side` pixels, as they were mixed with images (see `weather`)."""
    keys = np.arange(400 if side == 32 else 24, dtype=np.uint64)
    constants = CORRUPTIONS["frost"].constants(1, side) | {"ice": 1.0}
    texture = weather.frost(np.zeros((len(keys), side, side, 3), np.uint8), keys, **constants)
    assert texture.min() >= 0 and texture.max() <= 255
    np.testing.assert_allclose(texture.mean(axis=(0, 1, 2)), (144, 165, 177), atol=12)
    grey = texture.mean(axis=-1)
    assert grey.std(axis=(1, 2)).mean() == pytest.approx(22, abs=1)
    assert grey.mean(axis=(1, 2)).std() == pytest.approx(38, abs=8)
    for distance, expected in zip((1, 2, 4, 8), steps, strict=True):
        difference = np.sqrt(np.mean((grey[:, :, distance:] - grey[:, :, :-distance]) ** 2))
        assert difference == pytest.approx(expected, rel=0.15)


def test_frost_lies_over_the_image_in_shares():
    alone = weather.frost(np.zeros_like(IMAGES), KEYS, image=0.0, ice=1.0, length=1.5)
    both = weather.frost(IMAGES, KEYS, image=0.75, ice=0.45, length=1.5)
    np.testing.assert_allclose(both, 0.75 * IMAGES + 0.45 * alone, atol=1e-3)
