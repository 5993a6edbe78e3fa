import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, digital
from divco_tf.errors import InputError
from tests.data.corruptions.photographs import digits, photographs

IMAGES = photographs(6, 32)
RANDOM = set(CORRUPTIONS) - {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}


def all_severities(images, family) -> np.ndarray:
    return np.stack([corrupt(images, family=family, severity=severity) for severity in SEVERITIES])


def mean_squared_changes(images, family) -> np.ndarray:
    return np.mean((all_severities(images, family).astype(float) - images) ** 2, axis=(1, 2, 3, 4))


def test_the_families_are_those_of_the_paper():
    assert len(CORRUPTIONS) == 15 and SEVERITIES == (1, 2, 3, 4, 5)
    for corruption in CORRUPTIONS.values():
        for rows in (corruption.cifar, corruption.imagenet):
            assert len(rows) == 5 and {len(row) for row in rows} == {len(corruption.names)}


@pytest.mark.parametrize("family", CORRUPTIONS)
def test_a_corrupted_image_depends_on_nothing_but_its_index(family):
    images = photographs(40, 96)  # more than are computed at once
    together = corrupt(images, family=family, severity=3, indices=range(100, 140))
    assert together.shape == images.shape and together.dtype == np.uint8
    for chosen in ([39], [12], [37, 3, 38], range(36, 40)):
        indices = np.array(chosen)
        alone = corrupt(images[indices], family=family, severity=3, indices=100 + indices)
        np.testing.assert_array_equal(alone, together[indices])


@pytest.mark.parametrize("family", CORRUPTIONS)
def test_seeds_and_indices_draw_where_there_is_chance(family):
    image = IMAGES[:1]
    plain = corrupt(image, family=family, severity=3)
    np.testing.assert_array_equal(corrupt(image, family=family, severity=3, seed=0, indices=[0]), plain)
    others = [{"seed": 1}, {"indices": [1]}, {"seed": -1}, {"indices": [2**40]}]
    differ = [not np.array_equal(corrupt(image, family=family, severity=3, **other), plain) for other in others]
    assert differ == [family in RANDOM] * len(others)


def test_families_draw_apart():
    grey = np.full((1, 64, 64, 3), 100, np.uint8)
    hit, counted = (corrupt(grey, family=family, severity=5) for family in ("impulse_noise", "shot_noise"))
    # Both take the first stream of the key: the least numbers would be black here and dark there.
    assert counted[hit == 0].mean() == pytest.approx(100, abs=5)


@pytest.mark.parametrize("family", CORRUPTIONS)
def test_how_images_lie_in_memory_does_not_matter(family):
    strided = np.asfortranarray(IMAGES)[::-1]
    strided.flags.writeable = False
    kept = strided.copy()
    corrupted = corrupt(strided, family=family, severity=4)
    np.testing.assert_array_equal(corrupted, corrupt(np.ascontiguousarray(kept), family=family, severity=4))
    np.testing.assert_array_equal(strided, kept)


# By the published constants severity 3 is milder than 2 for glass, and 4 and 5 than 3 for frost, which darkens the
# image more; an elastic transformation has less and less of its affine part; the two middle ones of motion differ in
# weights below 1e-7 only.
EXCEPT = {"glass_blur", "frost", "elastic_transform", "motion_blur"}


@pytest.mark.parametrize(
    ("make", "family"),
    [
        (make, family)
        for make in (photographs, digits)
        for family in CORRUPTIONS
        # Digits have 8 pixels a side, so those of 24 are no worse than those of 30.
        if family not in EXCEPT and (make, family) != (digits, "pixelate")
    ],
)
def test_each_severity_changes_more_than_the_one_before(make, family):
    images = make(50, 32)
    changes = mean_squared_changes(images, family)
    assert changes[0] > 0 and (np.diff(changes) > 0).all(), np.sqrt(changes)


