"""Layers of Keras and KerasCV as operations on a batch."""

import concurrent.futures
import dataclasses
import json
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.data.keras_layers import KerasLayer
from divco_tf.errors import InputError
from tests.data.batch_operations import SIZE, labels, normalised, operations, pixels

# Without arguments of colour ranges: `value_range` settles itself.
REPEATABLE = [
    ("keras.layers.AutoContrast", {}),
    ("keras.layers.RandAugment", {}),
    ("keras.layers.RandomBrightness", {"factor": 0.3}),
    ("keras.layers.RandomColorJitter", {"brightness_factor": 0.3, "hue_factor": 0.2}),
    ("keras.layers.RandomContrast", {"factor": 0.3}),
    ("keras.layers.RandomErasing", {}),
    ("keras.layers.RandomFlip", {}),
    ("keras.layers.RandomHue", {"factor": 0.3}),
    ("keras.layers.RandomRotation", {"factor": 0.1}),
    ("keras.layers.RandomSharpness", {"factor": [0.2, 0.8]}),
    ("keras_cv.layers.ChannelShuffle", {}),
    ("keras_cv.layers.Equalization", {}),
    ("keras_cv.layers.GridMask", {}),
    ("keras_cv.layers.JitteredResize", {"target_size": (SIZE, SIZE), "scale_factor": (0.8, 1.2)}),
    ("keras_cv.layers.RandAugment", {"augmentations_per_image": 2}),
    ("keras_cv.layers.RandomColorDegeneration", {"factor": 0.5}),
    ("keras_cv.layers.RandomCutout", {"height_factor": [0.1, 0.5], "width_factor": 0.5}),
    ("keras_cv.layers.RandomRotation", {"factor": 0.1}),
    ("keras_cv.layers.RandomSharpness", {"factor": 0.5}),
    ("keras_cv.layers.Solarization", {"addition_factor": [0, 50]}),
]
UNSEEDED = [
    ("keras.layers.AugMix", {}),
    ("keras_cv.layers.AugMix", {}),
    ("keras_cv.layers.RandomCutout", {"height_factor": 0.5, "width_factor": 0.5, "fill_mode": "gaussian_noise"}),
]
DRAWS_NOTHING = ("keras.layers.AutoContrast", "keras_cv.layers.Equalization")


def apply(built, key: int, views: np.ndarray | None = None) -> np.ndarray:
    views = pixels() if views is None else views
    return built(views, labels(len(views)), key)[0]


@pytest.mark.parametrize(("name", "arguments"), REPEATABLE)
def test_a_layer_repeats_itself_for_a_key_in_any_thread(name, arguments):
    built = KerasLayer(name, arguments).build(image_size=SIZE)
    keys, views = [5, 5, 2**63 - 1, 5], pixels(3)
    random.seed(0)
    alone = {key: apply(built, key, views) for key in set(keys)}
    random.seed(1)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda key: apply(built, key, views), keys))
    for key, changed in zip(keys, together, strict=True):
        np.testing.assert_array_equal(changed, alone[key])
    assert not np.array_equal(alone[5], views)
    assert np.array_equal(alone[5], alone[2**63 - 1]) == (name in DRAWS_NOTHING)
    assert alone[5].min() >= 0 and alone[5].max() <= 255 and alone[5].max() > 1


@pytest.mark.parametrize("name", ["keras.layers.RandomBrightness", "keras_cv.layers.RandomBrightness"])
def test_every_view_gets_a_draw_of_its_own_place_in_the_batch(name):
    """So a host's slice of a batch would look different from the same slice of the whole batch."""
    built = KerasLayer(name, {"factor": 0.3}).build(image_size=SIZE)
    grey = np.full((8, 2, SIZE, SIZE, 3), 128, np.float32)
    whole = apply(built, 3, grey)
    assert len(np.unique(whole[:, :, 0, 0, 0])) == 16
    assert not np.array_equal(apply(built, 3, grey[4:]), whole[4:])


@pytest.mark.parametrize("name", ["keras.layers.RandomErasing", "keras_cv.layers.RandAugment"])
def test_a_dataset_of_four_parallel_calls_gives_the_same_batches(name):
    layer = operations(KerasLayer(name, {}))
    views, given = normalised(pixels(3)), labels(3)

    def make(step):
        return layer(views, given, seed=4, step=int(step))[0]

    dataset = tf.data.Dataset.range(4).map(
        lambda step: tf.numpy_function(make, [step], tf.float32, stateful=False), num_parallel_calls=4
    )
    for step, batch in enumerate(dataset.as_numpy_iterator()):
        np.testing.assert_array_equal(batch, make(step))


@pytest.mark.parametrize(("name", "arguments"), UNSEEDED)
def test_a_layer_that_no_key_settles_is_refused_unless_that_is_accepted(name, arguments):
    with pytest.raises(InputError, match=r"no seed settles.*repeatable=False accepts"):
        KerasLayer(name, arguments).build(image_size=SIZE)
    accepted = KerasLayer(name, arguments, repeatable=False).build(image_size=SIZE)
    assert apply(accepted, 0, pixels(2)).shape == pixels(2).shape


