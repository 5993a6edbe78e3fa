"""How stored examples are parted."""

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.sources.splits import in_split, shares

keys = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=60)


@settings(deadline=None)
@given(keys=keys, held_out=st.floats(0, 0.99), test_share=st.floats(0, 0.99))
def test_splits_are_disjoint_and_together_everything(keys, held_out, test_share):
    parts = [in_split(keys, split, held_out=held_out, test_share=test_share) for split in ("train", "held_out", "test")]
    assert (np.sum(parts, axis=0) == 1).all()


@given(keys=keys, seed=st.integers(0, 99))
def test_a_share_depends_on_the_key_alone(keys, seed):
    order = np.random.default_rng(seed).permutation(len(keys))
    shuffled = shares([keys[i] for i in order], purpose="held_out")
    np.testing.assert_array_equal(shuffled, shares(keys, purpose="held_out")[order])
    assert (shuffled >= 0).all() and (shuffled < 1).all()


def test_shares_are_the_same_on_every_machine():
    digest = hashlib.blake2b(b"test/cat/1.png", digest_size=8).digest()
    assert shares(["cat/1.png"], purpose="test")[0] == (int.from_bytes(digest, "little") >> 11) / 2**53
    # A name that macOS hands out decomposed.
    assert shares(["caf\u00e9"], purpose="test") == shares(["cafe\u0301"], purpose="test")
    assert 0 <= shares(["\udcff.png"], purpose="test")[0] < 1


def test_shares_are_uniform_and_independent_between_purposes():
    numbers = [str(index) for index in range(4000)]
    held, tested = shares(numbers, purpose="held_out"), shares(numbers, purpose="test")
    assert abs(held.mean() - 0.5) < 0.02 and abs(np.corrcoef(held, tested)[0, 1]) < 0.07
