"""Passes over many images or files."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.sources.parallel import from_disk, in_order
from divco_tf.errors import InputError


@settings(deadline=None, max_examples=20)
@given(count=st.integers(0, 1100), threads=st.integers(1, 8))
def test_results_come_in_order_whatever_the_threads(count, threads):
    expected = [3 * number for number in range(count)]
    assert list(from_disk(lambda number: 3 * number, list(range(count)))) == expected
    lines = []
    assert list(in_order(lambda number: 3 * number, count, threads=threads, what="x", report=lines.append)) == expected
    assert not count or lines[-1] == f"x: {count:,} of {count:,} images"
    assert len(lines) <= 20


def test_an_error_ends_the_pass_at_once():
    seen = []

    def fail(number):
        seen.append(number)
        time.sleep(1e-4)
        raise InputError(f"number {number}")

    with pytest.raises(InputError, match="number 0"):
        list(from_disk(fail, range(100_000)))
    assert len(seen) < 1000


def test_results_do_not_pile_up():
    made, lock = [0], threading.Lock()

    def make(number):
        with lock:
            made[0] += 1
        return number

    for taken, _ in enumerate(in_order(make, 2000, threads=4, what="x", report=lambda line: None)):
        assert made[0] - taken <= 256


def test_a_number_of_threads_is_positive():
    with pytest.raises(InputError, match="Received: 0; 1 or more"):
        list(in_order(abs, 3, threads=0, what="x", report=print))
