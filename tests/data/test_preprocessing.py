"""Evaluation preprocessing against Pillow."""

import io

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from divco_tf.data.datasets import DATASETS
from divco_tf.data.preprocessing import Preprocessing
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
def test_any_image_is_resized_within_two_grey_levels_of_pillow(width, height, seed, size, extreme):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    image = Image.fromarray(np.where(noise > 127, 255, 0).astype(np.uint8) if extreme else noise)
    cropped = Preprocessing(image_size=size, mean=MEAN, std=STD, resize="shorter_side_crop")
    stretched = Preprocessing(image_size=size, mean=MEAN, std=STD)
    for preprocessing, expected in ((cropped, with_pillow(image, size)), (stretched, bicubic(image, size, size))):
        ours = preprocessing.resized(np.asarray(image)[None]).numpy()[0]
        assert np.abs(ours - expected).max() <= 2


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
