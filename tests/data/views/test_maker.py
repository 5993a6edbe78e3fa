"""The kernels against a plain implementation of the same draws."""

import concurrent.futures
import math

import numba
import numba.core.caching
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.views.kernels import basic, random_numbers, view
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.policies import POLICIES, Erasing, ViewPolicy
from divco_tf.errors import InputError

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
WORD = 2**64 - 1
seeds = st.integers(0, WORD)
erasings = st.builds(
    Erasing,
    probability=st.sampled_from([0.0, 0.5, 1.0]),
    area=st.tuples(st.floats(0.01, 0.3), st.floats(0.3, 1.0)),
    aspect=st.tuples(st.floats(0.2, 1.0), st.floats(1.0, 5.0)),
)


def plain_fold(key: int, counter: int) -> int:
    bits = (key + (counter + 1) * 0x9E3779B97F4A7C15) & WORD
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & WORD
    return bits ^ (bits >> 31)


def plain_uniform(key: int, counter: int) -> float:
    return (plain_fold(key, counter) >> 11) / 2**53


def plain_hole(key: int, erasing: Erasing, height: int, width: int) -> tuple[int, int, int, int] | None:
    """top, left, height, width as torchvision 0.7 would find them with these uniform numbers."""
    if plain_uniform(key, 3) >= erasing.probability:
        return None
    for attempt in range(10):
        draws = [plain_uniform(key, 16 + 4 * attempt + i) for i in range(4)]
        area = height * width * (erasing.area[0] + (erasing.area[1] - erasing.area[0]) * draws[0])
        aspect = erasing.aspect[0] + (erasing.aspect[1] - erasing.aspect[0]) * draws[1]
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            return int(draws[2] * (height - h + 1)), int(draws[3] * (width - w + 1)), h, w
    return None


def plain_view(image: np.ndarray, key: int, policy: ViewPolicy) -> np.ndarray:
    height, width, _ = image.shape
    pad = policy.pad
    top, left = (int(plain_uniform(key, counter) * (2 * pad + 1)) for counter in (0, 1))
    view = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))[top : top + height, left : left + width]
    if policy.flip and plain_uniform(key, 2) < 0.5:
        view = view[:, ::-1]
    view = (view / 255 - np.array(MEAN)) / np.array(STD)
    hole = policy.erasing and plain_hole(key, policy.erasing, height, width)
    if hole:
        y, x, h, w = hole
        view[y : y + h, x : x + w] = 0
    return view


def views_of(images: np.ndarray, keys: np.ndarray, policy: ViewPolicy) -> np.ndarray:
    return ViewMaker(policy, mean=MEAN, std=STD)(images, keys)


@settings(deadline=None, max_examples=60)
@given(
    seed=seeds,
    height=st.integers(3, 12),
    width=st.integers(3, 12),
    pad=st.integers(0, 3),
    flip=st.booleans(),
    erasing=st.none() | erasings,
)
def test_a_view_is_that_of_the_plain_implementation(seed, height, width, pad, flip, erasing):
    policy = ViewPolicy(pad=pad, flip=flip, erasing=erasing)
    images = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), np.uint8)
    keys = random_numbers.view_keys(seed=seed, step=3, batch_size=2, split_factor=2)
    views = views_of(images, keys, policy)
    assert views.shape == (2, 2, height, width, 3) and views.dtype == np.float32
    for position in range(2):
        for branch in range(2):
            expected = plain_view(images[position], int(keys[position, branch]), policy)
            np.testing.assert_allclose(views[position, branch], expected, atol=2e-6)


@settings(deadline=None, max_examples=30)
@given(seed=seeds, step=st.integers(0, 2**40), position=st.integers(0, 5), branch=st.integers(0, 3))
def test_a_key_is_a_hash_of_seed_step_position_and_branch(seed, step, position, branch):
    keys = random_numbers.view_keys(seed=seed, step=step, batch_size=6, split_factor=4)
    expected = 0
    for part in (int.from_bytes(b"views", "big"), seed, step, position, branch):
        expected = plain_fold(expected, part)
    assert int(keys[position, branch]) == expected


def test_a_batch_prefix_has_the_same_keys_whatever_follows():
    large = random_numbers.view_keys(seed=1, step=2, batch_size=8, split_factor=4)
    np.testing.assert_array_equal(large[:3, :2], random_numbers.view_keys(seed=1, step=2, batch_size=3, split_factor=2))


def test_seeds_may_be_negative_and_differ():
    keys = [random_numbers.view_keys(seed=seed, step=0, batch_size=1, split_factor=1)[0, 0] for seed in (-1, 0, 1)]
    assert len(set(keys)) == 3


def test_crops_flips_and_erasings_are_as_frequent_as_they_should_be():
    keys = random_numbers.view_keys(seed=0, step=0, batch_size=5000, split_factor=4).ravel()
    tops = np.array([random_numbers.below(key, np.uint64(0), 9) for key in keys])
    flips = np.array([random_numbers.uniform(key, np.uint64(2)) < 0.5 for key in keys])
    counts = np.bincount(tops, minlength=9)
    # Chi-square with 8 degrees of freedom: 26.1 at p = 0.001. Binomial: 4 standard deviations.
    assert ((counts - len(keys) / 9) ** 2 / (len(keys) / 9)).sum() < 26.1
    assert abs(flips.mean() - 0.5) < 4 * 0.5 / math.sqrt(len(keys))
    # Branches and positions are independent of each other.
    by_branch = flips.reshape(5000, 4).astype(float)
    off_diagonal = np.corrcoef(by_branch.T)[np.triu_indices(4, 1)]
    assert np.abs(off_diagonal).max() < 4 / math.sqrt(5000)
    assert abs(np.corrcoef(by_branch[:-1, 0], by_branch[1:, 0])[0, 1]) < 4 / math.sqrt(5000)


