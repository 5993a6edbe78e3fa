import dataclasses
import json
import time

import keras
import numpy as np
import pytest

from divco_tf.errors import InputError
from divco_tf.models.sizes import count_multiply_adds, count_parameters
from divco_tf.models.summary import summarize
from tests import tiny
from tests.reference import load_json


@pytest.mark.parametrize("key", ["resnet110__cifar10__S4", "wide_resnet40_10__cifar100__S2"])
def test_totals_are_the_references(key):
    record = next(record for record in load_json("backbones.json")["records"] if record["key"] == key)
    summary = summarize(
        record["arch"],
        split_factor=record["split_factor"],
        num_classes=record["num_classes"],
        input_shape=(32, 32, 3),
    )
    assert summary.parameters == record["params_total"]
    assert summary.parameters_per_branch == record["params"]
    assert summary.multiply_adds == record["macs_total"]
    assert summary.multiply_adds_per_branch == record["macs_one_net"]
    dropout = record["regularisers"].get("dropout_modules", [[None, 0.0]])[0][1]
    assert summary.regularisation == {"dropout": dropout}


def test_a_summary_is_json():
    content = json.loads(json.dumps(dataclasses.asdict(summarize("tiny", num_classes=3, input_shape=(8, 8, 3)))))
    assert list(content) == [
        "backbone",
        "split_factor",
        "parameters",
        "parameters_per_branch",
        "multiply_adds",
        "multiply_adds_per_branch",
        "width",
        "regularisation",
        "of_budget",
    ]
    assert content["parameters"] == 3 * 3 * 3 * 8 + 2 * 8 + 8 * 3 + 3
    assert content["multiply_adds"] == 8 * 8 * 3 * 3 * 3 * 8 + 8 * 3


def test_multiply_adds_follow_the_image_and_parameters_do_not():
    small, large = (summarize("wide_resnet10_2", num_classes=10, input_shape=(size, size, 3)) for size in (16, 32))
    assert small.parameters == large.parameters
    head = 128 * 10
    assert large.multiply_adds - head == 4 * (small.multiply_adds - head)


def test_options_are_those_of_a_build():
    options = {"num_classes": 3, "input_shape": (8, 8, 3), "dropout": 0.4}
    assert summarize("tiny", split_factor=2, **options).regularisation == {"dropout": 0.2}
    assert summarize("tiny", split_factor=2, divide_regularisers=False, **options).regularisation == {"dropout": 0.4}


def test_copies_are_counted():
    one = summarize("tiny", num_classes=3, input_shape=(8, 8, 3))
    three = summarize("tiny", copies=3, num_classes=3, input_shape=(8, 8, 3))
    assert (three.split_factor, three.parameters, three.multiply_adds) == (3, 3 * one.parameters, 3 * one.multiply_adds)
    assert three.parameters_per_branch == one.parameters


def test_a_summary_counts_what_the_stack_has():
    stack = tiny.tiny_stack()
    summary = summarize("tiny", split_factor=2, num_classes=3, input_shape=(8, 8, 3))
    assert summary.parameters == count_parameters(stack) == 2 * count_parameters(stack.branch(0))
    assert summary.multiply_adds_per_branch == count_multiply_adds(stack.branch(0))


class Block(keras.layers.Layer):
    """A 1x1 convolution of 6 channels, called twice, a linear layer of 5 units, and one that is never called."""

    def __init__(self):
        super().__init__()
        self.conv, self.dense = keras.layers.Conv2D(6, 1, use_bias=False), keras.layers.Dense(5)
        self.unused = keras.layers.Dense(1000)

    def build(self, shape):
        self.conv.build((*shape[:-1], 6))
        self.dense.build((*shape[:-1], 6))

    def call(self, x):
        return self.dense(self.conv(self.conv(x)))


def test_each_call_of_a_layer_counts_wherever_it_stands():
    image = keras.Input((4, 4, 6))
    x = Block()(image)
    counted = 16 * (6 * 6 * 2 + 6 * 5)
    x = keras.Sequential([keras.layers.DepthwiseConv2D(3, strides=2), keras.layers.BatchNormalization()])(x)
    counted += 1 * 9 * 5
    x = keras.layers.SeparableConv2D(7, 3, padding="same")(x)
    counted += 9 * 5 + 5 * 7
    shared = keras.layers.Dense(7)
    x = shared(shared(x))
    counted += 2 * 7 * 7
    assert count_multiply_adds(keras.Model(image, x)) == counted
    model = keras.Model(image, keras.Model(image, x)(image))
    assert count_multiply_adds(model) == counted
    assert model(np.zeros((2, 4, 4, 6))).shape == (2, 1, 1, 7)


def test_a_network_of_gigabytes_is_summed_up_at_once():
    start = time.process_time()
    summary = summarize("wide_resnet28_100", num_classes=1000, input_shape=(224, 224, 3))
    assert summary.parameters > 3.5e9  # 14 GB, were they built
    assert time.process_time() - start < 5


@pytest.mark.parametrize("options", [{"num_classes": 1}, {"input_shape": (8,)}, {"split_factor": 0}, {"widht": 3}])
def test_bad_input_is_refused_in_one_line(options):
    with pytest.raises(InputError) as error:
        summarize("tiny", **{"num_classes": 3, "input_shape": (8, 8, 3), **options})
    assert tiny.one_line(error.value, says="Received")
