"""Evaluation preprocessing against Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from divco_tf.data.datasets import DATASETS
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources.encoded import resized
from divco_tf.errors import InputError
from tests.data.images import photograph

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def bicubic(image: Image.Image, width: int, height: int) -> Image.Image:
    """Width first, as Pillow did up to version 12; 13 takes the height first for some shapes."""
    image = image.resize((width, image.height), Image.Resampling.BICUBIC)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def with_pillow(image: Image.Image, size: int) -> np.ndarray:
    """torchvision's Resize(int(1.15 * size), BICUBIC) and CenterCrop(size), as the reference uses them."""
    shorter = int(1.15 * size)
    width, height = image.size
    tall = width <= height
    target = (shorter, int(shorter * height / width)) if tall else (int(shorter * width / height), shorter)
    image = bicubic(image, *target)
    left, top = round((target[0] - size) / 2), round((target[1] - size) / 2)
    return np.asarray(image.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("size", [(61, 47), (47, 61), (40, 40), (20, 90), (9, 7)])
def test_shorter_side_and_centre_crop_are_within_two_grey_levels_of_pillow(size):
    image = photograph(*size)
    preprocessing = Preprocessing(image_size=24, mean=MEAN, std=STD, resize="shorter_side_crop")
    ours = preprocessing.resized(np.asarray(image)[None]).numpy()[0]
    assert ours.shape == (24, 24, 3)
    assert np.abs(ours - with_pillow(image, 24)).max() <= 2


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    seed=st.integers(0, 99),
    size=st.integers(1, 30),
    extreme=st.booleans(),
)
@example(width=1, height=17, seed=0, size=1, extreme=False)  # a tall strip
def test_any_image_is_resized_within_two_grey_levels_of_pillow(width, height, seed, size, extreme):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(np.where(noise > 127, 255, 0).astype(np.uint8) if extreme else noise)
    cropped = Preprocessing(image_size=size, mean=MEAN, std=STD, resize="shorter_side_crop")
    stretched = Preprocessing(image_size=size, mean=MEAN, std=STD)
    for preprocessing, expected in ((cropped, with_pillow(image, size)), (stretched, bicubic(image, size, size))):
        ours = preprocessing.resized(np.asarray(image)[None]).numpy()[0]
        assert np.abs(ours - expected).max() <= 2


def as_of_0_1_0(preprocessing: Preprocessing, images: tf.Tensor) -> tf.Tensor:
    """`Preprocessing.resized` of version 0.1.0: the whole image is resized, whatever is kept of it."""

    def bicubic_whole(images, sides):
        for size in ([tf.shape(images)[1], sides[1]], sides):
            images = tf.image.resize(images, size, method="bicubic", antialias=True)
            images = tf.round(tf.clip_by_value(images, 0.0, 255.0))
        return images

    images, size = tf.cast(images, tf.float32), preprocessing.image_size
    if preprocessing.resize == "stretch":
        return bicubic_whole(images, [size, size])
    height, width = tf.shape(images)[1], tf.shape(images)[2]
    short_side = int(preprocessing.resize_ratio * size)
    sides = tf.cast(tf.stack([height, width]), tf.int64) * short_side // tf.cast(tf.minimum(height, width), tf.int64)
    images = bicubic_whole(images, tf.cast(sides, tf.int32))
    top, left = tf.unstack(tf.cast(tf.round(tf.cast(sides - size, tf.float32) / 2.0), tf.int32))
    return images[:, top : top + size, left : left + size]


@pytest.fixture(scope="module", params=["shorter_side_crop", "stretch"])
def old_and_new(request):
    """Both as an export has them, for images of any size."""
    preprocessing = Preprocessing(image_size=24, mean=MEAN, std=STD, resize=request.param)
    signature = [tf.TensorSpec([None, None, None, 3], tf.uint8)]
    return [
        tf.function(function, input_signature=signature, autograph=False)
        for function in (lambda images: as_of_0_1_0(preprocessing, images), preprocessing.resized)
    ]


sides = st.integers(1, 40) | st.integers(1, 300)


@settings(deadline=None, max_examples=200)
@given(height=sides, width=sides, seed=st.integers(0, 99), extreme=st.booleans())
def test_images_are_resized_as_0_1_0_did_to_the_bit_and_thin_ones_to_a_grey_level(
    old_and_new, height, width, seed, extreme
):
    images = np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), np.uint8)
    images = np.where(images > 127, 255, 0).astype(np.uint8) if extreme else images
    old, new = (function(images).numpy() for function in old_and_new)
    assert np.abs(old - new).max() <= (max(height, width) > 16 * min(height, width))


