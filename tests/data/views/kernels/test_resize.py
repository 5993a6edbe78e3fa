"""Random resized crops: Pillow's resize, and where the crops lie."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from divco_tf.data.views.kernels.random_numbers import uniform, view_keys
from divco_tf.data.views.kernels.resize import BICUBIC, BILINEAR, draw_box, resize, resize_and_cut
from tests.data.images import photograph

PILLOWS = {BILINEAR: Image.Resampling.BILINEAR, BICUBIC: Image.Resampling.BICUBIC}
IMAGENET = (0.1, 1.0, 3 / 4, 4 / 3)  # area and aspect from and to


def ours(image: np.ndarray, box: tuple, size: tuple[int, int], support: int, *, mirror: bool = False) -> np.ndarray:
    view = np.full((*size, 3), 77, np.uint8)
    resize(image, box, mirror, support, view)
    return view


def pillows(image: np.ndarray, box: tuple, size: tuple[int, int], support: int) -> np.ndarray:
    top, left, height, width = box
    crop = Image.fromarray(image).crop((left, top, left + width, top + height))
    return np.asarray(crop.resize(size[::-1], PILLOWS[support]))


@pytest.mark.parametrize("support", PILLOWS)
@pytest.mark.parametrize("box", [(0, 0, 375, 500), (31, 77, 260, 300), (200, 1, 90, 120), (0, 250, 375, 60)])
def test_a_crop_of_a_photograph_is_resized_as_pillow_does(box, support):
    image = np.asarray(photograph(500, 375))
    expected = pillows(image, box, (224, 224), support)
    np.testing.assert_array_equal(ours(image, box, (224, 224), support), expected)
    np.testing.assert_array_equal(ours(image, box, (224, 224), support, mirror=True), expected[:, ::-1])


sides = st.integers(1, 12) | st.integers(1, 200)


@st.composite
def crops(draw):
    """An image of extreme values or of any, a box in it, and the size of a view."""
    height, width = draw(sides), draw(sides)
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, (height, width, 3), np.uint8)
    image = np.where(values < 128, 0, 255).astype(np.uint8) if draw(st.booleans()) else values
    top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    box = (top, left, draw(st.integers(1, height - top)), draw(st.integers(1, width - left)))
    return image, box, (draw(sides), draw(sides))


@settings(deadline=None, max_examples=300)
@given(crop=crops(), support=st.sampled_from(list(PILLOWS)), mirror=st.booleans())
# Pillow 13 takes the height first where it shrinks more than twice as much as the width.
@example(crop=(np.asarray(photograph(60, 200)), (3, 2, 190, 51), (30, 50)), support=BICUBIC, mirror=True)
@example(crop=(np.asarray(photograph(9, 2000)), (0, 0, 2000, 9), (2, 200)), support=BICUBIC, mirror=False)
@example(crop=(np.asarray(photograph(3000, 9)), (0, 0, 9, 3000), (200, 2)), support=BICUBIC, mirror=False)
def test_any_crop_is_resized_as_pillow_does(crop, support, mirror):
    image, box, size = crop
    expected = pillows(image, box, size, support)
    np.testing.assert_array_equal(
        ours(image, box, size, support, mirror=mirror), expected[:, ::-1] if mirror else expected
    )


@settings(deadline=None, max_examples=200)
@given(data=st.data(), crop=crops(), support=st.sampled_from(list(PILLOWS)), mirror=st.booleans())
def test_a_part_of_what_is_resized_is_cut_out_of_the_whole(data, crop, support, mirror):
    image, box, size = crop
    corner = tuple(data.draw(st.integers(0, side - 1)) for side in size)
    kept = [data.draw(st.integers(1, side - at)) for side, at in zip(size, corner, strict=True)]
    part = np.zeros((*kept, 3), np.uint8)
    resize_and_cut(image, box, mirror, support, size, corner, part)
    whole = ours(image, box, size, support, mirror=mirror)
    top, left = corner
    np.testing.assert_array_equal(part, whole[top : top + kept[0], left : left + kept[1]])


@pytest.mark.parametrize("support", PILLOWS)
@pytest.mark.parametrize("level", [0, 1, 254, 255])
def test_a_constant_image_stays_constant(level, support):
    image = np.full((37, 91, 3), level, np.uint8)
    assert np.all(ours(image, (0, 0, 37, 91), (64, 48), support) == level)


@pytest.mark.parametrize("support", PILLOWS)
def test_the_own_size_changes_nothing(support):
    image = np.asarray(photograph(70, 50))
    np.testing.assert_array_equal(ours(image, (3, 4, 40, 60), (40, 60), support), image[3:43, 4:64])


def test_nothing_outside_of_the_crop_is_looked_at():
    image = np.zeros((60, 70, 3), np.uint8)
    image[10:40, 20:50] = photograph(30, 30)
    inside = ours(image, (10, 20, 30, 30), (64, 64), BICUBIC)
    image[:10], image[40:], image[:, :20], image[:, 50:] = 255, 255, 255, 255
    np.testing.assert_array_equal(ours(image, (10, 20, 30, 30), (64, 64), BICUBIC), inside)


def plain_draw_box(key, height, width, area_low, area_high, aspect_low, aspect_high):
    """torchvision's RandomResizedCrop.get_params in plain Python, with our random numbers."""
    for attempt in range(10):
        draws = [uniform(key, np.uint64(1024 + 4 * attempt + k)) for k in range(4)]
        area = height * width * (area_low + (area_high - area_low) * draws[0])
        aspect = math.exp(math.log(aspect_low) + (math.log(aspect_high) - math.log(aspect_low)) * draws[1])
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(draws[2] * (height - h + 1)), int(draws[3] * (width - w + 1)), h, w
    h, w = height, width
    if width / height < aspect_low:
        h = max(1, round(width / aspect_low))
    elif width / height > aspect_high:
        w = max(1, round(height * aspect_high))
    return (height - h) // 2, (width - w) // 2, h, w