def test_a_layer_leaves_what_is_global_alone():
    built = KerasLayer("keras.layers.RandAugment").build(image_size=SIZE)
    expected = apply(built, 1)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")  # of this thread only: data threads would compute in float32
    try:
        state = random.getstate()
        np.testing.assert_array_equal(apply(built, 1), expected)
        assert random.getstate() == state
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize("name", ["RandomBrightness", "RandomFlip", "Equalization", "AutoContrast"])
def test_a_layer_does_not_ask_for_tensorflows_global_generator(name, monkeypatch):
    """It is not there where operations have to be deterministic."""
    layer = KerasLayer(f"keras_cv.layers.{name}", {"factor": 0.3} if name == "RandomBrightness" else {})
    expected = apply(layer.build(image_size=SIZE), 5)
    monkeypatch.delattr(tf.random, "get_global_generator")
    np.testing.assert_array_equal(apply(layer.build(image_size=SIZE), 5), expected)


@pytest.mark.parametrize("name", ["RandomErasing", "RandomHue", "RandomRotation"])
def test_keras_own_settings_change_no_views_and_stay(name):
    """Some of these would draw other numbers, the others fail."""
    layer = KerasLayer(f"keras.layers.{name}", {} if name == "RandomErasing" else {"factor": 0.3})
    expected = apply(layer.build(image_size=SIZE), 5, pixels(3))
    found = keras.config.floatx(), keras.config.image_data_format()
    try:
        for floatx, data_format in (("float16", "channels_last"), ("float64", "channels_first")):
            keras.config.set_floatx(floatx)
            keras.config.set_image_data_format(data_format)
            built = layer.build(image_size=SIZE)
            with concurrent.futures.ThreadPoolExecutor(4) as threads:
                for changed in threads.map(lambda _, built=built: apply(built, 5, pixels(3)), range(8)):
                    np.testing.assert_array_equal(changed, expected)
            assert (keras.config.floatx(), keras.config.image_data_format()) == (floatx, data_format)
    finally:
        keras.config.set_floatx(found[0])
        keras.config.set_image_data_format(found[1])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: KerasLayer(3), "Received: 3"),
        (lambda: KerasLayer("keras.layers.RandomHue", {"factor": float("nan")}), "nan"),
        (lambda: KerasLayer("keras.layers.RandomHue", None), "Received: None"),
        (lambda: operations(3), "a name or a KerasLayer. Received: 3"),
    ],
)
def test_what_is_no_operation_is_refused(make, told):
    with pytest.raises(InputError, match=told) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_layer_is_written_down_with_a_run():
    layer = KerasLayer("keras_cv.layers.GridMask", {"ratio_factor": (0.2, 0.5)})
    assert KerasLayer(**json.loads(json.dumps(dataclasses.asdict(layer)))) == layer


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("keras.layers.RandomBrigthness", {}, "Did you mean keras.layers.RandomBrightness"),
        ("keras_cv.layers.RandomCutuot", {}, "Did you mean keras_cv.layers.RandomCutout"),
        ("RandomBrightness", {}, "Not a layer .*keras.layers.RandomBrightness"),
        ("keras.optimizers.SGD", {}, "Not a layer"),
        ("keras.layers.deserialize", {}, "Not a layer"),
        ("keras.layers.MixUp", {}, "mixup_alpha does it"),
        ("keras_cv.layers.CutMix", {}, "cutmix_alpha does it"),
        ("keras_cv.layers.FourierMix", {}, "expects inputs in a dictionary"),
        ("keras.layers.RandomBrightness", {"factr": 0.1}, "factr.*it takes factor"),
        ("keras.layers.RandomBrightness", {"factor": 7}, "factor=7"),
        ("keras.layers.RandomBrightness", {"factor": 0.1, "seed": 3}, "seed=3; leaving it out"),
        ("keras.layers.RandomBrightness", {"factor": keras.layers}, "a dict of numbers, strings and lists"),
        ("keras.layers.RandomBrightness", {"factor": 0.1, "value_range": [0, 1]}, r"0\.\.1 for RGB in 0\.\.255"),
        ("keras_cv.layers.RandomJpegQuality", {"factor": [30, 80]}, r"0\.\.1 for RGB in 0\.\.255"),
        ("keras_cv.layers.RandomAspectRatio", {"factor": [0.9, 1.1]}, "keeps the shape"),
        ("keras.layers.RandomCrop", {"height": 8, "width": 8}, r"Received: \(16, 8, 8, 3\) for \(16, 18, 18, 3\)"),
        ("keras.layers.Dense", {"units": 3}, "weights to learn"),
        ("keras_cv.layers.GridMask", {"fill_mode": "gaussian_noise"}, "has no attribute"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused_in_one_line(name, arguments, message):
    with pytest.raises(InputError, match=message) as refusal:
        KerasLayer(name, arguments).build(image_size=SIZE)
    assert "\n" not in str(refusal.value) and "Received: " in str(refusal.value)
