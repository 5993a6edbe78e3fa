"""Batches as a pure function of (seed, step), and evaluation that counts every image once."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.mixing import Mixing
from divco_tf.data.pipeline import ViewPipeline, evaluation_dataset, reading, reraise_input_error
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import ArraySource, Source, open_source
from divco_tf.data.views.kernels.random_numbers import view_keys
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.policies import POLICIES, ViewPolicy
from divco_tf.errors import InputError
from tests.data.images import image_folder

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def numbered(count: int, size: int = 8) -> ArraySource:
    """Images whose pixels spell their index, of three classes."""
    indices = np.arange(count)
    pixels = np.stack([indices % 256, indices // 256, indices % 7], axis=1).astype(np.uint8)
    images = np.broadcast_to(pixels[:, None, None, :], (count, size, size, 3)).copy()
    return ArraySource(images, indices % 3, ("a", "b", "c"))


def pipeline(source=None, **changes) -> ViewPipeline:
    source = source or numbered(40)
    settings = {
        "batch_size": 8,
        "split_factor": 3,
        "seed": 5,
        "policy": POLICIES["svhn_no_autoaugment"],
        "preprocessing": Preprocessing(image_size=source.image_size, mean=MEAN, std=STD),
        "mixup_alpha": 0.2,
    }
    return ViewPipeline(source, **settings | changes)


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 50), batch_size=st.integers(1, 50), seed=st.integers(-(2**63), 2**64))
def test_an_epoch_shows_each_image_at_most_once_and_drops_less_than_a_batch(count, batch_size, seed):
    if count < batch_size:
        with pytest.raises(InputError, match=f"{count} or less would work"):
            pipeline(numbered(count), batch_size=batch_size)
        return
    views = pipeline(numbered(count), batch_size=batch_size, seed=seed)
    assert views.steps_per_epoch == count // batch_size
    for epoch in range(2):
        steps = range(epoch * views.steps_per_epoch, (epoch + 1) * views.steps_per_epoch)
        shown = np.concatenate([views.indices_at(step) for step in steps])
        assert len(set(shown)) == len(shown) > count - batch_size
        assert set(shown) <= set(range(count))


def test_epochs_and_seeds_shuffle_apart():
    orders = {
        (seed, epoch): tuple(pipeline(batch_size=40, seed=seed).indices_at(epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4


def test_the_order_of_images_is_the_same_for_ever_and_nobodys_to_change():
    """A change would change every run: then ORDER counts on."""
    stream = pipeline()
    first = stream.indices_at(0)
    assert first.tolist() == [21, 12, 5, 10, 33, 23, 13, 11]
    first.sort()
    assert stream.indices_at(0).tolist() == [21, 12, 5, 10, 33, 23, 13, 11]
    assert stream.indices_at(9).tolist() == [19, 17, 12, 34, 4, 39, 28, 26]  # of the second epoch


class Mine(Source):
    """What a user's source may be like."""

    image_size, class_names, labels = 8, ("a", "b"), np.arange(16) % 2

    def __init__(self, read=lambda: np.zeros((8, 8, 3), np.uint8), labels=None) -> None:
        self._read = read
        self.labels = self.labels if labels is None else labels

    def read(self, index):
        return self._read()


@pytest.mark.parametrize("policy", [POLICIES["none"], POLICIES["resized_crop"]])
@pytest.mark.parametrize(
    ("source", "told"),
    [
        (Mine(lambda: np.full((8, 8, 3), 0.8, np.float32)), r"float32 \[\d, \d, 3\] from the source Mine; uint8"),
        (Mine(lambda: np.zeros((8, 8, 4), np.uint8)), r"uint8 \[\d, \d, 4\] from the source Mine"),
        (Mine(lambda: np.zeros((8, 8), np.uint8)), r"uint8 \[\d, \d\] from the source Mine"),
        (Mine(lambda: np.zeros((8, 8, 3), np.int64)), r"int64 \[\d, \d, 3\] from the source Mine"),
        (Mine(labels=np.arange(16) % 2 * 1.0), r"float64 \[4\] from the source Mine; integers \[4\]"),
        (Mine(labels=np.arange(16) % 2 - 1), "-1 to 0 from the source Mine; 0 to 1"),
        (Mine(labels=np.arange(16) % 2 + 1), "1 to 2 from the source Mine; 0 to 1"),
    ],
)
def test_what_a_source_of_the_users_gives_is_checked(source, told, policy):
    with pytest.raises(InputError, match=f"Received: {told}.* would work") as error:
        pipeline(source, batch_size=4, policy=policy).views_at(0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [[0.9, 1.2], [0, float("nan")], ["0", "1"], [None, 1]])
