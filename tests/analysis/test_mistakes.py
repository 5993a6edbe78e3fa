"""Where a classifier goes wrong."""

import numpy as np
import pytest
import sklearn.metrics

from divco_tf.analysis.metrics import confusion_matrix
from divco_tf.analysis.mistakes import class_accuracies, confident_mistakes, frequent_confusions
from divco_tf.errors import InputError

PROBABILITIES = np.array([[0.6, 0.4, 0], [0.1, 0.9, 0], [0.2, 0.8, 0], [0.05, 0.05, 0.9], [0.3, 0.7, 0]])
LABELS = np.array([0, 0, 0, 1, 0])


def test_accuracies_of_classes_are_recalls_and_absent_classes_have_none():
    matrix = confusion_matrix(PROBABILITIES, LABELS)
    recalls = sklearn.metrics.recall_score(LABELS, PROBABILITIES.argmax(axis=1), average=None, labels=[0, 1])
    np.testing.assert_allclose(class_accuracies(matrix), [*recalls, np.nan])
    assert class_accuracies(matrix)[0] == 0.25


def test_the_surest_mistakes_come_first_and_equals_in_their_order():
    found = confident_mistakes(PROBABILITIES, LABELS, most=3)
    assert [(one.index, one.label, one.answer) for one in found] == [(1, 0, 1), (3, 1, 2), (2, 0, 1)]
    assert (found[1].probability, found[1].probability_of_label) == (0.9, 0.05)
    assert len(confident_mistakes(PROBABILITIES, LABELS, most=99)) == 4
    assert confident_mistakes(PROBABILITIES, PROBABILITIES.argmax(axis=1), most=3) == []
    with pytest.raises(InputError, match="most"):
        confident_mistakes(PROBABILITIES, LABELS, most=-1)


def test_pairs_that_are_confused_most_come_first_and_right_answers_are_none():
    matrix = np.array([[90, 3, 0], [5, 1, 0], [0, 3, 7]])
    assert frequent_confusions(matrix, most=9) == [(1, 0, 5), (0, 1, 3), (2, 1, 3)]
    assert frequent_confusions(matrix, most=1) == [(1, 0, 5)]