@pytest.mark.parametrize("images", [photographs(50, 32), digits(50, 32)], ids=["photographs", "digits"])
def test_where_the_published_severities_change_less_something_else_rises(images):
    glass = mean_squared_changes(images, "glass_blur")
    assert min(glass[3:]) > max(glass[:3])  # two rounds instead of one
    motion = mean_squared_changes(images, "motion_blur")
    assert (np.diff(motion)[[0, 1, 3]] > 0).all() and motion[3] == pytest.approx(motion[2], rel=1e-4)
    # Frost: how much of what is there is not the image's, but of its own, in an image without white.
    frosted = all_severities(images // 3, "frost")
    blank = all_severities(np.zeros_like(images), "frost")
    shares = blank.std(axis=(1, 2, 3, 4)) / np.maximum(frosted.astype(float) - blank, 0).std(axis=(1, 2, 3, 4))
    assert (np.diff(shares) > 0).all(), shares
    # Elastic: the displacement, without the affine transformation before it.
    constants = [CORRUPTIONS["elastic_transform"].constants(severity, 32) for severity in SEVERITIES]
    keys = np.arange(len(images), dtype=np.uint64)
    moved = [digital.elastic(images, keys, **row | {"jitter": 0.0}) for row in constants]
    assert (np.diff([np.mean((image - images) ** 2) for image in moved]) > 0).all()


@pytest.mark.parametrize("family", ["gaussian_noise", "impulse_noise", "frost"])
def test_severities_share_their_draws(family):
    changes = [corrupt(np.full_like(IMAGES, 100), family=family, severity=k).astype(float) for k in (1, 2)]
    assert np.corrcoef(*(change.ravel() for change in changes))[0, 1] > 0.6


@settings(deadline=None, max_examples=40)
@given(
    family=st.sampled_from(sorted(CORRUPTIONS)),
    severity=st.sampled_from(SEVERITIES),
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    level=st.sampled_from([0, 7, 255]),
)
def test_images_of_any_sides_and_levels_can_be_corrupted(family, severity, height, width, level):
    images = np.full((2, height, width, 3), level, np.uint8)
    assert corrupt(images, family=family, severity=severity).shape == images.shape
    assert corrupt(images[:0], family=family, severity=severity).shape == (0, height, width, 3)


def test_constants_are_of_the_data_set_closer_in_size_and_lengths_grow_with_the_image():
    defocus, noise = CORRUPTIONS["defocus_blur"], CORRUPTIONS["gaussian_noise"]
    assert defocus.constants(5, 32) == {"radius": 1.5, "sigma": 0.1}
    assert defocus.constants(5, 64) == {"radius": 3.0, "sigma": 0.2}
    assert defocus.constants(5, 224) == {"radius": 10, "sigma": 0.5}
    assert defocus.constants(5, 112) == {"radius": 5, "sigma": 0.25}
    assert [noise.constants(1, side)["std"] for side in (8, 84, 85, 500)] == [0.04, 0.04, 0.08, 0.08]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"family": "gausian_noise"}, "Did you mean gaussian_noise"),
        ({"severity": 0}, "Received: 0"),
        ({"severity": 6}, "1 to 5"),
        ({"severity": 2.5}, "severity has another type"),
        ({"seed": "a"}, "seed has another type"),
        ({"images": IMAGES.astype(float)}, "float64"),
        ({"images": IMAGES[0]}, "any, any, any, 3"),
        ({"images": IMAGES[..., :1]}, "any, any, any, 3"),
        ({"images": IMAGES[:, :7]}, "8 pixels a side"),
        ({"indices": [0]}, "for 6 images"),
        ({"indices": [-1, 0, 1, 2, 3, 4]}, "from 0 on"),
        ({"indices": np.arange(6.0)}, "float64"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_one_line(arguments, says):
    arguments = {"images": IMAGES, "family": "fog", "severity": 1} | arguments
    with pytest.raises(InputError, match=says) as error:
        corrupt(arguments.pop("images"), **arguments)
    assert "\n" not in str(error.value)
