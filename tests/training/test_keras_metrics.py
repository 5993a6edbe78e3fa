"""Metrics given to `compile` see labels in the form that they take, whatever form the user's have."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.keras_metrics import EnsembleMetrics, Means
from divco_tf.training.optim.optimizer import SGD
from tests import tiny

M = keras.metrics
CLASSES = np.array([0, 1, 2, 2, 1, 0, 1, 2])
ONE_HOT = np.eye(3, dtype=np.float32)[CLASSES]
PREDICTED = np.random.default_rng(2).dirichlet([1, 1, 1], 8).astype(np.float32)
WEIGHTS = np.linspace(0.1, 2, 8).astype(np.float32)
FORMS = {
    "numbers": CLASSES,
    "column": CLASSES.astype(np.uint8)[:, None],
    "one-hot": ONE_HOT,
    "integer one-hot": ONE_HOT.astype(np.int32),
}


class SparseOfUser(M.SparseCategoricalAccuracy):
    """Keras's, derived."""


class Rank(M.Metric):
    """A user's own: the rank of the labels that it is given."""

    def __init__(self, name: str = "rank") -> None:
        super().__init__(name=name)
        self.rank = self.add_variable(shape=(), initializer="zeros", name="rank")

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        self.rank.assign(float(len(y_true.shape)))

    def result(self):
        return self.rank


def columns(y_true, y_pred):
    """A user's function."""
    return tf.cast(tf.shape(y_true)[-1] * tf.ones(8, tf.int32), tf.float32)


