"""Losses against the reference's values and gradients, and their properties for any logits."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from divco_tf.errors import InputError
from divco_tf.training import losses
from divco_tf.training.losses import CoTraining
from tests.reference import load_json, load_npz

FACTS, ARRAYS = load_json("losses.json"), load_npz("losses.npz")
CASES = {case["tag"]: case for case in FACTS["cases"]}
STEPS = {case["tag"]: case for case in FACTS["end_to_end"]}
REFERENCE_ENSEMBLES = {
    "mean_logits": "ensemble_mean_before_softmax",
    "max_logits": "ensemble_max_before_softmax",
    "mean_probabilities": "ensemble_mean_after_softmax",
    "max_probabilities": "ensemble_max_after_softmax",
}
REFERENCE_LOSSES = {"js_divergence": "js", "kl_seperate": "kl"}
SIZES = (1.0, 30.0, 300.0, 60_000.0, 65_504.0)


def reference_case(tag):
    """Logits [B, S, K] in float64, one-hot labels [B, K] and the same mixed."""
    case = CASES[tag]
    logits = ARRAYS[f"{tag}/logits"].astype(np.float64).swapaxes(0, 1)
    labels = np.eye(case["K"])[ARRAYS[f"{tag}/target"]]
    mixed = case["lam"] * labels + (1 - case["lam"]) * labels[ARRAYS[f"{tag}/mixup_perm"]]
    return case, logits, labels, mixed


def any_logits(size, shape=None):
    shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 5)) if shape is None else shape
    return hnp.arrays(np.float32, shapes, elements=st.floats(-size, size, width=32))


@pytest.mark.parametrize("tag", CASES)
@pytest.mark.parametrize("kind", ["ce", "ls", "mixup_ce", "mixup_ls"])
def test_cross_entropy_of_every_branch_is_the_references(tag, kind):
    case, logits, labels, mixed = reference_case(tag)
    labels = mixed if kind.startswith("mixup") else labels
    labels = losses.smooth_labels(labels, 0.1 if kind.endswith("ls") else 0.0)
    per_branch = tf.reduce_mean(losses.cross_entropy(labels, logits), axis=0)
    np.testing.assert_allclose(per_branch, case[f"{kind}_per_net"], rtol=1e-12)
    np.testing.assert_allclose(tf.reduce_sum(per_branch), case[f"{kind}_sum"], rtol=1e-12)


@pytest.mark.parametrize("tag", CASES)
@pytest.mark.parametrize("loss", ["js", "kl"])
def test_cotraining_losses_are_the_references(tag, loss):
    case, logits, _, _ = reference_case(tag)
    value = float(tf.reduce_mean(losses.COTRAINING_LOSSES[loss](logits)))
    np.testing.assert_allclose(value, case[f"{loss}_weight1"], rtol=1e-12)
    ramp = CoTraining(loss=loss, weight=0.5, warmup_epochs=40)
    for epoch, key in [(10, "weight0.5_epoch10of40"), (40, "weight0.5_after_warmup")]:
        weight = float(ramp.weight_at(epoch, steps_per_epoch=1))
        np.testing.assert_allclose(weight * value, case[f"{loss}_{key}"], rtol=1e-12)


@pytest.mark.parametrize("tag", CASES)
@pytest.mark.parametrize("loss", ["js", "kl"])
@pytest.mark.parametrize("criterion", ["ce", "ls", "mixup_ce", "none"])
def test_gradients_with_respect_to_logits_are_the_references(tag, loss, criterion):
    _, logits, labels, mixed = reference_case(tag)
    labels = mixed if criterion == "mixup_ce" else losses.smooth_labels(labels, 0.1 if criterion == "ls" else 0.0)
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = 0.5 * tf.reduce_mean(losses.COTRAINING_LOSSES[loss](logits))
        if criterion != "none":
            total += tf.reduce_sum(tf.reduce_mean(losses.cross_entropy(labels, logits), axis=0))
    gradient = tape.gradient(total, logits).numpy().swapaxes(0, 1)
    np.testing.assert_allclose(gradient, ARRAYS[f"{tag}/grad_{criterion}+0.5{loss}"], atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("tag", CASES)
@pytest.mark.parametrize("method", REFERENCE_ENSEMBLES)
def test_ensembles_are_the_references(tag, method):
    _, logits, _, _ = reference_case(tag)
    expected = ARRAYS[f"{tag}/{REFERENCE_ENSEMBLES[method]}"]
    np.testing.assert_allclose(losses.ensemble(logits, method), expected, rtol=1e-6, atol=1e-9)


def reference_step(tag):
    """An end-to-end record: its arrays, and the views [B, S, 27] and labels [B, K] it trains and validates on.

    In validation every branch sees the same view.
    """
    case = STEPS[tag]
    arrays = {key.split("/")[1]: value for key, value in ARRAYS.items() if key.startswith(f"{tag}/")}
    x, labels = arrays["x"].astype(np.float64), np.eye(arrays["b"].shape[1])[arrays["target"]]

    def batch(x, labels):
        views = x.reshape(len(x), -1, 27)
        views = views if case["different_views"] else np.repeat(views, case["S"], axis=1)
        return views, losses.smooth_labels(labels, 0.1 if case["criterion"].startswith("label smoothing") else 0.0)

    def mixed(values):
        return case["lam"] * values + (1 - case["lam"]) * values[arrays["perm"]] if case["mixup"] else values

    one_view = np.tile(x[:, :3], [1, x.shape[1] // 3, 1, 1])
    return case, arrays, batch(mixed(x), mixed(labels)), batch(one_view, labels)


@pytest.mark.parametrize("tag", STEPS)
def test_a_whole_step_of_linear_networks_is_the_references(tag):
    case, arrays, (views, labels), _ = reference_step(tag)
    weights, bias = (tf.constant(arrays[name].astype(np.float64)) for name in "Wb")
    name = REFERENCE_LOSSES[case["cot_loss"]]
    ramp = CoTraining(name, weight=case["cot_weight"], warmup_epochs=case["warm_up_epochs"])
    with tf.GradientTape() as tape:
        tape.watch([weights, bias])
        logits = tf.einsum("bsi,ski->bsk", views, weights) + bias
        ce = tf.reduce_sum(tf.reduce_mean(losses.cross_entropy(labels, logits), axis=0))
        weight = tf.cast(ramp.weight_at(case["epoch"], steps_per_epoch=1), tf.float64)
        cotraining = weight * tf.reduce_mean(losses.COTRAINING_LOSSES[name](logits))
        total = ce + cotraining
    gradient_w, gradient_b = tape.gradient(total, [weights, bias])
    np.testing.assert_allclose(logits.numpy().swapaxes(0, 1), arrays["outputs"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses.ensemble(logits), arrays["ensemble"], rtol=1e-5, atol=1e-6)
    for value, key in [(ce, "ce_loss"), (cotraining, "cot_loss_value"), (total, "total")]:
        np.testing.assert_allclose(float(value), case[key], rtol=1e-6)
    np.testing.assert_allclose(gradient_w, arrays["grad_W"], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradient_b, arrays["grad_b"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("tag", STEPS)
def test_validation_of_linear_networks_is_the_references(tag):
    case, arrays, _, (views, labels) = reference_step(tag)
    logits = np.einsum("bsi,ski->bsk", views, arrays["W"].astype(np.float64)) + arrays["b"]
    np.testing.assert_allclose(losses.ensemble(logits), arrays["val_ensemble"], rtol=1e-5, atol=1e-6)
    ce = tf.reduce_sum(tf.reduce_mean(losses.cross_entropy(labels, logits), axis=0))
    np.testing.assert_allclose(float(ce), case["val_ce_loss"], rtol=1e-6)


@pytest.mark.parametrize("loss", ["js", "kl"])
def test_where_the_reference_turns_nan_we_give_the_right_value(loss):
    assert FACTS["underflow"]["js_gap200_both"] == "nan"
    logits = tf.constant([[[200.0, 200.0, 0.0], [200.0, 200.0, 0.0]]])
    value, gradient = value_and_gradient(losses.COTRAINING_LOSSES[loss], logits)
    np.testing.assert_allclose(value, FACTS["underflow"]["mathematically_correct_js_gap200_both"], atol=1e-6)
    np.testing.assert_allclose(gradient, np.zeros([1, 2, 3]), atol=1e-6)


def value_and_gradient(loss, logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(logits)
    return value.numpy(), tape.gradient(value, logits).numpy()


def test_no_cotraining_adds_nothing_to_the_loss():
    np.testing.assert_array_equal(losses.cotraining_loss("none")(tf.ones([3, 2, 5])), np.zeros([3]))
    with pytest.raises(InputError, match=r"Logits have the wrong shape or type\. Received: float32 \(3, 5\)"):
        losses.no_cotraining(tf.ones([3, 5]))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), size=st.sampled_from(SIZES), dtype=st.sampled_from([np.float16, np.float32, np.float64]))
def test_every_loss_and_ensemble_is_finite_with_finite_gradients(data, size, dtype):
    logits = data.draw(any_logits(size)).astype(dtype)
    logits.flat[0], logits.flat[-1] = size, -size
    labels = tf.one_hot(np.zeros(len(logits), int), logits.shape[2])
    functions = [losses.jensen_shannon, losses.pairwise_kl, lambda x: losses.cross_entropy(labels, x)]
    functions += [lambda x, m=method: losses.ensemble_probabilities(x, m) for method in losses.ENSEMBLING]
    for function in functions:
        value, gradient = value_and_gradient(function, logits)
        assert value.dtype == (np.float64 if dtype == np.float64 else np.float32)
        assert np.isfinite(value).all()
        assert gradient.dtype == dtype
        assert np.isfinite(gradient).all()


@settings(deadline=None, max_examples=60)
@given(data=st.data(), size=st.sampled_from(SIZES))
def test_jensen_shannon_lies_between_zero_and_log_s(data, size):
    logits = data.draw(any_logits(size))
    divergence = losses.jensen_shannon(logits).numpy()
    assert divergence.shape == (len(logits),)
    assert (divergence >= -1e-5).all()
    assert (divergence <= np.log(logits.shape[1]) + 1e-5).all()


def test_jensen_shannon_reaches_log_s_where_branches_exclude_each_other():
    logits = 65_504 * tf.eye(4)[tf.newaxis]
    np.testing.assert_allclose(losses.jensen_shannon(logits), [np.log(4)], rtol=1e-6)


@settings(deadline=None, max_examples=40)
@given(logits=any_logits(5.0, shape=(2, 4, 5)), loss=st.sampled_from(["js", "kl"]), shift=st.floats(-100, 100))
def test_divergence_is_zero_for_equal_predictions_and_only_for_them(logits, loss, shift):
    loss = losses.COTRAINING_LOSSES[loss]
    equal = np.repeat(logits[:, :1].astype(np.float64), 4, axis=1) + shift * np.arange(4)[:, None]
    np.testing.assert_allclose(loss(equal), np.zeros(2), atol=1e-11)
    different = equal.copy()
    different[:, 0, np.argmax(equal[:, 0], axis=-1)] -= 1.0
    assert (loss(different).numpy() > 1e-9).all()


@settings(deadline=None, max_examples=40)
@given(logits=any_logits(30.0), loss=st.sampled_from(["js", "kl"]), seed=st.integers(0, 99))
def test_divergence_does_not_depend_on_the_order_of_branches(logits, loss, seed):
    loss, order = losses.COTRAINING_LOSSES[loss], np.random.default_rng(seed).permutation(logits.shape[1])
    logits = logits.astype(np.float64)
    np.testing.assert_allclose(loss(logits), loss(logits[:, order]), rtol=1e-9, atol=1e-11)


@settings(deadline=None, max_examples=40)
@given(logits=any_logits(30.0))
def test_pairwise_kl_is_the_sum_over_ordered_pairs(logits):
    log_p = tf.nn.log_softmax(logits.astype(np.float64)).numpy()
    branches = logits.shape[1]
    pairs = [(i, j) for i in range(branches) for j in range(branches) if i != j]
    expected = sum((np.exp(log_p[:, j]) * (log_p[:, j] - log_p[:, i])).sum(-1) for i, j in pairs) / max(branches - 1, 1)
    result = losses.pairwise_kl(logits.astype(np.float64))
    np.testing.assert_allclose(result, np.broadcast_to(expected, len(logits)), atol=1e-11)


@pytest.mark.parametrize("loss", ["js", "kl"])
def test_one_branch_has_nobody_to_diverge_from(loss):
    value, gradient = value_and_gradient(losses.COTRAINING_LOSSES[loss], tf.random.stateless_normal([3, 1, 5], [1, 2]))
    np.testing.assert_allclose(value, np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(gradient, np.zeros([3, 1, 5]), atol=1e-6)


@pytest.mark.parametrize("loss", ["js", "kl"])
@pytest.mark.parametrize("jit", [False, True])
def test_losses_run_in_a_graph_of_unknown_shapes_and_under_xla(loss, jit):
    signature = [tf.TensorSpec([None, None, None], tf.float16)]

    @tf.function(input_signature=signature, jit_compile=jit)
    def traced(logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = losses.COTRAINING_LOSSES[loss](logits)
        return value, tape.gradient(value, logits)

    logits = np.array([[[65504, -65504, 0], [0, 65504, -65504]], [[1, 2, 3], [3, 2, 1]]], np.float16)
    for result, expected in zip(
        traced(logits), value_and_gradient(losses.COTRAINING_LOSSES[loss], logits), strict=True
    ):
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(logits=any_logits(60_000.0), method=st.sampled_from(sorted(losses.ENSEMBLING)))
def test_ensemble_probabilities_sum_to_one_and_predict_what_the_scores_do(logits, method):
    probabilities = losses.ensemble_probabilities(logits, method).numpy()
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, rtol=1e-5)
    # Ties of scores may break either way once they are rounded as probabilities.
    scores = losses.ensemble(logits, method).numpy()
    winner = scores.argmax(axis=-1)
    np.testing.assert_allclose(np.take_along_axis(probabilities, winner[:, None], 1)[:, 0], probabilities.max(axis=-1))


def test_geometric_mean_of_the_probabilities_is_another_name_for_mean_logits():
    logits = np.random.default_rng(1).normal(size=[5, 3, 4])
    mean = np.exp(np.log(tf.nn.softmax(logits)).mean(axis=1))
    expected = mean / mean.sum(axis=-1, keepdims=True)
    found = losses.ensemble_probabilities(logits, "geometric_mean")
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_array_equal(found, losses.ensemble_probabilities(logits, "mean_logits"))


def test_smoothing_gives_the_right_class_its_share_of_the_rest():
    np.testing.assert_allclose(losses.smooth_labels(tf.constant([[1.0, 0, 0, 0]]), 0.1), [[0.925, 0.025, 0.025, 0.025]])


@pytest.mark.parametrize("name", FACTS["warmup"]["table"])
def test_the_cotraining_weight_is_the_references(name):
    weight, warmup = (float(part[1:]) for part in name.split("_"))
    ramp = CoTraining(weight=weight, warmup_epochs=warmup)
    for epoch, expected in FACTS["warmup"]["table"][name].items():
        for step in (0, 6):  # constant inside an epoch
            result = ramp.weight_at(int(epoch) * 7 + step, steps_per_epoch=7)
            assert result.dtype == tf.float32
            np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_the_weight_may_ramp_at_every_step():
    ramp = CoTraining(weight=1.0, warmup_epochs=2, floor=0.1, per_step=True)
    weights = [float(ramp.weight_at(step, steps_per_epoch=4)) for step in range(10)]
    np.testing.assert_allclose(weights, [0.1, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 1])


def test_without_a_ramp_the_weight_is_constant_and_zero_stays_zero():
    assert float(CoTraining(weight=0.3).weight_at(0, steps_per_epoch=4)) == np.float32(0.3)
    assert float(CoTraining(weight=0.0, warmup_epochs=5).weight_at(0, steps_per_epoch=4)) == 0


def test_the_weight_follows_a_step_tensor_in_a_graph():
    ramp = CoTraining(warmup_epochs=10)
    traced = tf.function(lambda step: ramp.weight_at(step, steps_per_epoch=3))
    for step in range(0, 40, 3):
        assert float(traced(tf.constant(step))) == float(ramp.weight_at(step, steps_per_epoch=3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: losses.jensen_shannon(np.zeros([2, 3], np.float32)), r"Received: float32 \(2, 3\)"),
        (lambda: losses.pairwise_kl(np.zeros([2, 3, 4], np.int32)), "Received: int32"),
        (lambda: losses.cross_entropy(np.zeros([2, 5]), np.zeros([2, 3, 4])), r"labels \(2, 5\)"),
        (lambda: losses.cross_entropy(np.zeros(2, int), np.zeros([2, 3, 4])), r"labels \(2,\)"),
        (lambda: losses.smooth_labels(tf.constant([0, 1]), 0.1), "Received: int32"),
        (lambda: losses.smooth_labels(tf.constant([[0.0, 1.0]]), 1.0), "Received: 1.0"),
        (lambda: losses.ensemble(np.zeros([2, 3, 4]), "mean_logit"), "Did you mean mean_logits"),
        (lambda: losses.ensemble_probabilities(np.zeros([2, 4])), r"\(2, 4\)"),
        (lambda: CoTraining("jsd"), "Received: jsd"),
        (lambda: CoTraining(weight=-1), "weight"),
        (lambda: CoTraining(warmup_epochs=None), "Received: None"),
        (lambda: CoTraining(warmup_epochs=1e-5), "Received: 1e-05 epochs"),
        (lambda: CoTraining().weight_at(0, steps_per_epoch=1.5), "Received: 1.5"),
        (lambda: losses.cotraining_loss("jss"), "Received: jss. Did you mean|Received: jss. Available: js, kl"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
