"""Labels and sample weights in every form that Keras's users have them in, and what is told of others."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.refusals import told_in_one_line
from divco_tf.runtime.strategy import make_strategy
from divco_tf.training.batch import as_probabilities, as_weights
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.optim.optimizer import SGD
from tests import tiny

CLASSES = np.array([0, 1, 2, 2])
ONE_HOT = np.eye(3, dtype=np.float32)[CLASSES]
SOFT = np.array([[0.7, 0.3, 0], [0, 1, 0], [0.2, 0.2, 0.6], [0, 0.5, 0.5]])
NO_CLASS, NO_ROW, NO_FIT = "A label is no class", "is no distribution over the classes", "Labels and logits do not fit"
PASS = "pass class numbers 0 to 2"


def in_graph(function, labels, shape=None):
    """`function` of labels whose shape a graph does not know."""
    labels = tf.convert_to_tensor(labels)
    with told_in_one_line():
        return tf.function(function, input_signature=[tf.TensorSpec(shape, labels.dtype)], autograph=False)(labels)


def probabilities(labels):
    return as_probabilities(labels, num_classes=3, examples=4)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (CLASSES, ONE_HOT),
        (CLASSES.tolist(), ONE_HOT),
        (CLASSES[:, None], ONE_HOT),
        (CLASSES.astype(np.int16), ONE_HOT),
        (CLASSES.astype(np.uint64), ONE_HOT),
        (CLASSES.astype(np.uint8)[:, None], ONE_HOT),
        (CLASSES > 1, np.eye(3)[[0, 0, 1, 1]]),
        (ONE_HOT, ONE_HOT),
        (ONE_HOT.astype(np.int32), ONE_HOT),
        (ONE_HOT.astype(bool), ONE_HOT),
        (SOFT, SOFT),
        (SOFT.astype(np.float16), SOFT.astype(np.float16)),
    ],
    ids=lambda value: str(getattr(value, "dtype", "list")),
)
def test_every_form_of_labels_becomes_probabilities(labels, expected):
    found = probabilities(labels)
    assert found.dtype == tf.float32 and found.shape == (4, 3)
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    np.testing.assert_array_equal(in_graph(probabilities, labels), expected.astype(np.float32))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (CLASSES + 1, f"{NO_CLASS}. Received: label 3 of K = 3 classes; {PASS}"),
        ((CLASSES + 1)[:, None], f"{NO_CLASS}. Received: label 3 of"),
        (np.array([0, -1, 1, 2], np.int8), f"{NO_CLASS}. Received: label -1 of"),
        (np.array([255] * 4, np.uint8), f"{NO_CLASS}. Received: label 255 of"),
        (np.array([100, 1, 2, 0]), f"{NO_CLASS}. Received: label 100 of"),
        (np.array([2**63 + 1] * 4, np.uint64), NO_CLASS),
        (np.array([[1, 1, 0]] * 4), f"{NO_ROW}. Received: row 1 1 0 where K = 3"),
        (0.9 * ONE_HOT, NO_ROW),
        (np.zeros((4, 3)), NO_ROW),
        (np.array([[1.5, -0.5, 0]] * 4), NO_ROW),
        (np.full((4, 3), np.nan), f"{NO_ROW}. Received: row nan"),
        (np.full((4, 3), np.inf), NO_ROW),
        (CLASSES + 0.5, "Class numbers are integers"),
        (CLASSES.astype(np.float32), "labels.astype('int32')"),
        (CLASSES[:, None] / 2, "Class numbers are integers"),
        (np.eye(4)[CLASSES], f"{NO_FIT}. Received: labels float64 (4, 4), K = 3"),
        (np.eye(2, dtype=int)[CLASSES // 2], NO_FIT),
        (CLASSES[:, None, None], NO_FIT),
        (np.int64(1), NO_FIT),
        (np.array(["cat", "dog", "cat", "cat"]), "Labels are no numbers"),
        (CLASSES.astype(object).astype(str).astype(object), "Labels are no numbers"),
        (CLASSES.astype(complex), "Labels are no numbers"),
        ({"a": CLASSES}, "Labels are no array of numbers"),
        ([[0], [1, 2]], "Labels are no array of numbers"),
        (None, "There are no labels"),
        (CLASSES[:3], "Labels do not fit the images. Received: sizes 3 4"),
        (SOFT[:3], "Labels do not fit the images"),
    ],
    ids=lambda value: "" if isinstance(value, str) else f"{getattr(value, 'dtype', value)}",
)
def test_other_labels_are_refused_in_one_line(labels, says):
    with pytest.raises(InputError) as error:
        probabilities(labels)
    assert tiny.one_line(error.value, says=says)
    if isinstance(labels, np.ndarray) and np.ndim(labels) and labels.dtype != object:
        with pytest.raises(InputError) as error:
            in_graph(probabilities, labels)
        assert tiny.one_line(error.value, says="; pass")


@pytest.mark.parametrize("shape", [[4, None], [None, None], [None, 3]])
def test_what_a_graph_knows_of_the_shape_changes_nothing(shape):
    np.testing.assert_array_equal(in_graph(probabilities, ONE_HOT.astype(int), shape), ONE_HOT)
    with pytest.raises(InputError, match=NO_ROW):
        in_graph(probabilities, 2 * ONE_HOT.astype(int), shape)


def test_one_class_is_a_row_of_one():
    found = as_probabilities(np.ones((4, 1), int), num_classes=1, examples=4)
    np.testing.assert_array_equal(found, np.ones((4, 1)))
    np.testing.assert_array_equal(as_probabilities(np.zeros(4, int), num_classes=1, examples=4), np.ones((4, 1)))


def test_an_empty_share_of_a_batch_has_labels():
    for labels in (CLASSES[:0], SOFT[:0]):
        assert as_probabilities(labels, num_classes=3, examples=0).shape == (0, 3)


@pytest.mark.parametrize("weights", [[1, 2, 0, 0.5], [[1], [2], [0], [0.5]]])
def test_sample_weights_are_a_row_or_a_column(weights):
    for dtype in (np.float32, np.float64):
        found = as_weights(np.array(weights, dtype), examples=4)
        assert found.dtype == tf.float32
        np.testing.assert_array_equal(found, [1, 2, 0, 0.5])
    np.testing.assert_array_equal(in_graph(lambda w: as_weights(w, examples=4), weights), [1, 2, 0, 0.5])
    assert as_weights(None, examples=4) is None


@pytest.mark.parametrize(
    "weights", [np.ones((4, 3)), np.ones(3), np.ones((4, 1, 1)), np.array(["1"] * 4), np.float32(1)]
)
def test_other_sample_weights_are_refused_in_one_line(weights):
    for shape in (weights.shape, None if weights.size != 4 else weights.shape):
        with pytest.raises(InputError) as error:
            in_graph(lambda w: as_weights(w, examples=tf.shape(CLASSES)[0]), weights, shape)
        assert tiny.one_line(error.value, says="pass one number an example, [B]")
    with pytest.raises(InputError, match="pass one number an example"):
        as_weights(weights, examples=4)


def compiled(strategy=None, compile_options=None, **options) -> CoTrainingModel:
    with contextlib.nullcontext() if strategy is None else make_strategy(strategy).scope():
        model = CoTrainingModel(tiny.lively(tiny.tiny_stack()), **options)
        model.compile(SGD(0.1, momentum=0.0), **(compile_options or {}))
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"micro_batches": 2},
        {"jit": "on"},
        {"strategy": "mirrored"},
        {"compile_options": {"run_eagerly": True}},
        {"compile_options": {"steps_per_execution": 2}},
    ],
    ids=str,
)
def test_a_label_that_is_no_class_ends_training_and_changes_nothing(options):
    model, views = compiled(**options), tiny.batch(4)[0]
    before = tiny.values(model.variables)
    with pytest.raises(InputError) as error:
        model.fit(views, CLASSES + 1, batch_size=4, verbose=0)
    assert tiny.one_line(error.value, says=f"{NO_CLASS}. Received: label 3 of K = 3 classes")
    assert tiny.largest_difference(before, tiny.values(model.variables)) == 0


def test_labels_are_checked_wherever_they_are_given():
    model, views = compiled(), tiny.batch(4)[0]
    for labels, says in (
        (np.full(4, -1), "label -1"),
        (CLASSES / 2, "Class numbers are integers"),
        (None, "no labels"),
    ):
        for call in (
            lambda labels=labels: model.fit(views, labels, verbose=0),
            lambda labels=labels: model.fit(views, CLASSES, validation_data=(views, labels), verbose=0),
            lambda labels=labels: model.evaluate(views, labels, verbose=0),
            lambda labels=labels: model.train_on_batch(views, labels),
            lambda labels=labels: model.test_on_batch(views, labels),
        ):
            with pytest.raises(InputError) as error:
                call()
            assert tiny.one_line(error.value, says=says)


def test_columns_of_weights_and_weights_of_classes_weigh_examples():
    views, weights = tiny.batch(4)[0], np.array([2.0, 1, 0.5, 0.5])
    model = compiled()
    expected = model.evaluate(views, CLASSES, sample_weight=weights, verbose=0, return_dict=True)
    again = model.evaluate(views, CLASSES[:, None], sample_weight=weights[:, None], verbose=0, return_dict=True)
    assert again == pytest.approx(expected, rel=1e-6)
    first = model.get_weights()
    fitted = []
    for labels, how in (
        (CLASSES, {"sample_weight": weights[:, None], "validation_data": (views, CLASSES, weights[:, None])}),
        (CLASSES[:, None], {"class_weight": {0: 2.0, 1: 1.0, 2: 0.5}}),
        (ONE_HOT, {"class_weight": {0: 2.0, 1: 1.0, 2: 0.5}}),
    ):
        model.set_weights(first)
        history = model.fit(views, labels, shuffle=False, verbose=0, **how).history
        fitted.append((history["loss"][0], tiny.values(model.stack.variables)))
    assert history["loss"] == pytest.approx([fitted[0][0]], rel=1e-6)
    assert max(tiny.largest_difference(fitted[0][1], other) for _, other in fitted) == 0


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ((tiny.batch(4)[0][0, 0], CLASSES[:1]), "Received: "),
        (([np.zeros((4, 8, 8, 3))] * 2, CLASSES), "Images are several arrays. Received: a list of 2"),
        (({"image": np.zeros((4, 8, 8, 3))}, CLASSES), "Images are several arrays. Received: a dict of 1"),
        ((np.zeros((4, 3, 8, 8, 3)), CLASSES), "Views do not fit the stack"),
    ],
    ids=["one image", "list", "dict", "three views"],
)
def test_images_that_are_no_batch_are_refused_in_one_line(data, says):
    with pytest.raises(InputError) as error:
        compiled().train_on_batch(*data)
    assert tiny.one_line(error.value, says=says)
    if isinstance(data[0], np.ndarray):
        return
    with pytest.raises(InputError, match="Images are several arrays"):
        compiled().predict(data[0], verbose=0)