@settings(deadline=None, max_examples=300)
@given(
    key=st.integers(0, 2**64 - 1),
    height=st.integers(1, 12) | st.integers(1, 6000),
    width=st.integers(1, 12) | st.integers(1, 6000),
    area=st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)).map(sorted),
    aspect=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted),
)
@example(key=0, height=1, width=1000, area=IMAGENET[:2], aspect=IMAGENET[2:])
@example(key=0, height=1000, width=1, area=IMAGENET[:2], aspect=IMAGENET[2:])
def test_boxes_are_those_of_the_plain_algorithm_and_inside_of_the_image(key, height, width, area, aspect):
    arguments = (np.uint64(key), height, width, *area, *aspect)
    box = draw_box(*arguments)
    assert box == plain_draw_box(*arguments)
    top, left, box_height, box_width = box
    assert 0 <= top < top + box_height <= height and 0 <= left < left + box_width <= width


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(300, 40, (123, 0, 53, 40)), (40, 300, (0, 123, 40, 53)), (100, 100, (0, 0, 100, 100))],
)
def test_where_nothing_fits_the_largest_central_box_is_taken(height, width, box):
    # Twice the image's area never fits.
    assert draw_box(np.uint64(1), height, width, 2.0, 2.0, 3 / 4, 4 / 3) == box


def test_boxes_are_drawn_evenly():
    keys = view_keys(seed=3, step=1, batch_size=20_000, split_factor=1)[:, 0]
    boxes = np.array([draw_box(key, 1000, 1000, 0.1, 0.5, 3 / 4, 4 / 3) for key in keys])
    top, left, height, width = boxes.T
    # Up to half the area always fits at the first attempt, so that nothing is conditioned.
    evenly = {
        "area": (height * width / 1e6 - 0.1) / 0.4,
        "aspect": np.log(width / height) / np.log(4 / 3) / 2 + 0.5,
        "top": (top + 0.5) / (1001 - height),
        "left": (left + 0.5) / (1001 - width),
    }
    for name, numbers in evenly.items():
        assert stats.kstest(numbers, "uniform").pvalue > 1e-4, name
    assert np.abs(np.corrcoef(list(evenly.values())) - np.eye(4)).max() < 0.03
    assert {0, 1} <= set(top) and np.any(top + height == 1000)