@pytest.mark.parametrize("shape", [(1, 3000), (20_000, 1), (2, 60_000), (60, 6000), (6000, 60)])
@pytest.mark.parametrize("resize", ["stretch", "shorter_side_crop"])
def test_of_a_thin_image_only_what_is_kept_is_computed(shape, resize):
    """The whole would be up to 10^9 pixels."""
    height, width = shape
    image = photograph(width, height)
    for size in (1, 100):
        preprocessing = Preprocessing(image_size=size, mean=MEAN, std=STD, resize=resize, resize_ratio=1.2)
        x, y = (0, width), (0, height)
        if resize == "shorter_side_crop":  # Pillow resizes a box, whose edges are fractions of a pixel
            sides = [side * int(1.2 * size) // min(shape) for side in shape]
            y, x = (
                (start * length / side, (start + size) * length / side)
                for start, length, side in zip([round((side - size) / 2) for side in sides], shape, sides, strict=True)
            )
        at_once = image.resize((size, size), Image.Resampling.BICUBIC, box=(x[0], y[0], x[1], y[1]))
        width_first = image.resize((size, height), Image.Resampling.BICUBIC, box=(x[0], 0, x[1], height))
        width_first = width_first.resize((size, size), Image.Resampling.BICUBIC, box=(0, y[0], size, y[1]))
        ours = tf.function(preprocessing.resized)(tf.constant(image)[None])[0]
        assert np.abs(ours - np.asarray(width_first).astype(int)).max() <= 2
        kernels = resized(np.asarray(image), preprocessing).astype(int)  # has either order, by Pillow's rule
        assert min(np.abs(kernels - np.asarray(other)).max() for other in (width_first, at_once)) <= 2


def test_shorter_side_is_that_of_the_reference():
    assert [int(1.15 * size) for size in (224, 320, 416)] == [257, 368, 478]
    assert Preprocessing.for_dataset(DATASETS["imagenet"]).resize_ratio == 1.15


def test_stretch_leaves_a_fitting_image_and_resizes_another():
    image = photograph(20, 14)
    preprocessing = Preprocessing(image_size=8, mean=MEAN, std=STD)
    fitting = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(preprocessing.resized(fitting), fitting)
    ours = preprocessing.resized(np.asarray(image)[None]).numpy()[0]
    assert np.abs(ours - np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC))).max() <= 2


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGB", "JPEG"), ("L", "JPEG")])
def test_decoding_equals_pillows(mode, kind):
    data = encoded(photograph(33, 21).convert(mode), kind)
    ours = Preprocessing.decode(tf.constant(data)).numpy()
    assert ours.dtype == np.uint8
    np.testing.assert_array_equal(ours, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_exif_rotation_is_not_applied():
    image, exif = photograph(33, 21), Image.Exif()
    exif[0x0112] = 6  # orientation: rotated by a quarter turn
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif)
    assert Preprocessing.decode(stream.getvalue()).shape == (21, 33, 3)


@pytest.mark.parametrize("resize", ["stretch", "shorter_side_crop"])
def test_eager_graph_tf_data_and_saved_model_agree(tmp_path, resize):
    preprocessing = Preprocessing(image_size=16, mean=MEAN, std=STD, resize=resize)
    images = np.stack([np.asarray(photograph(31, 19, seed=seed)) for seed in range(2)])
    expected = preprocessing(images)
    assert expected.shape == (2, 16, 16, 3) and expected.dtype == tf.float32

    module = tf.Module()
    module.prepare = tf.function(
        lambda data: preprocessing(preprocessing.decode(data)[None]),
        input_signature=[tf.TensorSpec([], tf.string)],
    )
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    graph = tf.function(preprocessing, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    inside = tf.data.Dataset.from_tensors(images).map(preprocessing)
    for other in (
        graph(images),
        next(iter(inside)),
        tf.concat([loaded.prepare(encoded(Image.fromarray(image), "PNG")) for image in images], 0),
        preprocessing(images.astype(np.float32)),
    ):
        np.testing.assert_allclose(other, expected, atol=1e-6)


def test_normalisation():
    preprocessing = Preprocessing(image_size=1, mean=MEAN, std=STD)
    expected = (np.array([0, 127, 255]) / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(preprocessing(np.array([[[[0, 127, 255]]]], np.uint8))[0, 0, 0], expected, atol=1e-6)


def test_wrong_settings_are_refused():
    for wrong in ({"resize": "crop"}, {"image_size": 0}, {"resize_ratio": 0.5}):
        with pytest.raises(InputError, match="Received"):
            Preprocessing(**{"image_size": 8, "mean": MEAN, "std": STD} | wrong)


def test_grey_levels_are_normalisation_the_other_way_round():
    images = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    preprocessing = Preprocessing(16, MEAN, STD)
    np.testing.assert_array_equal(preprocessing.grey_levels(preprocessing.normalise(images).numpy()), images)


def test_the_range_of_normalised_pixels_is_that_of_black_and_white():
    preprocessing = Preprocessing(image_size=8, mean=(0.5, 0.4, 0.6), std=(0.25, 0.2, 0.5))
    assert preprocessing.pixel_range == pytest.approx((-2.0, 3.0))
    extremes = preprocessing.normalise(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)).numpy()
    assert preprocessing.pixel_range == pytest.approx((extremes.min(), extremes.max()))
