"""The order of images."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.errors import InputError
from tests.data.batches import numbered, pipeline


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
