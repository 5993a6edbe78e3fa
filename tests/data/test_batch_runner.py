"""Operations in a row on a batch."""

import numpy as np
import pytest

from divco_tf.errors import InputError
from tests.data.batch_operations import MEAN, labels, normalised, operations, pixels


def test_an_operation_sees_whole_grey_levels_and_untouched_ones_come_back_bit_by_bit():
    values = pixels()
    views = normalised(values)
    views[0, 0, :4, :4] = 0  # erased: the mean colour
    seen = []

    def look(views, labels, key):
        seen.append(views.copy())
        return views, labels

    before = views.copy()
    after, same_labels = operations(look)(views, labels(), seed=0, step=0)
    np.testing.assert_allclose(seen[0][0, 0, :4, :4], np.broadcast_to(255 * np.array(MEAN), (4, 4, 3)), rtol=1e-5)
    values[0, 0, :4, :4], seen[0][0, 0, :4, :4] = 0, 0
    np.testing.assert_array_equal(seen[0], values)
    np.testing.assert_array_equal(after[1:], views[1:])
    np.testing.assert_allclose(after, views, atol=1e-5)
    np.testing.assert_array_equal(views, before)
    np.testing.assert_array_equal(same_labels, labels())
    assert after.dtype == same_labels.dtype == np.float32


def test_operations_run_in_order_and_may_change_what_they_are_given():
    def half(views, labels, key):
        views /= 2
        labels *= 0.5
        return views, labels

    def plus_ten(views, labels, key):
        return views + 10, labels

    given_labels = labels()
    views, halved = operations(half, plus_ten)(normalised(pixels()), given_labels, seed=0, step=0)
    np.testing.assert_allclose(views, normalised(pixels() / 2 + 10), atol=1e-5)
    np.testing.assert_array_equal(halved, given_labels / 2)
    np.testing.assert_array_equal(given_labels, labels())


def test_a_key_is_settled_by_seed_step_and_place():
    keys = []

    def note(views, labels, key):
        keys.append(key)
        return views, labels

    both = operations(note, note)
    for seed, step in [(0, 0), (0, 1), (1, 0), (-1, 0), (0, 0)]:
        both(normalised(pixels(2)), labels(2), seed=seed, step=step)
    assert len(set(keys)) == 8 and keys[:2] == keys[-2:]
    assert all(isinstance(key, int) and 0 <= key < 2**63 for key in keys)
    assert keys[:2] == [3580224170114210197, 7022994173110625924]  # for ever
    assert keys[6:8] == [4467556244248887991, 1312332616827462419]


def test_no_operation_returns_what_it_was_given():
    views, given = normalised(pixels()), labels()
    none = operations()
    assert not none and len(operations(lambda views, labels, key: (views, labels))) == 1
    same_views, same_labels = none(views, given, seed=0, step=0)
    assert same_views is views and same_labels is given


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda views, labels, key: views, "Received: ndarray from <lambda>"),
        (lambda views, labels, key: None, "Received: NoneType"),
        (lambda views, labels, key: (views[:, :, 1:], labels), r"keeps the shapes .*Received: \(8, 2, 17, 18, 3\)"),
        (lambda views, labels, key: (views, labels[:, 0]), r"Received: .* and \(8,\) from"),
        (lambda views, labels, key: (views > 0, labels), "returns numbers. Received: bool and float32"),
        (lambda views, labels, key: ("views", labels), "Received: <U5"),
        (lambda views, labels, key: (views * np.nan, labels), "NaN or infinity from <lambda>"),
        (lambda views, labels, key: (views, labels + np.inf), "NaN or infinity from <lambda>"),
        (lambda views, labels, key: views["a"], r"<lambda> failed \(IndexError: .*Received: views \[8, 2, 18, 18, 3\]"),
    ],
)
def test_a_function_that_returns_something_else_is_refused(result, message):
    with pytest.raises(InputError, match=message) as refusal:
        operations(result)(normalised(pixels()), labels(), seed=0, step=0)
    assert "\n" not in str(refusal.value)
