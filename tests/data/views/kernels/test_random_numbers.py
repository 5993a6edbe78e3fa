"""Random orders that are computed where they are asked for."""

import itertools
import math
import os
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from divco_tf.data import draws
from divco_tf.data.views.kernels.random_numbers import shuffled, stamp


def plain_shuffled(key: int, size: int, place: int) -> int:
    """The network of the docstring, in Python's numbers."""
    rows = math.isqrt(size - 1) + 1
    rows += rows % 2
    columns = math.ceil(size / rows)
    number = place
    while True:
        row, column = divmod(number, columns)
        for turn in range(0, 8 if size >= 4096 else 32, 2):
            row = (row + ((draws.fold(key, turn, column) >> 32) * rows >> 32)) % rows
            column = (column + ((draws.fold(key, turn + 1, row) >> 32) * columns >> 32)) % columns
        number = row * columns + column
        if number < size:
            return number


@settings(deadline=None, max_examples=60)
@given(key=st.integers(0, 2**64 - 1), size=st.integers(1, 100) | st.integers(4000, 10**12), data=st.data())
def test_places_by_themselves_are_the_plain_implementations(key, size, data):
    start = data.draw(st.integers(0, size - 1))
    stop = min(size, start + data.draw(st.integers(0, 5)))
    found = shuffled(key, size=size, start=start, stop=stop)
    assert found.dtype == np.int64
    assert found.tolist() == [plain_shuffled(key, size, place) for place in range(start, stop)]


@settings(deadline=None, max_examples=60)
@given(key=st.integers(0, 2**64 - 1), size=st.integers(1, 300) | st.sampled_from([4095, 4096, 4097, 50_000]))
def test_an_order_has_each_number_once(key, size):
    assert sorted(shuffled(key, size=size)) == list(range(size))


def test_orders_are_the_same_for_ever():
    """A change would change the order of images of every run."""
    assert shuffled(5, size=12).tolist() == [10, 3, 7, 9, 8, 11, 6, 1, 4, 2, 5, 0]
    assert shuffled(5, size=50_000, start=49_995).tolist() == [9358, 31231, 4146, 10051, 6965]
    assert shuffled(5, size=1_281_167, start=1000, stop=1003).tolist() == [1050133, 1171533, 874932]


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_every_order_of_a_few_is_as_frequent_as_the_others(size):
    orders = math.factorial(size)
    found = Counter(tuple(shuffled(draws.fold(0, key), size=size)) for key in range(30 * orders))
    assert len(found) == orders and stats.chisquare(list(found.values())).pvalue > 1e-3


@pytest.mark.parametrize(("size", "keys"), [(25, 3000), (1000, 400), (5000, 100)])
def test_orders_are_those_of_independent_draws(size, keys):
    orders = np.stack([shuffled(draws.fold(1, key), size=size) for key in range(keys)])
    bins = min(size, 50)
    places = np.arange(size) * bins // size
    where = np.stack([np.bincount(places, weights=row, minlength=bins) for row in orders])
    # The mean over a bin of places, in units of its standard deviation: of numbers drawn without replacement.
    count = np.bincount(places)
    deviates = (where / count - (size - 1) / 2) / np.sqrt((size + 1) * (size - count) / (12 * count))
    assert stats.chi2.sf((deviates**2).sum(), deviates.size) > 1e-3
    bins = np.arange(size - 1) * 24 // (size - 1)
    steps = (orders[:, 1:] - orders[:, :-1]) % size - 1  # any but none is as likely
    expected = np.bincount(bins) * steps.size / (size - 1)
    assert stats.chisquare(np.bincount(bins[steps].ravel(), minlength=24), expected).pvalue > 1e-3
    fixed = (orders == np.arange(size)).sum(axis=1)  # Poisson, of mean 1
    assert abs(fixed.mean() - 1) < 4 / math.sqrt(keys)
    correlations = [stats.pearsonr(one, other)[0] for one, other in itertools.pairwise(orders)]
    assert abs(np.mean(correlations)) < 4 / math.sqrt(size * keys)
    odd = sum(_is_odd(order) for order in orders)
    assert stats.binomtest(odd, keys).pvalue > 1e-3


def _is_odd(order: np.ndarray) -> bool:
    """Of a permutation: as many cycles less than places."""
    cycles, seen = 0, np.zeros(len(order), bool)
    for place in range(len(order)):
        cycles += not seen[place]
        while not seen[place]:
            seen[place] = True
            place = order[place]
    return bool((len(order) - cycles) % 2)


def test_a_kernels_stamp_is_the_content_of_all_files(tmp_path):
    """numba's own is the time and size of one file: a reproducible build's are all equal."""
    for name, text in (("one.py", "a = 1"), ("two.py", "b = 2"), ("notes.txt", "")):
        (tmp_path / name).write_text(text)
    first = stamp(tmp_path)
    times = (tmp_path / "two.py").stat()
    (tmp_path / "two.py").write_text("b = 3")
    os.utime(tmp_path / "two.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    stamp.cache_clear()
    assert stamp(tmp_path) != first