def test_labels_that_are_no_class_numbers_are_refused(labels):
    with pytest.raises(InputError, match="Labels are class numbers. Received: ") as error:
        ArraySource(np.zeros((2, 8, 8, 3), np.uint8), labels, ("a", "b"))
    assert "\n" not in str(error.value)
    assert ArraySource(np.zeros((2, 8, 8, 3), np.uint8), [1.0, 0.0], ("a", "b")).labels.tolist() == [1, 0]


def test_evaluation_checks_what_a_source_gives_too():
    for source, told in ((Mine(lambda: np.zeros((8, 8, 3))), "float64"), (Mine(labels=np.arange(16)), "2 to 2 from")):
        dataset = evaluation_dataset(source, batch_size=16, preprocess=Preprocessing(8, MEAN, STD))
        with pytest.raises(InputError, match=f"Received: {told}"), reading():
            list(dataset)


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


def test_a_batch_is_made_of_the_kernels_then_mixup():
    stream = pipeline()
    views, labels = stream.views_at(11)
    indices = stream.indices_at(11)
    keys = view_keys(seed=5, step=11, batch_size=8, split_factor=3)
    plain = ViewMaker(POLICIES["svhn_no_autoaugment"], mean=MEAN, std=STD)(stream.source.images[indices], keys)
    mixture = Mixing(mixup_alpha=0.2).draw(seed=5, step=11, batch_size=8)
    share, partners = mixture.share, mixture.partners
    np.testing.assert_allclose(views, share * plain + (1 - share) * plain[partners], atol=1e-6)
    one_hot = np.eye(3)[stream.source.labels[indices]]
    np.testing.assert_allclose(labels, share * one_hot + (1 - share) * one_hot[partners], atol=1e-6)


def test_dtypes_and_static_shapes():
    views, labels = pipeline().views_at(0)
    assert views.dtype == labels.dtype == np.float32
    assert pipeline().dataset(0, 1).element_spec == (
        tf.TensorSpec([8, 3, 8, 8, 3], tf.float32),
        tf.TensorSpec([8, 3], tf.float32),
    )


def test_views_of_the_branches_differ_unless_they_are_asked_to_be_identical():
    source = open_source("digits", "train")
    different, _ = pipeline(source).views_at(0)
    identical, labels = pipeline(source, identical_views=True).views_at(0)
    assert not np.array_equal(different[:, 0], different[:, 1])
    np.testing.assert_array_equal(identical[:, 0], identical[:, 1])
    np.testing.assert_array_equal(identical[:, 0], different[:, 0])
    np.testing.assert_array_equal(labels, pipeline(source).views_at(0)[1])


def test_without_a_policy_views_are_the_normalised_images():
    stream = pipeline(policy=ViewPolicy(pad=0, flip=False), mixup_alpha=0.0)
    views, labels = stream.views_at(3)
    images = stream.source.images[stream.indices_at(3)]
    expected = Preprocessing(image_size=8, mean=MEAN, std=STD)(images)
    np.testing.assert_allclose(views, np.repeat(expected[:, None], 3, axis=1), atol=2e-6)
    np.testing.assert_array_equal(labels.argmax(axis=1), stream.source.labels[stream.indices_at(3)])


def test_training_on_a_folder_reads_its_images(tmp_path):
    source = open_source("image_folder", "train", data_dir=str(image_folder(tmp_path)), image_size=8)
    stream = pipeline(source, policy=ViewPolicy(pad=0, flip=False), mixup_alpha=0.0, batch_size=4)
    [(views, _)] = stream.dataset(1, 2, threads=4)
    expected = Preprocessing(image_size=8, mean=MEAN, std=STD).normalise(source.read_batch(stream.indices_at(1)))
    np.testing.assert_allclose(views[:, 0], expected, atol=2e-6)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 8.0}, r"batch_size .*Received: 8\.0"),
        ({"seed": 0.5}, r"seed .*Received: 0\.5"),
        ({"policy": "svhn"}, "Received: .*'svhn'"),
        ({"split_factor": 0}, "split_factor=0"),
        ({"preprocessing": Preprocessing(32, MEAN, STD)}, "image_size=32; 8 would work"),
        ({"mixup_alpha": -1}, "Received: -1"),
        ({"policy": ViewPolicy(pad=9)}, "pad=9"),
    ],
)
def test_arguments_that_do_not_fit_get_one_line(changes, line):
    with pytest.raises(InputError, match=line):
        pipeline(**changes)


def test_negative_steps_and_threads_are_refused():
    with pytest.raises(InputError, match="Received: -1"):
        pipeline().views_at(-1)
    with pytest.raises(InputError, match="Received: 0"):
        pipeline().dataset(0, 1, threads=0)


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