SPARSE = {
    "sparse_categorical_accuracy": M.SparseCategoricalAccuracy,
    "sparse_top_k_categorical_accuracy": lambda: M.SparseTopKCategoricalAccuracy(2),
    "sparse_categorical_crossentropy": M.SparseCategoricalCrossentropy,
    "theirs": lambda: SparseOfUser(name="theirs"),
    "wrapped": lambda: M.MeanMetricWrapper(keras.losses.sparse_categorical_crossentropy, name="wrapped"),
    "iou": lambda: M.MeanIoU(num_classes=3, sparse_y_pred=False, name="iou"),
}
DENSE = {
    "categorical_accuracy": M.CategoricalAccuracy,
    "top_k_categorical_accuracy": lambda: M.TopKCategoricalAccuracy(2),
    "categorical_crossentropy": M.CategoricalCrossentropy,
    "auc": lambda: M.AUC(name="auc"),
    "each_auc": lambda: M.AUC(name="each_auc", multi_label=True, num_labels=3),
    "f1": lambda: M.F1Score(average="macro", name="f1"),
    "precision": lambda: M.Precision(name="precision"),
    "kl_divergence": M.KLDivergence,
    "one_hot_iou": lambda: M.OneHotMeanIoU(num_classes=3, name="one_hot_iou"),
    "loss_object": lambda: M.MeanMetricWrapper(
        keras.losses.CategoricalCrossentropy(reduction=None), name="loss_object"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_metric_is_what_keras_makes_of_the_labels_that_it_takes(form):
    kinds = SPARSE | DENSE
    given = [*(make() for make in kinds.values()), "accuracy", "acc", "sparse_categorical_crossentropy", "mse"]
    weighted = [M.AUC(name="weighted_auc"), "accuracy", SparseOfUser(name="weighted_theirs")]
    metrics = EnsembleMetrics(Means.of_branches(2), given, weighted, num_classes=3)
    metrics.update_users(FORMS[form], tf.constant(ONE_HOT), PREDICTED, WEIGHTS)
    found = {name: float(value) for name, value in metrics.result().items()}
    for name, make in kinds.items():
        plain = make()
        plain.update_state(CLASSES if name in SPARSE else ONE_HOT, PREDICTED)
        assert found[name] == pytest.approx(float(plain.result()), rel=1e-6), name
    right = PREDICTED.argmax(1) == CLASSES
    assert found["accuracy"] == found["acc"] == pytest.approx(right.mean())
    assert found["weighted_accuracy"] == pytest.approx(np.average(right, weights=WEIGHTS), rel=1e-6)
    assert found["weighted_theirs"] == found["weighted_accuracy"]
    plain = M.AUC()
    plain.update_state(ONE_HOT, PREDICTED, WEIGHTS)
    assert found["weighted_auc"] == pytest.approx(float(plain.result()), rel=1e-6)
    assert found["mse"] == pytest.approx(np.mean((ONE_HOT - PREDICTED) ** 2), rel=1e-6)


@pytest.mark.parametrize(("form", "rank", "last"), [("numbers", 1, 8), ("column", 2, 1), ("one-hot", 2, 3)])
def test_what_a_user_wrote_is_given_the_users_labels(form, rank, last):
    metrics = EnsembleMetrics(Means.of_branches(1), [Rank(), columns], None, num_classes=3)
    metrics.update_users(tf.constant(FORMS[form]), ONE_HOT, PREDICTED, None)
    assert float(metrics.result()["rank"]) == rank
    assert float(metrics.result()["columns"]) == last


def compiled(**options) -> CoTrainingModel:
    model = CoTrainingModel(tiny.lively(tiny.tiny_stack()))
    model.compile(SGD(0.1), **options)
    return model


def test_lists_begin_with_the_loss_and_follow_the_names():
    views, _ = tiny.batch()
    model = compiled(metrics=["accuracy", "acc", M.AUC(name="auc")], weighted_metrics=["accuracy"])
    names = ["loss", "cross_entropy", "cotraining", "accuracy", "branch0_accuracy", "branch1_accuracy"]
    expected = [*names, "acc", "auc", "weighted_accuracy"]
    assert model.metrics_names == expected
    evaluated = model.evaluate(views, CLASSES, verbose=0, return_dict=True)
    assert sorted(evaluated) == sorted(expected)
    for values in (model.evaluate(views, CLASSES, verbose=0), model.test_on_batch(views, ONE_HOT)):
        assert dict(zip(expected, values, strict=True)) == pytest.approx(evaluated, rel=1e-5)
    trained = model.train_on_batch(views, CLASSES)
    assert len(trained) == len(expected) and trained[0] == pytest.approx(trained[1] + trained[2], rel=1e-6)
    assert CoTrainingModel(tiny.tiny_stack()).metrics_names == names


def test_labels_of_validation_may_have_another_form():
    views, _ = tiny.batch()
    model = compiled(metrics=["accuracy", M.CategoricalAccuracy(), M.SparseCategoricalAccuracy()])
    history = model.fit(views, CLASSES, validation_data=(views, ONE_HOT), verbose=0).history
    right = np.mean(model.predict(views, verbose=0).argmax(1) == CLASSES)
    names = ("val_accuracy", "val_categorical_accuracy", "val_sparse_categorical_accuracy")
    assert [history[name][0] for name in names] == [pytest.approx(right)] * 3


def test_a_name_of_the_models_own_is_refused_and_metrics_are_given_anew():
    model = compiled(metrics=["acc"])
    with pytest.raises(InputError) as error:
        model.compile(SGD(0.1), metrics=[M.Mean(name="cotraining")])
    assert tiny.one_line(error.value, says="'cotraining'; another name would do")
    model.compile(SGD(0.1))
    assert "acc" not in model.metrics_names


def test_means_are_of_float32_whatever_keras_settings():
    before = keras.config.floatx(), keras.config.dtype_policy()
    try:
        keras.config.set_floatx("float16")
        keras.config.set_dtype_policy("mixed_float16")
        model = compiled()
        assert {variable.dtype for variable in model.means.variables} == {"float32"}
        assert {variable.dtype for variable in model.optimizer.variables[2:]} == {"float32"}  # the slots
        assert not isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        views = tiny.batch()[0]
        model.train_on_batch(views.astype(np.float16), CLASSES)
        model.means.total.assign(70_000 * np.ones(6))  # beyond float16
        model.means.count.assign(70_000.0)
        assert float(model.means.result()["accuracy"]) == 1
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
