"""Diversity against scikit-learn, against counts of one pair, and by what must and must not change it."""

import numpy as np
import pytest
import scipy.spatial.distance
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.analysis import diversity
from divco_tf.errors import InputError
from divco_tf.training import metrics
from tests.analysis import random_predictions

SEEDS = st.integers(0, 10_000)
quickly = settings(deadline=None, max_examples=30)


def random_branches(seed, *shape):
    logs, labels = random_predictions.branches(seed, *shape)
    return np.exp(logs), labels


def certain(classes, num_classes=3):
    """Branches [N, S, K] that are certain of these classes [N, S]."""
    return np.eye(num_classes)[np.asarray(classes)]


@quickly
@given(seed=SEEDS, num_branches=st.integers(1, 4))
def test_disagreement_is_the_hamming_distance_of_the_classes(seed, num_branches):
    branches, _ = random_branches(seed, 20, num_branches, 3)
    classes = branches.argmax(axis=2).T
    expected = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(classes, "hamming"))
    np.testing.assert_allclose(diversity.pairwise_disagreement(branches), expected, atol=1e-15)


@quickly
@given(seed=SEEDS)
def test_divergence_is_scipys_squared_distance(seed):
    branches, _ = random_branches(seed, 8, 3, 4)
    divergence = diversity.pairwise_divergence(branches)
    for i in range(3):
        for j in range(3):
            distance = scipy.spatial.distance.jensenshannon(branches[:, i], branches[:, j], axis=1)
            assert divergence[i, j] == pytest.approx(np.mean(distance**2), abs=1e-13)


def test_divergence_of_two_branches_is_their_disagreement_of_training_and_at_most_log_2():
    branches, _ = random_branches(0, 30, 2, 4)
    assert diversity.pairwise_divergence(branches)[0, 1] == pytest.approx(metrics.disagreement(branches).mean())
    assert diversity.pairwise_divergence(certain([[0, 1]]))[1, 0] == pytest.approx(np.log(2))


@quickly
@given(seed=SEEDS)
def test_error_correlation_is_scikit_learns_matthews_coefficient(seed):
    branches, labels = random_branches(seed, 15, 3, 3)
    right = branches.argmax(axis=2) == labels[:, np.newaxis]
    correlation = diversity.error_correlation(branches, labels)
    for i in range(3):
        for j in range(3):
            if 0 < right[:, i].sum() < 15 and 0 < right[:, j].sum() < 15:
                expected = sklearn.metrics.matthews_corrcoef(right[:, i], right[:, j])
                assert correlation[i, j] == pytest.approx(expected, abs=1e-13)


@quickly
@given(seed=SEEDS)
def test_q_statistic_is_its_definition(seed):
    branches, labels = random_branches(seed, 15, 3, 3)
    right = branches.argmax(axis=2) == labels[:, np.newaxis]
    q = diversity.q_statistic(branches, labels)
    for i in range(3):
        for j in range(3):
            (n00, n01), (n10, n11) = sklearn.metrics.confusion_matrix(right[:, i], right[:, j], labels=[False, True])
            if n11 * n00 + n01 * n10:
                assert q[i, j] == pytest.approx((n11 * n00 - n01 * n10) / (n11 * n00 + n01 * n10), abs=1e-13)


@pytest.mark.parametrize("measure", [diversity.q_statistic, diversity.error_correlation])
def test_branches_that_are_always_right_or_never_are_associated_with_their_equals_only(measure):
    # Branches 0 and 1 are always right, 2 never is, 3 is once; 4 is when 3 is not.
    branches = certain([[0, 0, 1, 0, 1], [1, 1, 0, 2, 1]])
    expected = np.eye(5)
    expected[0, 1] = expected[1, 0] = 1
    expected[3, 4] = expected[4, 3] = -1
    np.testing.assert_array_equal(measure(branches, [0, 1]), expected)


