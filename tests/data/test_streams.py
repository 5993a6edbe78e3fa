"""Streams of views: resumed, in parts, with bad images, from stored images, for each branch another policy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data import pipeline as pipeline_module
from divco_tf.data.batch_ops import KerasLayer
from divco_tf.data.pipeline import ViewPipeline, union
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import BadImage, open_source
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.policies import POLICIES, ResizedCrop, ViewPolicy, get_policy
from divco_tf.errors import InputError
from tests.data.images import image_folder
from tests.data.test_pipeline import MEAN, STD, numbered, pipeline

POLICY = get_policy("svhn")


def batches(stream: ViewPipeline, start: int, stop: int, threads: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(stream.dataset(start, stop, threads=threads).as_numpy_iterator())


def assert_same(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for array, expected in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, expected)


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


def test_each_branch_can_have_a_policy_of_its_own():
    policies = (POLICIES["none"], POLICY, ViewPolicy(pad=1))
    views, _ = pipeline(policy=policies, mixup_alpha=0.0).views_at(2)
    for branch, policy in enumerate(policies):
        alone, _ = pipeline(policy=policy, mixup_alpha=0.0).views_at(2)
        np.testing.assert_array_equal(views[:, branch], alone[:, branch])


@pytest.fixture
def photos(tmp_path):
    return image_folder(tmp_path / "photos", classes=2, images=10)


def stream(folder, **changes) -> ViewPipeline:
    source = open_source(
        "image_folder", "train", data_dir=str(folder), image_size=12, on_error=changes.get("on_error", "raise")
    )
    settings = {"batch_size": 4, "mixup_alpha": 0.0, "policy": ViewPolicy(pad=0, resized_crop=ResizedCrop())}
    return pipeline(source, **settings | changes)


def test_resized_crops_are_cut_out_of_the_stored_image(photos):
    made = stream(photos)
    views, _ = made.views_at(1)
    maker = ViewMaker(ViewPolicy(pad=0, resized_crop=ResizedCrop()), mean=MEAN, std=STD)
    for position, index in enumerate(made.indices_at(1)):
        stored = made.source.read_stored(int(index))
        for branch in range(3):
            key, view = made.keys_at(1)[position, branch], np.empty((12, 12, 3), np.float32)
            maker.from_region(stored, maker.box(key, *stored.shape[:2]), key, view)
            np.testing.assert_array_equal(views[position, branch], view)


def test_in_memory_images_are_cropped_and_resized_too():
    policy = ViewPolicy(pad=0, resized_crop=ResizedCrop(area=(0.2, 0.5)))
    made, maker = pipeline(policy=policy, mixup_alpha=0.0), ViewMaker(policy, mean=MEAN, std=STD)
    views, _ = made.views_at(0)
    for position, index in enumerate(made.indices_at(0)):
        image, key, view = made.source.images[index], made.keys_at(0)[position, 2], np.empty((8, 8, 3), np.float32)
        maker.from_region(image, maker.box(key, 8, 8), key, view)
        np.testing.assert_array_equal(views[position, 2], view)


def test_large_batches_are_made_by_threads_together_and_are_the_same(photos, monkeypatch):
    expected = batches(stream(photos), 0, 6, 1)
    monkeypatch.setattr(pipeline_module, "_BEING_MADE", 1)
    together = stream(photos)
    assert together.batches_at_once(8) == 1
    assert_same(batches(together, 0, 6, 8), expected)


def spoil(folder) -> set[str]:
    """Breaks images of both classes in several ways."""
    files = sorted(folder.rglob("*.jpg"))[::4]
    for number, file in enumerate(files):
        file.write_bytes([b"", file.read_bytes()[:200], b"no image"][number % 3])
    return {str(file) for file in files}


def test_a_bad_image_is_replaced_by_the_next_good_one_of_the_epoch_and_counted(photos):
    whole = stream(photos)
    good = [whole.views_at(step)[0] for step in range(2 * whole.steps_per_epoch)]
    bad = spoil(photos)
    made = stream(photos, on_error="skip")
    assert len(made.source) == len(whole.source)
    paths = [str(made.source.root / path) for path in made.source.paths]
    for step in range(2 * made.steps_per_epoch):
        views, labels = made.views_at(step)
        epoch, place = divmod(step, made.steps_per_epoch)
        order = np.concatenate([made.indices_at(epoch * made.steps_per_epoch + i) for i in range(made.steps_per_epoch)])
        for position in range(4):
            wanted = order[4 * place + position]
            if paths[wanted] not in bad:
                np.testing.assert_array_equal(views[position], good[step][position])
            assert labels[position].sum() == 1
    shown = {path for path in bad if path in paths}
    assert {paths[index] for index in made.replaced} <= shown and made.replaced
    assert all(line.startswith("An image cannot be read (") for line in made.replaced.values())


def test_what_replaces_a_bad_image_depends_on_nothing_but_seed_and_step(photos):
    spoil(photos)
    expected = batches(stream(photos, on_error="skip"), 0, 8, 1)
    assert_same(batches(stream(photos, on_error="skip"), 0, 8, 4), expected)


def test_an_epoch_without_a_good_image_ends(photos):
    for file in photos.rglob("*.*"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="No image of the epoch can be read"):
        stream(photos, on_error="skip").views_at(0)


def test_a_file_that_goes_under_a_run_is_named(photos):
    made = stream(photos)
    for file in photos.rglob("*.*"):
        file.unlink()
    with pytest.raises(BadImage, match=r"No such file or directory\). Received: .*class\d"):
        made.views_at(0)
    with pytest.raises(tf.errors.OpError):
        batches(made, 0, 1, 2)


def test_warming_up_is_silent_about_bad_images_which_the_first_batch_tells(photos):
    for file in photos.rglob("*.*"):
        file.write_bytes(b"")
    made = stream(photos, on_error="skip")
    made.warm_up()
    with pytest.raises(InputError, match="No image of the epoch can be read"):
        made.views_at(0)


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


def test_the_smallest_box_around_boxes():
    assert union([(2, 3, 4, 5)]) == (2, 3, 4, 5)
    assert union([(2, 3, 4, 5), (0, 7, 3, 3)]) == (0, 3, 6, 7)


def test_keras_layers_follow_the_views_and_repeat_themselves():
    layer = KerasLayer("keras.layers.RandomBrightness", {"factor": 0.3})
    settings = {"policy": POLICIES["none"], "mixup_alpha": 0.0, "batch_operations": (layer,)}
    plain, _ = pipeline(**settings | {"batch_operations": ()}).views_at(1)
    views, _ = pipeline(**settings).views_at(1)
    assert np.abs(views - plain).max() > 0.05
    assert_same(batches(pipeline(**settings), 1, 3, 4), [pipeline(**settings).views_at(step) for step in (1, 2)])


def test_grey_levels_are_normalisation_the_other_way_round():
    images = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
    preprocessing = Preprocessing(16, MEAN, STD)
    np.testing.assert_array_equal(preprocessing.grey_levels(preprocessing.normalise(images).numpy()), images)
