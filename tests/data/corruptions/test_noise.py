import numpy as np
import pytest
import scipy.stats

from divco_tf.data.corruptions import noise
from divco_tf.data.corruptions.filters import grey_levels
from divco_tf.data.corruptions.random_fields import uniforms

KEYS = np.arange(4, dtype=np.uint64)


def constant(level: int) -> np.ndarray:
    return np.full((4, 64, 64, 3), level, np.uint8)


def test_gaussian_noise_is_normal_with_that_deviation():
    added = (noise.gaussian(constant(100), KEYS, std=0.08) - 100) / (255 * 0.08)
    assert scipy.stats.kstest(added.ravel(), "norm").pvalue > 0.01


@pytest.mark.parametrize("photons", [3, 25, 500])
def test_shot_noise_inverts_the_poisson_distribution(photons):
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    images[0] = 0
    counts = noise.shot(images, KEYS, photons=photons) * (photons / 255)
    expected = scipy.stats.poisson.ppf(uniforms(KEYS, images.shape[1:]), images * (photons / 255))
    np.testing.assert_allclose(counts, np.maximum(expected, 0), atol=1e-4)


def test_shot_noise_has_a_variance_in_proportion_to_the_light():
    for level in (40, 160):
        noisy = noise.shot(constant(level), KEYS, photons=100)
        assert noisy.mean() == pytest.approx(level, rel=0.01)
        assert noisy.var() == pytest.approx(level * 255 / 100, rel=0.03)


def test_impulses_are_black_and_white_in_equal_shares_and_the_rest_is_untouched():
    noisy = noise.impulse(constant(100), KEYS, share=0.07)
    assert (noisy == 0).mean() == pytest.approx(0.035, abs=0.003)
    assert (noisy == 255).mean() == pytest.approx(0.035, abs=0.003)
    assert set(np.unique(noisy)) == {0, 100, 255}
    hit = noisy != 100
    assert 0.05 < hit[hit.any(axis=-1)].mean() < 0.4  # channels one by one


def test_more_impulses_keep_the_fewer():
    few, many = (noise.impulse(constant(100), KEYS, share=share) for share in (0.01, 0.07))
    np.testing.assert_array_equal(many[few != 100], few[few != 100])


def test_no_light_has_no_shot_noise():
    assert not grey_levels(noise.shot(constant(0), KEYS, photons=50)).any()