def test_mean_over_pairs_leaves_out_the_diagonal_unless_there_is_nothing_else():
    assert diversity.mean_over_pairs([[9.0, 1.0, 2.0], [1.0, 9.0, 3.0], [2.0, 3.0, 9.0]]) == 2
    assert diversity.mean_over_pairs([[1.0]]) == 1


@quickly
@given(seed=SEEDS, num_branches=st.integers(1, 4))
def test_ambiguity_is_members_minus_ensemble_and_classes_add_up(seed, num_branches):
    branches, labels = random_branches(seed, 30, num_branches, 4)
    ensemble = branches.mean(axis=1)
    gain = diversity.ambiguity(branches, labels)
    errors = [1 - sklearn.metrics.accuracy_score(labels, branches[:, i].argmax(axis=1)) for i in range(num_branches)]
    losses = [sklearn.metrics.log_loss(labels, branches[:, i], labels=range(4)) for i in range(num_branches)]
    error = 1 - sklearn.metrics.accuracy_score(labels, ensemble.argmax(axis=1))
    loss = sklearn.metrics.log_loss(labels, ensemble, labels=range(4))
    assert gain.error == pytest.approx(np.mean(errors) - error, abs=1e-12)
    assert gain.negative_log_likelihood == pytest.approx(np.mean(losses) - loss, abs=1e-12)
    shares = np.bincount(labels, minlength=4) / 30
    assert shares @ gain.error_by_class == pytest.approx(gain.error, abs=1e-12)
    assert shares @ gain.negative_log_likelihood_by_class == pytest.approx(gain.negative_log_likelihood, abs=1e-12)


@quickly
@given(seed=SEEDS, scale=st.floats(0.1, 4), mean_logits=st.booleans())
def test_averaging_never_raises_the_likelihood_loss(seed, scale, mean_logits):
    logs, labels = random_predictions.branches(seed, 20, 3, 4)
    branches = np.exp(scale * logs)
    branches /= branches.sum(axis=2, keepdims=True)
    assert branches.min() > metrics.SMALLEST_PROBABILITY
    ensemble = branches.mean(axis=1)
    if mean_logits:
        ensemble = np.exp(scale * logs.mean(axis=1))
        ensemble /= ensemble.sum(axis=1, keepdims=True)
    gain = diversity.ambiguity(branches, labels, ensemble=ensemble)
    assert gain.negative_log_likelihood_by_class.min() >= -1e-12


def test_ambiguity_by_hand_with_a_class_of_no_image():
    # Class 0: both branches right. Class 1: one is right, and the ensemble with it. Class 2 has no image.
    branches = np.array([[[0.8, 0.2, 0.0], [0.6, 0.4, 0.0]], [[0.6, 0.4, 0.0], [0.1, 0.9, 0.0]]])
    gain = diversity.ambiguity(branches, [0, 1])
    np.testing.assert_allclose(gain.error_by_class, [0, 0.5, 0])
    by_class = [np.log(0.7) - np.log(0.8 * 0.6) / 2, np.log(0.65) - np.log(0.4 * 0.9) / 2, 0]
    np.testing.assert_allclose(gain.negative_log_likelihood_by_class, by_class)


def test_cka_is_that_of_centred_gram_matrices():
    # HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with HSIC = tr(K H L H), as arXiv 1905.00414 defines it in section 3.
    centring = np.eye(20) - 1 / 20

    def hsic(a, b):
        return np.trace(a @ a.T @ centring @ b @ b.T @ centring)

    rng = np.random.default_rng(0)
    for widths in [(3, 5), (30, 5), (30, 40)]:
        x, y = (rng.normal(size=(20, width)) + 3 for width in widths)
        y[:, :3] += 2 * x[:, :3]
        expected = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
        assert diversity.linear_cka([x, y])[0, 1] == pytest.approx(expected, abs=1e-13)


