import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divco_tf.data.sources import ArraySource, open_source, stratified
from divco_tf.errors import InputError
from tests.data.images import image_folder

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)


@given(labels=LABELS, seed=st.integers(0, 2**40), data=st.data())
def test_each_class_has_its_share_within_an_image_and_one_at_least(labels, seed, data):
    classes, sizes = np.unique(labels, return_counts=True)
    count = data.draw(st.integers(len(classes), len(labels)))
    chosen = stratified(labels, count, seed=seed)
    assert len(set(chosen.tolist())) == count and np.all(np.diff(chosen) > 0)
    found = np.array([(labels[chosen] == label).sum() for label in classes])
    assert found.min() >= 1
    assert np.all(np.abs(found - count * sizes / len(labels)) <= np.maximum(1, len(classes) * sizes / len(labels)))


@given(labels=LABELS, seed=st.integers(0, 2**40), data=st.data())
def test_fewer_images_are_among_more(labels, seed, data):
    sizes = st.integers(len(np.unique(labels)), len(labels))
    few, many = sorted([data.draw(sizes), data.draw(sizes)])
    assert set(stratified(labels, few, seed=seed)) <= set(stratified(labels, many, seed=seed))


def test_another_seed_chooses_others_and_the_same_seed_the_same_for_ever():
    labels = np.arange(40) % 4
    chosen = stratified(labels, 8, seed=0)
    assert chosen.tolist() == [5, 11, 13, 14, 26, 32, 36, 39]
    assert chosen.tolist() != stratified(labels, 8, seed=1).tolist()
    np.testing.assert_array_equal(np.bincount(labels[chosen]), [2, 2, 2, 2])


@pytest.mark.parametrize(("count", "says"), [(3, "4 to 40 would work"), (41, "train_images=41 of 40 images")])
def test_too_few_or_too_many_are_refused(count, says):
    with pytest.raises(InputError, match=says):
        stratified(np.arange(40) % 4, count, seed=0)


@pytest.mark.parametrize("kind", ["digits", "folder"])
def test_the_chosen_images_are_those_and_keep_their_names(kind, tmp_path):
    if kind == "digits":
        source = open_source("digits", "train")
    else:
        source = open_source("image_folder", "train", data_dir=image_folder(tmp_path, images=8))
    indices = np.array([1, 4, 5])
    chosen = source.only(indices)
    assert type(chosen) is type(source) and len(chosen) == 3 and chosen.class_names == source.class_names
    for place, index in enumerate(indices):
        np.testing.assert_array_equal(chosen.read(place), source.read(int(index)))
        assert chosen.name_of(place) == source.name_of(int(index))
    np.testing.assert_array_equal(chosen.labels, source.labels[indices])
    assert chosen.fingerprint() != source.fingerprint()
    again = chosen.only(np.array([2]))
    assert again.name_of(0) == source.name_of(5)


def test_records_are_chosen_with_the_labels_that_are_known(cifar10_dir):
    source = open_source("cifar10", "test", data_dir=cifar10_dir, memory_budget=0)
    source.labels_of(np.array([3]))
    chosen = source.only(np.array([3, 7]))
    np.testing.assert_array_equal(chosen.read(1), source.read(7))
    np.testing.assert_array_equal(chosen.labels, source.labels_of(np.array([3, 7])))
    assert isinstance(source.only(np.array([0])), type(source)) and not isinstance(source, ArraySource)
