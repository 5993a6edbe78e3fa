"""Batches as a pure function of (seed, step): resumed, in parts, mixed."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.keras_layers import KerasLayer
from divco_tf.data.mixing import Mixing
from divco_tf.data.pipeline import ViewPipeline
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import open_source
from divco_tf.data.views.kernels.random_numbers import view_keys
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.policies import POLICIES, ViewPolicy, get_policy
from divco_tf.errors import InputError
from tests.data.batches import MEAN, STD, assert_same, batches, numbered, pipeline
from tests.data.images import image_folder

POLICY = get_policy("svhn")


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


@settings(deadline=None, max_examples=15)
@given(
    stop=st.integers(1, 14),
    seed=st.integers(0, 2**64 - 1),
    threads=st.sampled_from([1, 8]),
    alphas=st.sampled_from([(0.0, 0.0), (0.2, 0.0), (0.0, 1.0), (0.2, 1.0)]),
)
def test_a_stream_stopped_anywhere_goes_on_as_if_undisturbed(stop, seed, threads, alphas):
    settings = {"seed": seed, "policy": POLICY, "mixup_alpha": alphas[0], "cutmix_alpha": alphas[1]}
    undisturbed = batches(pipeline(**settings), 0, 15, 1)
    resumed = batches(pipeline(**settings), 0, stop, threads) + batches(pipeline(**settings), stop, 15, threads)
    assert_same(resumed, undisturbed)


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("mixing", [{"mixup_alpha": 0.2}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.2, "mix_block": 2}])
def test_the_parts_of_several_hosts_are_together_the_whole_batch(parts, mixing):
    settings = {"policy": POLICY, "mixup_alpha": 0.0, **mixing}
    for step in (0, 7):
        views, labels = pipeline(**settings).views_at(step)
        slices = [pipeline(**settings, part=(index, parts)).views_at(step) for index in range(parts)]
        np.testing.assert_array_equal(np.concatenate([part for part, _ in slices]), views)
        np.testing.assert_array_equal(np.concatenate([part for _, part in slices]), labels)


def test_a_host_whose_slice_is_made_of_blocks_makes_no_other_views(monkeypatch):
    asked = []
    monkeypatch.setattr(
        ViewPipeline,
        "unmixed_at",
        lambda self, step, positions: (
            asked.append(list(positions))
            or (np.zeros((len(positions), 3, 8, 8, 3), np.float32), np.zeros((len(positions), 3), np.float32))
        ),
    )
    pipeline(mixup_alpha=0.2, mix_block=2, part=(1, 4)).views_at(3)
    assert asked == [[2, 3]]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"policy": (POLICY, POLICY)}, "2 policies, split_factor=3"),
        ({"policy": (POLICY,) * 3, "identical_views": True}, "identical_views=True"),
        ({"policy": (POLICY, POLICY, POLICIES["imagenet"])}, "with and without a resized_crop"),
        ({"on_error": "ignore"}, "Received: ignore; raise or skip"),
        ({"part": (2, 2)}, r"part=\(2, 2\)"),
        ({"part": (0, 3)}, r"part=\(0, 3\) of batch_size=8"),
        ({"part": (0, 2), "batch_operations": (KerasLayer("keras.layers.RandomFlip"),)}, "1 batch operations"),
        ({"mix_block": 3}, "block=3 for a batch of 8"),
        ({"cutmix_alpha": -1.0}, "cutmix_alpha"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes, says):
    with pytest.raises(InputError, match=says):
        pipeline(numbered(40), **changes)


def test_keras_layers_follow_the_views_and_repeat_themselves():
    layer = KerasLayer("keras.layers.RandomBrightness", {"factor": 0.3})
    settings = {"policy": POLICIES["none"], "mixup_alpha": 0.0, "batch_operations": (layer,)}
    plain, _ = pipeline(**settings | {"batch_operations": ()}).views_at(1)
    views, _ = pipeline(**settings).views_at(1)
    assert np.abs(views - plain).max() > 0.05
    assert_same(batches(pipeline(**settings), 1, 3, 4), [pipeline(**settings).views_at(step) for step in (1, 2)])