@quickly
@given(seed=SEEDS, scale=st.sampled_from([1e-200, 1e-3, -2.0, 1e200]))
def test_cka_does_not_change_with_rotation_shift_and_scale_but_with_stretching(seed, scale):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 15, 4))
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    expected = diversity.linear_cka([x, y])[0, 1]
    assert 0 < expected < 1
    assert diversity.linear_cka([(x @ rotation + rng.normal(size=4)) * scale, y])[0, 1] == pytest.approx(expected)
    np.testing.assert_allclose(diversity.linear_cka([x, x @ rotation * scale]), np.ones([2, 2]))
    assert diversity.linear_cka([x, x * [1, 1, 1, 9]])[0, 1] < 0.99


def test_cka_of_orthogonal_and_of_constant_features_is_0():
    x = np.array([[1.0], [-1.0], [1.0], [-1.0], [0.0], [0.0]])
    y = np.array([[1.0], [1.0], [-1.0], [-1.0], [0.0], [0.0]])
    constant = np.tile([0.1, 1.0], [6, 1])  # the mean of six times 0.1 is not 0.1
    np.testing.assert_allclose(diversity.linear_cka([x, y, constant, -constant]), np.eye(4), atol=1e-15)
    np.testing.assert_array_equal(diversity.linear_cka(np.stack([constant])), [[1]])


def test_branches_that_are_nearly_one_network_have_collapsed():
    apart, labels = random_predictions.branches(0, 500, 4, 5, common=0.5)
    one, _ = random_predictions.branches(0, 500, 1, 5)
    noise = np.random.default_rng(0).normal(size=apart.shape)
    assert not diversity.collapsed(np.exp(apart), labels)
    assert diversity.collapsed(np.repeat(np.exp(one), 4, axis=1), labels)
    nearly = np.exp(one + 0.01 * noise)
    assert diversity.collapsed(nearly / nearly.sum(axis=2, keepdims=True), labels)
    assert not diversity.collapsed(np.exp(one), labels)


def test_collapse_of_branches_that_never_err_is_told_by_their_probabilities():
    alike = np.tile([0.7, 0.2, 0.1], [6, 2, 1])
    differing = alike.copy()
    differing[:, 1] = [0.98, 0.01, 0.01]
    assert diversity.collapsed(alike, np.zeros(6, int))
    assert not diversity.collapsed(differing, np.zeros(6, int))
    assert diversity.collapsed(certain(np.zeros([6, 2], int)), np.zeros(6, int))


def test_collapse_needs_both_decisions_and_probabilities_alike():
    # Decisions that differ by a hair: much disagreement (1/2 beside errors of 3/4), hardly any divergence.
    branches = np.array([[[0.51, 0.49], [0.49, 0.51]], [[0.51, 0.49], [0.51, 0.49]]])
    assert not diversity.collapsed(branches, [0, 1])
    assert diversity.collapsed(branches, [0, 1], threshold=0.99)


BRANCHES, LABELS = np.full([2, 3, 4], 0.25), np.array([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diversity.pairwise_disagreement(BRANCHES[0]), r"\[N, S, K\]"),
        (lambda: diversity.pairwise_divergence(BRANCHES - 1), "outside 0..1"),
        (lambda: diversity.q_statistic(BRANCHES, [0, 4]), "from 0 to 3"),
        (lambda: diversity.error_correlation(BRANCHES, [0]), r"labels int64 \[1\]"),
        (lambda: diversity.mean_over_pairs([[1.0, 2.0]]), r"\[1, 2\]"),
        (lambda: diversity.mean_over_pairs(np.zeros([0, 0])), r"\[0, 0\]"),
        (lambda: diversity.ambiguity(BRANCHES, LABELS, ensemble=BRANCHES[:, 0, :2]), "branches do not fit"),
        (lambda: diversity.linear_cka([np.ones([3, 2]), np.ones([4, 2])]), r"Received: \[3, 4\] images"),
        (lambda: diversity.linear_cka([]), r"Received: \[\] images"),
        (lambda: diversity.linear_cka([[1.0, 2.0]]), r"Received: float64 \[2\]"),
        (lambda: diversity.linear_cka([[[np.inf]]]), "not finite"),
        (lambda: diversity.collapsed(BRANCHES, LABELS, threshold=2), "threshold is out of range"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