@pytest.mark.parametrize(
    ("name", "smallest", "largest"),
    [
        ("cifar10_no_autoaugment", (11, 11), (14, 14)),
        ("cifar100_no_autoaugment", (8, 8), (10, 10)),
        ("svhn_no_autoaugment", (11, 11), (17, 17)),
    ],
)
def test_holes_at_32_pixels_have_the_references_sizes(name, smallest, largest):
    policy = ViewPolicy(pad=0, flip=False, erasing=POLICIES[name].erasing)
    images = np.full((200, 32, 32, 3), 255, np.uint8)
    views = views_of(images, random_numbers.view_keys(seed=3, step=0, batch_size=200, split_factor=1), policy)[:, 0]
    holes = (views == 0).all(axis=-1)
    erased = holes.any(axis=(1, 2))
    assert 70 < erased.sum() < 130
    heights, widths = holes.any(axis=2).sum(axis=1)[erased], holes.any(axis=1).sum(axis=1)[erased]
    assert (heights * widths == holes.sum(axis=(1, 2))[erased]).all()
    for sizes, low, high in ((heights, smallest[0], largest[0]), (widths, smallest[1], largest[1])):
        assert low <= sizes.min() and sizes.max() <= high


def test_a_hole_that_never_fits_leaves_the_view_unchanged():
    policy = ViewPolicy(pad=0, flip=False, erasing=Erasing(probability=1.0, area=(1.0, 1.0), aspect=(1.0, 1.0)))
    images = np.full((4, 8, 8, 3), 255, np.uint8)
    views = views_of(images, random_numbers.view_keys(seed=0, step=0, batch_size=4, split_factor=1), policy)
    assert (views != 0).all()


def test_a_padding_wider_than_the_image_is_refused():
    with pytest.raises(InputError, match="Received: pad=4 for images of 3x3"):
        views_of(np.zeros((1, 3, 3, 3), np.uint8), np.zeros((1, 1), np.uint64), ViewPolicy())


def test_read_only_and_strided_images_give_the_same_views_and_no_second_compilation():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    keys = random_numbers.view_keys(seed=0, step=0, batch_size=4, split_factor=2)
    expected = views_of(images, keys, ViewPolicy())
    frozen = images.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(views_of(frozen, keys, ViewPolicy()), expected)
    np.testing.assert_array_equal(views_of(np.repeat(images, 2, axis=0)[::2], keys, ViewPolicy()), expected)
    # Processes that fill the cache at once may only overwrite each other's files with the same code.
    basic.mix(expected, np.arange(4), 0.5)
    modules = (basic, random_numbers, view)
    kernels = [value for module in modules for value in vars(module).values() if hasattr(value, "signatures")]
    assert len(kernels) >= 8
    assert all(len(kernel.signatures) <= 1 for kernel in kernels)


def test_kernels_give_the_same_in_threads_and_inside_tf_data():
    images = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    policy = POLICIES["svhn_no_autoaugment"]

    def at(step: int) -> np.ndarray:
        return views_of(images, random_numbers.view_keys(seed=9, step=step, batch_size=6, split_factor=3), policy)

    expected = [at(step) for step in range(12)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        np.testing.assert_array_equal(list(pool.map(at, range(12))), expected)
    inside = tf.data.Dataset.range(12).map(
        lambda step: tf.numpy_function(lambda s: at(int(s)), [step], tf.float32), num_parallel_calls=4
    )
    np.testing.assert_array_equal(list(inside.as_numpy_iterator()), expected)


def test_compiling_is_told_once_and_only_when_it_is_needed():
    lines = []
    # Not cached on disk: what is there is not compiled.
    one, other = (numba.njit(function) for function in (lambda number: number + 1, lambda number: number - 1))
    for kernel in (one, other):
        kernel.py_func.__module__ = random_numbers.__name__
    with random_numbers.compiling_told(lines.append):
        assert not lines
        assert one(1) == 2 and other(1) == 0
        assert len(lines) == 1 and lines[0].startswith("compiling the operations of views")
    assert len(lines) == 2 and lines[1].startswith("compiled in ")
    with random_numbers.compiling_told(lines.append):
        one(1)
        numba.njit(lambda number: number)(1)  # not ours
    assert len(lines) == 2


def test_a_kernel_compiles_where_no_folder_can_hold_the_cache(monkeypatch):
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    assert random_numbers.kernel(lambda number: number + 1)(41) == 42


@settings(deadline=None, max_examples=20)
@given(seed=seeds, size=st.integers(1, 6), share=st.floats(0, 1))
def test_mix_is_the_weighted_sum(seed, size, share):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(size, 2, 3, 3, 3)).astype(np.float32)
    partners = generator.permutation(size)
    mixed = basic.mix(values, partners, share)
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, share * values + (1 - share) * values[partners], atol=1e-6)
