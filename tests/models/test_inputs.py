"""Views of another shape are refused in one line, in every way in which a stack is called."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.branch_stack import BranchStack
from tests import tiny
from tests.tiny import tiny_stack

# Three views for two branches, one image, other channels, as many numbers in another shape, too few dimensions.
SHAPES = [(4, 3, 8, 8, 3), (8, 8, 3), (4, 8, 8, 1), (4, 16, 4, 3), (4, 2, 16, 4, 3), (4, 2, 8, 8), (3,)]


@pytest.fixture(scope="module")
def stack() -> BranchStack:
    """Keras has relaxed the shapes of its function, so that nothing is known while tracing."""
    stack = tiny_stack()
    stack.compile(loss=lambda labels, logits: tf.reduce_sum(logits))
    for views in (np.zeros((4, 2, 8, 8, 3), np.float32), np.zeros((4, 8, 8, 3), np.float32)):
        stack.predict(views, verbose=0)
    return stack


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("way", ["__call__", "predict_on_batch", "predict", "fit", "evaluate"])
def test_other_views_are_refused_in_one_line(stack, shape, way):
    views, options = np.zeros(shape, np.float32), {} if way in ("__call__", "predict_on_batch") else {"verbose": 0}
    labels = [np.zeros(shape[:1], np.float32)] if way in ("fit", "evaluate") else []
    before = tiny.values(stack.variables)
    with pytest.raises(InputError) as error:
        getattr(stack, way)(views, *labels, **options)
    assert tiny.one_line(error.value, says="pass [B, 2, 8, 8, 3] or [B, 8, 8, 3]")
    assert str(error.value).startswith("Views do not fit the stack. Received: shape (")
    assert tiny.largest_difference(tiny.values(stack.variables), before) == 0


def test_views_of_unknown_size_are_looked_at_when_they_come(stack):
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])], autograph=False)
    def logits(images):
        return stack(images)

    images = tiny.batch(3)[0][:, 0]
    np.testing.assert_allclose(logits(images), stack(images), rtol=1e-6)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Received: shape .3, 16, 4, 3."):
        logits(np.zeros((3, 16, 4, 3), np.float32))


def test_a_functional_model_around_a_stack_is_refused_when_it_is_made(stack):
    with pytest.raises(InputError, match="Received: shape .None, 3, 8, 8, 3.") as error:
        stack(keras.Input((3, 8, 8, 3)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [0, None])
def test_an_empty_batch_moves_no_statistics(size):
    stack = tiny_stack(dropout=0.2)
    before = tiny.values(stack.variables)
    call = tf.function(
        lambda views: stack(views, training=True),
        input_signature=[tf.TensorSpec([size, 2, 8, 8, 3])],
        autograph=False,
    )
    assert call(np.zeros((0, 2, 8, 8, 3), np.float32)).shape == (0, 2, 3)
    assert tiny.largest_difference(tiny.values(stack.variables), before) == 0
    if size is None:
        call(tiny.batch(4)[0])
        assert tiny.largest_difference(tiny.values(stack.variables), before) > 0


LEVELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3))


@pytest.mark.parametrize("kind", ["integers", "floats", "tensor"])
def test_levels_that_were_not_normalised_are_warned_of(kind):
    kinds = {"integers": LEVELS, "floats": LEVELS.astype(np.float32), "tensor": tf.constant(LEVELS, tf.float32)}
    calls = tiny_stack().predict_on_batch if kind == "integers" else tiny_stack()
    with pytest.warns(UserWarning, match=r"Views look like pixels in 0\.\.255.*Received: 0 to 255; Preprocessing"):
        calls(kinds[kind])


def test_shares_are_warned_of_where_normalisation_is_known_and_normalised_pixels_never():
    shares, stack = (LEVELS / 255).astype(np.float32), tiny_stack()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack(shares)
        stack.pixel_range = (-2.4, 2.7)
        for normalised in (5.1 * shares - 2.4, np.zeros_like(shares), 255 * shares - 128):
            stack(normalised)
        stack.predict(tf.data.Dataset.from_tensors(shares), verbose=0)
        tf.function(stack)(tf.constant(shares))
    with pytest.warns(UserWarning, match=r"pixels in 0\.\.1,.*divco_tf.Classifier does it inside"):
        stack.predict(shares, verbose=0)
    stack.pixel_range = (0.0, 1.0)  # of a run that was trained so
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack(shares)
