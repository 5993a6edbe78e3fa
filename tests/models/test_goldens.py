"""Every network of the paper beside the authors': sizes, settings, logits, decayed parameters."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.models import layers
from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.models.division import branch_spec
from divco_tf.models.layers import GroupedConv2D, basic
from divco_tf.models.template import build_template
from divco_tf.training.optim.optimizer import OptimizerConfig
from tests.models import goldens
from tests.models.goldens import RECORDS, TOLERANCE, backbone_name, golden_difference, golden_logits, single_branch
from tests.reference import load_json

FAST = 3_000_000  # parameters of one network; larger ones are in the slow selection
QUICK = (32, 75)  # pixels a side of the quick resolutions


@pytest.fixture
def frugal():
    with goldens.frugally():
        yield


def cases(*, quick: bool) -> list:
    """(record, golden or None) at the quick resolution or at the default one; None where the logits are held back."""
    chosen = []
    for key, record in RECORDS.items():
        if backbone_name(record) not in BACKBONES.names():
            continue
        sized = [golden for golden in record["golden"] if quick == (golden["input_hw"] in QUICK)]
        if quick and not record["golden"]:
            sized = [None]
        slow = [] if quick and record["params"] <= FAST else [pytest.mark.slow]
        chosen += [pytest.param(record, golden, id=golden["key"] if golden else key, marks=slow) for golden in sized]
    return chosen


@pytest.mark.parametrize(("record", "golden"), cases(quick=True))
def test_logits_and_facts_are_the_references(record, golden, frugal):
    template = check_logits(record, golden) if golden else None
    name, side = backbone_name(record), record["input_size"]
    spec = branch_spec(name, split_factor=record["split_factor"])
    if template is None or golden["input_hw"] != side:
        template = build_template(spec, num_classes=record["num_classes"], input_shape=(side, side, 3))
    goldens.check_sizes(template, spec, record)
    goldens.check_norms(template, record)
    goldens.check_regularisers(template, record)
    goldens.check_names(template, spec, record)


@pytest.mark.parametrize(("record", "golden"), cases(quick=False))
def test_logits_at_the_default_resolution_are_the_references(record, golden, frugal):
    check_logits(record, golden)


def check_logits(record, golden) -> keras.Model:
    name, split_factor = backbone_name(record), record["split_factor"]
    stack = single_branch(name, split_factor, record["num_classes"], golden["input_hw"])
    difference = golden_difference(golden_logits(stack, golden["norm_scale_lo"]), golden)
    print(f"golden {golden['key']} {difference:.3g}")  # shown by pytest -rP
    assert difference < TOLERANCE
    return stack.network.template


@pytest.mark.parametrize("decay_norm_scales", [True, False])
@pytest.mark.parametrize(
    "key",
    [
        "resnet110__cifar100__S4",
        "wide_resnet16_8__cifar10__S8",
        "se_resnet110__cifar10__S4",
        "efficientnetb0__cifar10__S4",
    ],
)
def test_decayed_parameters_are_the_references(key, decay_norm_scales, frugal):
    record = RECORDS[key]
    stack = single_branch(backbone_name(record), record["split_factor"], record["num_classes"])
    optimizer = OptimizerConfig(weight_decay=1e-4, decay_norm_scales=decay_norm_scales).build(0.1)
    optimizer.build(stack.trainable_variables)
    sizes = [int(np.prod(variable.shape)) for variable in stack.trainable_variables]
    decayed = sum(sizes[index] for index in optimizer._decayed)
    groups = record["weight_decay_groups"]
    scales = sum(sizes[i] for i, variable in enumerate(stack.trainable_variables) if variable.name.endswith("gamma"))
    theirs = groups["bn_scale_elems_decayed"]
    assert theirs in (0, scales)
    change = (scales if decay_norm_scales else 0) - theirs
    assert decayed == groups["decayed_elems"] + change
    assert sum(sizes) - decayed == groups["no_decay_elems"] - change


def kerass_epsilon(monkeypatch):
    norm = basic.norm
    monkeypatch.setattr(basic, "norm", lambda x, **options: norm(x, **{**options, "epsilon": 1e-3}))


def same_padding_of_strides(monkeypatch):
    conv, padding = basic.conv, keras.layers.ZeroPadding2D

    def pad_as_tensorflow(margin, **options):
        def pad(x):
            totals = [2 * margin - (side % 2 == 0) for side in x.shape[1:3]]
            return padding([(total // 2, total - total // 2) for total in totals], **options)(x)

        return pad

    def padded_otherwise(*args, **options):
        with monkeypatch.context() as inner:
            inner.setattr(keras.layers, "ZeroPadding2D", pad_as_tensorflow)
            return conv(*args, **options)

    monkeypatch.setattr(basic, "conv", padded_otherwise)


def no_shortcut_pool(monkeypatch):
    def shortcut(x, filters, *, name, stride=1, pool=True):
        first = 1 if stride > 1 else 0
        x = basic.conv(x, filters, 1, stride=stride, name=f"{name}.{first}")
        return basic.norm(x, name=f"{name}.{first + 1}")

    monkeypatch.setattr(basic, "shortcut", shortcut)


def interleaved_groups(monkeypatch):
    class Interleaved(GroupedConv2D):
        def call(self, inputs):
            outputs = super().call(inputs)
            groups = tf.reshape(outputs, [-1, *outputs.shape[1:3], self.groups, outputs.shape[3] // self.groups])
            return tf.reshape(tf.transpose(groups, [0, 1, 2, 4, 3]), tf.shape(outputs))

    monkeypatch.setattr(basic, "GroupedConv2D", Interleaved)


def the_other_max_pool(monkeypatch):
    max_pool = basic.max_pool

    def other(x, *, name, ceil_mode=False):
        return max_pool(x, name=name, ceil_mode=not ceil_mode)

    monkeypatch.setattr(layers, "max_pool", other)


def hard_sigmoid(monkeypatch):
    activation = keras.layers.Activation

    def harder(kind, **options):
        return activation({"sigmoid": "hard_sigmoid"}.get(kind, kind), **options)

    monkeypatch.setattr(keras.layers, "Activation", harder)


# (mistake, its name in discrimination.json, the record of a small network)
MISTAKES = [
    (kerass_epsilon, "bn_eps", "wide_resnet16_8__cifar10__S8"),
    (kerass_epsilon, "bn_eps", "resnet50__imagenet__S8"),
    (same_padding_of_strides, "tf_same_pad_on_stride2_convs", "wide_resnet16_8__cifar10__S8"),
    (same_padding_of_strides, "tf_same_pad_on_stride2_convs", "resnet50__imagenet__S8"),
    (same_padding_of_strides, "tf_same_pad_on_stride2_convs", "se_resnet110__cifar10__S4"),
    (no_shortcut_pool, None, "wide_resnet16_8__cifar10__S8"),
    (no_shortcut_pool, None, "se_resnet50__imagenet__S8"),
    (interleaved_groups, "grouped_conv_output_interleaved", "resnext29_8x64d__cifar10__S4"),
    (interleaved_groups, "grouped_conv_output_interleaved", "resnext50_32x4d__imagenet__S8"),
    (the_other_max_pool, "maxpool_pad_vs_ceil", "resnet50__imagenet__S8"),
    (the_other_max_pool, "maxpool_pad_vs_ceil", "se_resnet50__imagenet__S8"),
    (hard_sigmoid, "se_sigmoid_to_hardsigmoid", "se_resnet110__cifar10__S4"),
    (hard_sigmoid, "se_sigmoid_to_hardsigmoid", "se_resnet50__imagenet__S8"),
]


@pytest.mark.parametrize(("mistake", "effect", "key"), MISTAKES)
def test_a_porting_mistake_moves_the_logits_as_in_the_reference(mistake, effect, key, monkeypatch, frugal):
    mistake(monkeypatch)
    record = RECORDS[key]
    golden = next(golden for golden in record["golden"] if golden["input_hw"] in QUICK)
    name, split_factor = backbone_name(record), record["split_factor"]
    stack = single_branch(name, split_factor, record["num_classes"], golden["input_hw"])
    moved = golden_difference(golden_logits(stack, golden["norm_scale_lo"]), golden)
    print(f"mistake {mistake.__name__} {key} {moved:.3g}")  # shown by pytest -rP
    assert moved > 10 * TOLERANCE
    if effect:  # measured on the large network of the family
        recorded = load_json("discrimination.json")["per_net"][key.rsplit("__", 1)[0]][effect]
        assert recorded / 10 < moved < recorded * 10
