"""Every network of the paper beside the authors': sizes, settings, logits, decayed parameters."""

import keras
import numpy as np
import pytest

from divco_tf.models.backbones import BACKBONES
from divco_tf.models.layers import BatchNormalization, basic
from divco_tf.models.spec import branch_spec
from divco_tf.models.template import build_template
from divco_tf.training.optimizers import OptimizerConfig
from tests.models import goldens
from tests.models.goldens import RECORDS, TOLERANCE, backbone_name, golden_difference, golden_logits, single_branch

FAST = 3_000_000  # parameters of one network; larger ones are in the slow selection


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
        sized = [golden for golden in record["golden"] if quick == (golden["input_hw"] in (32, 75))]
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
    "key", ["resnet110__cifar100__S4", "wide_resnet16_8__cifar10__S8", "efficientnetb0__cifar10__S4"]
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
    def norm(x, *, name, gamma=1.0):
        return BatchNormalization(momentum=0.9, epsilon=1e-3, name=name)(x)

    monkeypatch.setattr(basic, "norm", norm)


def stride_on_another_pixel(monkeypatch):
    def conv(x, filters, kernel_size, *, name, stride=1, groups=1, use_bias=False):
        return keras.layers.Conv2D(filters, kernel_size, strides=stride, padding="same", use_bias=use_bias, name=name)(
            x
        )

    monkeypatch.setattr(basic, "conv", conv)


def no_shortcut_pool(monkeypatch):
    def shortcut(x, filters, *, name, stride=1):
        first = 1 if stride > 1 else 0
        x = basic.conv(x, filters, 1, stride=stride, name=f"{name}.{first}")
        return basic.norm(x, name=f"{name}.{first + 1}")

    monkeypatch.setattr(basic, "shortcut", shortcut)


@pytest.mark.parametrize("mistake", [kerass_epsilon, stride_on_another_pixel, no_shortcut_pool])
def test_a_porting_mistake_moves_the_logits(mistake, monkeypatch, frugal):
    mistake(monkeypatch)
    golden = RECORDS["wide_resnet16_8__cifar10__S8"]["golden"][0]
    assert golden_difference(golden_logits(single_branch("wide_resnet16_8", 8, 10)), golden) > 10 * TOLERANCE
