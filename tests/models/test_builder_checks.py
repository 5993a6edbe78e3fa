"""What a builder says is in the stack, or is refused by name when it is built."""

import dataclasses
import threading
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models import builder_checks, layers
from divco_tf.models.backbones.registry import register_backbone
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.divide import by_split, divide, divided
from divco_tf.models.template import build_template
from tests import tiny
from tests.tiny import one_line


@dataclasses.dataclass(frozen=True)
class AnySpec:
    """A network of which a test says how it is built."""

    make: Callable[..., Any] = lambda image, classes: layers.classifier(image, classes)


@register_backbone("any", AnySpec())
def any_network(spec: AnySpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    return spec.make(image, num_classes)


def stack_of(make: Callable[..., Any], **options: Any) -> BranchStack:
    return build(spec=AnySpec(make), **{"copies": 2, "num_classes": 3, "input_shape": (8, 8, 3), **options})


def conv(image: Any, name: str = "conv", **options: Any) -> Any:
    return keras.layers.Conv2D(4, 3, padding="same", name=name, **options)(image)


class Drawing(keras.initializers.Initializer):
    """Asks TensorFlow's global generator."""

    def __call__(self, shape, dtype=None):
        return tf.random.normal(shape, dtype=dtype)

    def get_config(self):
        return {}


class Losing(keras.layers.Layer):
    def call(self, x):
        self.add_loss(tf.reduce_mean(x))
        return x


class LosingUncalled(Losing):
    """Keras does not call it to learn its output's shape."""

    def compute_output_shape(self, shape):
        return shape


def inner_model(channels: int) -> keras.Model:
    inside = keras.Input((8, 8, channels))
    return keras.Model(inside, conv(inside, name="c"))


DROPPED = {
    "regulariser": (lambda x: conv(x, kernel_regularizer="l2"), "conv/kernel has a regulariser"),
    "bias regulariser": (lambda x: conv(x, bias_regularizer="l1"), "conv/bias has a regulariser"),
    "constraint": (lambda x: conv(x, kernel_constraint="non_neg"), "conv/kernel has a constraint"),
    "of a norm": (
        lambda x: keras.layers.BatchNormalization(gamma_regularizer="l2", name="bn")(x),
        "bn/gamma has a regulariser",
    ),
    "activity": (lambda x: conv(x, activity_regularizer="l2"), "conv adds a loss"),
    "activity layer": (lambda x: keras.layers.ActivityRegularization(l2=1.0, name="act")(x), "act adds a loss"),
    "add_loss": (lambda x: Losing(name="losing")(x), "losing adds a loss"),
    "initializer": (lambda x: conv(x, kernel_initializer=Drawing()), "conv/kernel has an initializer"),
    "a function": (
        lambda x: conv(x, bias_initializer=lambda shape, dtype: np.random.random(shape)),
        "conv/bias has an initializer",
    ),
    "blocks": (lambda x: conv(x, name="stage.block0of2.conv"), "is called as a block of branches"),
    "a slash and a dot": (
        lambda x: conv(keras.Sequential([keras.layers.Conv2D(4, 3, name="b", padding="same")], name="a")(x), "a.b"),
        "have one name. Received: a.b.kernel",
    ),
    "two models": (lambda x: inner_model(4)(inner_model(3)(x)), "have one name. Received: c.kernel"),
}


@pytest.mark.parametrize("what", DROPPED)
def test_what_a_stack_drops_is_refused_by_name_when_it_is_built(what):
    features, says = DROPPED[what]
    add_loss = keras.Layer.add_loss
    with pytest.raises(InputError) as error:
        build_template(
            AnySpec(lambda image, classes: layers.classifier(features(image), classes)),
            num_classes=3,
            input_shape=(8, 8, 3),
        )
    assert one_line(error.value, says=says) and "any" in str(error.value)
    assert keras.Layer.add_loss is add_loss


def test_threads_that_build_at_once_leave_keras_as_it_was_and_do_not_bear_on_others():
    add_loss, entered, left = keras.Layer.add_loss, threading.Event(), threading.Event()

    def first() -> None:
        with builder_checks.no_losses("first"):
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10)
    layer = keras.layers.Identity()
    layer.add_loss(tf.constant(1.0))  # this thread does not build
    with builder_checks.no_losses("second"):
        left.set()
        thread.join()
        with pytest.raises(InputError, match="In the builder of second"):
            layer.add_loss(tf.constant(1.0))
    assert keras.Layer.add_loss is add_loss
    assert len(layer.losses) == 1


def test_a_loss_that_shows_in_the_call_only_is_refused_there():
    stack = stack_of(lambda image, classes: layers.classifier(LosingUncalled()(image), classes))
    with pytest.raises(InputError) as error:
        stack(tiny.batch(2)[0])
    assert one_line(error.value, says="A layer adds a loss")


def pooled(image: Any) -> Any:
    return keras.layers.GlobalAveragePooling2D()(image)


def whole_model(image: Any, classes: int) -> Any:
    inside = keras.Input(image.shape[1:])
    return keras.Model(inside, keras.layers.Dense(classes, activation="softmax")(pooled(inside)))(image)


