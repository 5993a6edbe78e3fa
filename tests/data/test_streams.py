"""Batches as tf.data's, and evaluation that counts every image once."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data import streams
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import open_source
from divco_tf.data.streams import evaluation_dataset, reraise_input_error
from divco_tf.errors import InputError
from tests.data.batches import MEAN, STD, assert_same, batches, numbered, pipeline, stream
from tests.data.images import image_folder


@settings(deadline=None, max_examples=8)
@given(threads=st.integers(1, 8), start=st.integers(0, 20), length=st.integers(1, 8), alpha=st.sampled_from([0.0, 0.2]))
def test_any_part_of_the_stream_is_what_views_at_says(threads, start, length, alpha):
    stream = pipeline(mixup_alpha=alpha)
    batches = list(stream.dataset(start, start + length, threads=threads).as_numpy_iterator())
    assert len(batches) == length
    fresh = pipeline(mixup_alpha=alpha)
    for step in reversed(range(start, start + length)):
        for ours, again in zip(batches[step - start], fresh.views_at(step), strict=True):
            np.testing.assert_array_equal(ours, again)


def test_large_batches_are_made_by_threads_together_and_are_the_same(photos, monkeypatch):
    expected = batches(stream(photos), 0, 6, 1)
    monkeypatch.setattr(streams, "_BEING_MADE", 1)
    together = stream(photos)
    assert together.batches_at_once(8) == 1
    assert_same(batches(together, 0, 6, 8), expected)


@pytest.mark.parametrize("batch_size", [1, 7, 40, 100])
def test_evaluation_shows_every_image_once_in_order(batch_size):
    source = numbered(40)
    preprocess = Preprocessing(image_size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    batches = list(evaluation_dataset(source, batch_size=batch_size, preprocess=preprocess).as_numpy_iterator())
    assert [len(labels) for _, labels in batches[:-1]] == [batch_size] * (len(batches) - 1)
    images = np.concatenate([images for images, _ in batches])
    np.testing.assert_allclose(images * 255, source.images, atol=1e-4)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), source.labels)


def test_evaluation_of_a_folder_prepares_the_stored_images(tmp_path):
    source = open_source("image_folder", "test", data_dir=str(image_folder(tmp_path)), image_size=8)
    preprocess = Preprocessing(image_size=8, mean=MEAN, std=STD, resize="shorter_side_crop")
    dataset = evaluation_dataset(source, batch_size=4, preprocess=preprocess, threads=3)
    assert dataset.element_spec[0].shape.as_list() == [None, 8, 8, 3]
    batches = list(dataset.as_numpy_iterator())
    expected = preprocess.normalise(source.read_batch(np.arange(len(source))))
    np.testing.assert_allclose(np.concatenate([images for images, _ in batches]), expected, atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), source.labels)
    assert len(batches[0][0]) == 4


@pytest.mark.parametrize("kind", ["training", "evaluation"])
@pytest.mark.parametrize("inside_function", [False, True])
def test_a_broken_image_ends_the_stream_with_its_line(tmp_path, kind, inside_function):
    for file in image_folder(tmp_path).rglob("*.jpg"):
        file.write_bytes(file.read_bytes()[:300])
    source = open_source("image_folder", "train", data_dir=str(tmp_path), image_size=8)
    if kind == "training":
        dataset = pipeline(source).dataset(0, 3)
    else:
        dataset = evaluation_dataset(source, batch_size=4, preprocess=Preprocessing(8, MEAN, STD))
    iterator = iter(dataset)
    advance = tf.function(lambda: next(iterator)) if inside_function else lambda: next(iterator)
    with pytest.raises(tf.errors.OpError) as raised:
        for _ in range(3):
            advance()
    with pytest.raises(InputError, match=r"^An image cannot be read .*Received: .*\.jpg; .* the file\.$") as caught:
        reraise_input_error(raised.value)
    assert "\n" not in str(caught.value)


def test_other_errors_are_left_alone():
    reraise_input_error(tf.errors.OutOfRangeError(None, None, "End of sequence"))
    reraise_input_error(RuntimeError("InputError: not from TensorFlow"))
    with pytest.raises(InputError, match="as it is"):
        reraise_input_error(InputError("as it is"))


def test_no_autotuning_thread_is_left_behind_and_the_map_has_its_own_threads():
    options = pipeline().dataset(0, 1, threads=2).options()
    assert options.autotune.enabled is False
    assert options.threading.private_threadpool_size == min(2, os.cpu_count())


def test_under_op_determinism_batches_are_still_made_side_by_side():
    code = """
        import threading
        import numpy as np
        import tensorflow as tf
        from divco_tf.data.pipeline import ViewPipeline
        from divco_tf.data.views.policies import ViewPolicy
        from divco_tf.data.preprocessing import Preprocessing
        from divco_tf.data.sources import ArraySource

        tf.config.experimental.enable_op_determinism()
        meeting = threading.Barrier(2)

        class Meeting(ArraySource):
            def read_batch(self, indices):
                meeting.wait(timeout=30)  # raises unless two calls run at once
                return super().read_batch(indices)

        source = Meeting(np.zeros((8, 4, 4, 3), np.uint8), np.zeros(8), ("a", "b"))
        stream = ViewPipeline(source, batch_size=2, split_factor=2, seed=0, policy=ViewPolicy(),
                              preprocessing=Preprocessing(4, (0.5,) * 3, (0.5,) * 3))
        print(sum(1 for _ in stream.dataset(0, 4, threads=2)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout.strip() == "4", done.stderr[-2000:]
