"""A stack leaves Python by Keras's and TensorFlow's own ways, whole."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import tiny
from tests.reference import DATA
from tests.reference.old import RELEASES, unpacked
from tests.tiny import lively, tiny_stack

VIEWS = tiny.batch(3)[0]


@pytest.mark.parametrize("devices", [None, ["CPU:0", "CPU:1"]])
def test_a_stack_is_exported_before_it_has_been_called(tmp_path, devices):
    stack = lively(tiny_stack(devices=devices))
    stack.export(tmp_path, verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))
    served = loaded.serve(tf.constant(VIEWS))
    np.testing.assert_allclose(served, stack(VIEWS), rtol=1e-6)
    np.testing.assert_allclose(loaded.serve(tf.constant(VIEWS[:2, 0])), stack(VIEWS[:2, 0]), rtol=1e-6)
    assert loaded.signatures["serving_default"].structured_input_signature[1]["images"].shape == (None, 2, 8, 8, 3)


def test_an_export_is_loaded_and_called_in_one_line(tmp_path):
    stack = lively(tiny_stack())
    stack.export(tmp_path, verbose=False)
    np.testing.assert_allclose(tf.saved_model.load(str(tmp_path)).serve(VIEWS), stack(VIEWS), rtol=1e-6)


def test_an_exports_signature_may_be_of_images(tmp_path):
    stack = lively(tiny_stack(precision="mixed_bfloat16"))
    signature = [keras.InputSpec(dtype="float32", shape=(None, 8, 8, 3))]
    stack.export(tmp_path, verbose=False, input_signature=signature)
    loaded = tf.saved_model.load(str(tmp_path))
    served = loaded.serve(tf.constant(VIEWS[:, 0]))
    np.testing.assert_allclose(served, stack(VIEWS[:, 0]), rtol=1e-6)


def test_tensorflows_saved_model_has_the_views_signature(tmp_path):
    stack = lively(tiny_stack())
    tf.saved_model.save(stack, str(tmp_path))
    signature = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    np.testing.assert_allclose(next(iter(signature(inputs=tf.constant(VIEWS)).values())), stack(VIEWS), rtol=1e-6)


def test_a_checkpoint_of_tensorflow_holds_every_variable_by_name(tmp_path):
    stack, again = lively(tiny_stack()), tiny_stack(seed=7)
    stack(VIEWS, training=True)
    path = tf.train.Checkpoint(stack=stack).save(str(tmp_path / "it"))
    stored = [name for name, _ in tf.train.list_variables(path)]
    for name in stack.stacked_values():
        assert f"stack/{name.replace('.', '..')}/.ATTRIBUTES/VARIABLE_VALUE" in stored
    tf.train.Checkpoint(stack=again).restore(path).assert_existing_objects_matched()
    for ours, theirs in zip(again.variables, stack.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["model", "stack", "branch"])
@pytest.mark.parametrize("release", RELEASES)
def test_keras_files_of_a_release_are_read_for_ever(tmp_path, release, name):
    """Two branches, two steps trained, with what was predicted then; SGD's of 0.1.0, AdamW's of 0.2.0."""
    folder = DATA / "v0.1.0" / "keras" if release == "v0.1.0" else unpacked(release, "keras", tmp_path)
    expected = json.loads((DATA / release / "keras.json").read_text())
    views = (np.arange(2 * 2 * 8 * 8 * 3).reshape(2, 2, 8, 8, 3) % 7).astype(np.float32)
    loaded = keras.models.load_model(folder / f"{name}.keras")
    predicted = loaded(views[:, 0] if name == "branch" else views)
    np.testing.assert_allclose(predicted, expected[name], rtol=1e-4, atol=1e-6)
    if name == "model":
        assert int(loaded.optimizer.iterations.value) == expected["optimizer_steps"] == 2