HEADS = {
    "activation": lambda image, classes: keras.layers.Dense(classes, activation="softmax")(pooled(image)),
    "sigmoid": lambda image, classes: keras.layers.Dense(classes, activation="sigmoid")(pooled(image)),
    "layer": lambda image, classes: keras.layers.Softmax()(keras.layers.Dense(classes)(pooled(image))),
    "named": lambda image, classes: keras.layers.Activation("softmax")(keras.layers.Dense(classes)(pooled(image))),
    "function": lambda image, classes: keras.ops.softmax(keras.layers.Dense(classes)(pooled(image))),
    "reshaped": lambda image, classes: keras.layers.Reshape((classes,))(
        keras.layers.Softmax()(keras.layers.Dense(classes)(pooled(image)))
    ),
    "model": whole_model,
    "sequential": lambda image, classes: keras.Sequential(
        [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes, activation="softmax")]
    )(image),
}


@pytest.mark.parametrize("head", HEADS)
def test_probabilities_are_refused_where_logits_belong(head):
    with pytest.raises(InputError) as error:
        stack_of(HEADS[head])
    assert one_line(error.value, says="probabilities where the losses take logits")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda image, classes: [layers.classifier(image, classes)], "Received: list"),
        (lambda image, classes: None, "Received: NoneType"),
        (
            lambda image, classes: keras.Model(i := keras.Input((8, 8, 3)), layers.classifier(i, classes)),
            "Received: Functional",
        ),
        (lambda image, classes: layers.classifier(image, classes + 1), "Received: shape (None, 4)"),
        (lambda image, classes: conv(image), "Received: shape (None, 8, 8, 4)"),
        (lambda image, classes: keras.ops.argmax(keras.layers.Dense(classes)(image), axis=1)[:, 0], "Received: int32"),
        (lambda image, classes: keras.layers.Dense(classes, dtype="float16")(pooled(image)), "Received: float16"),
        (lambda image, classes: layers.classifier(keras.Input((8, 8, 3)), classes), "its image and draw alone"),
        (
            lambda image, classes: layers.classifier(keras.layers.Add()([image, keras.Input((8, 8, 3))]), classes),
            "its image and draw alone",
        ),
    ],
)
def test_what_is_no_logits_of_the_image_is_refused(make, says):
    with pytest.raises(InputError) as error:
        stack_of(make)
    assert one_line(error.value, says=says) and "any" in str(error.value)


def test_weights_that_a_builder_has_read_are_those_of_every_branch():
    kernel = np.random.default_rng(0).standard_normal((3, 3, 3, 4)).astype(np.float32)

    def pretrained(image: Any, classes: int) -> Any:
        inside = keras.Input(image.shape[1:])
        model = keras.Model(inside, layers.norm(conv(inside, use_bias=False), name="norm"), name="inner")
        model.set_weights([kernel, *(np.full(4, value, np.float32) for value in (2.0, 3.0, 4.0, 5.0))])
        return layers.classifier(model(image), classes)

    stack = stack_of(pretrained, precision="mixed_bfloat16")
    values = stack.stacked_values()
    for branch in range(2):
        np.testing.assert_array_equal(values["conv.kernel"][branch], kernel)
        np.testing.assert_array_equal(values["norm.moving_variance"][branch], np.full(4, 5.0))
    assert not np.array_equal(*values["fc.kernel"])  # the others are each branch's own
    np.testing.assert_array_equal(stack.branch(1).get_weights()[0], kernel)


def test_initializers_that_give_one_value_and_seeded_ones_stay():
    class Ramp(keras.initializers.Initializer):
        def __call__(self, shape, dtype=None):
            return tf.reshape(tf.range(np.prod(shape), dtype=dtype), shape)

    stack = stack_of(
        lambda image, classes: layers.classifier(
            conv(conv(image, kernel_initializer=Ramp()), name="two", kernel_initializer="he_normal"), classes
        )
    )
    values = stack.stacked_values()
    assert np.array_equal(*values["conv.kernel"]) and values["conv.kernel"].max() == 107
    assert not np.array_equal(*values["two.kernel"])


def test_builders_of_another_signature_are_refused_when_they_are_registered():
    with pytest.raises(InputError) as error:
        register_backbone("other", AnySpec())(lambda spec, image, num_classes: None)
    assert one_line(error.value, says="builder(spec, image, draw=draw, num_classes=K)")


@dataclasses.dataclass(frozen=True)
class HalfDividedSpec:
    width: int = 4
    dropout: float = divided(by_split, regulariser=True, default=0.5)


def test_full_networks_are_told_where_a_spec_does_not_say_how_it_divides():
    with pytest.warns(UserWarning, match=r"3 networks of full size. Received: split_factor=3; copies=3 says so"):
        assert divide(HalfDividedSpec(), 3) == HalfDividedSpec(dropout=0.5 / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert divide(HalfDividedSpec(), 1) == HalfDividedSpec()
        divide(tiny.TinySpec(), 2)
        stack_of(lambda image, classes: layers.classifier(image, classes))
