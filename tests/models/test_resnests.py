"""ResNeSt and ResNeXSt: how they divide, how they begin, and that they train; split attention."""

import dataclasses

import keras
import numpy as np
import pytest

from divco_tf.errors import InputError
from divco_tf.models import layers
from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.models.backbones.resnest import RESNESTS, RESNEXSTS, ResNeStSpec, ResNeXStSpec
from divco_tf.models.divide import divide
from divco_tf.models.layers import attention
from tests import tiny
from tests.models.siblings import sibling_stack
from tests.reference import load_json


def test_only_groups_and_dropout_of_a_resnexst_are_divided():
    large = RESNEXSTS["resnexst101_8x32d"]
    for split_factor in (2, 4, 8):
        small = divide(large, split_factor)
        assert small.dropout == pytest.approx(0.1 / split_factor**0.5)
        assert small == dataclasses.replace(large, groups=8 // split_factor, dropout=small.dropout)


def test_what_the_reference_cannot_build_is_refused():
    names = {*RESNESTS, *RESNEXSTS}
    errors = [error for error in load_json("backbones.json")["build_errors"] if error["arch"] in names]
    assert {error["arch"] for error in errors} == {*RESNESTS, "resnexst50_4x16d", "resnexst50_4x32d"}
    for error in errors:
        with pytest.raises(InputError) as refused:
            divide(BACKBONES.get(error["arch"]).spec, error["split_factor"])
        works = "64 divides by 1. " if error["arch"] in RESNESTS else "4 divides by 1, 2, 4. "
        assert tiny.one_line(refused.value, says=f"Received: {error['split_factor']}; {works}")


@pytest.mark.parametrize(
    ("spec", "options", "says"),
    [
        (ResNeStSpec, {"blocks": ()}, "A stage has no blocks. Received: blocks=()"),
        (ResNeStSpec, {"blocks": (1,), "width": 1}, "too few channels. Received: width=1"),
        (ResNeXStSpec, {"blocks": (1, 0), "groups": 2, "base_width": 8}, "blocks=(1, 0)"),
        (ResNeXStSpec, {"blocks": (1,), "groups": 0, "base_width": 8}, "groups=0, base_width=8"),
        (ResNeXStSpec, {"blocks": (1,), "groups": 2, "base_width": 0}, "groups=2, base_width=0"),
    ],
)
def test_a_spec_checks_itself(spec, options, says):
    with pytest.raises(InputError) as error:
        spec(**options)
    assert tiny.one_line(error.value, says=says)


@pytest.mark.parametrize("name", ["resnest", "resnexst"])
def test_only_a_resnexst_pools_in_every_block(name):
    sibling = sibling_stack(name)
    pools = {layer.name: layer.strides[0] for layer in sibling.network.template.layers if layer.name.endswith(".avd")}
    later = {} if isinstance(sibling.spec, ResNeStSpec) else {"layer2.1.avd": 1}
    assert pools == {"layer2.0.avd": 2, **later}


@pytest.mark.parametrize("radix", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_gates_of_an_output_sum_to_one(radix, groups):
    logits = np.random.default_rng(0).standard_normal((4, 1, 1, radix * groups * 5)).astype(np.float32)
    gates = attention.RadixSoftmax(radix, groups)(logits).numpy()
    np.testing.assert_allclose(gates.reshape(4, radix, groups * 5).sum(1), 1, rtol=1e-5)
    # The logit of group g, feature r, channel c decides on feature r of output g * 5 + c.
    by_group = logits.reshape(4, groups, radix, 5).transpose(0, 2, 1, 3).reshape(4, radix, groups * 5)
    expected = np.exp(by_group) / np.exp(by_group).sum(1, keepdims=True)
    np.testing.assert_allclose(gates.reshape(expected.shape), expected, rtol=1e-5)


@pytest.mark.parametrize("radix", [1, 2, 3])
def test_the_sum_over_the_radix_is_weighed(radix):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((2, 3, 4, radix * 5)).astype(np.float32)
    gates = rng.standard_normal((2, 1, 1, radix * 5)).astype(np.float32)
    expected = (features * gates).reshape(2, 3, 4, radix, 5).sum(3)
    np.testing.assert_allclose(attention.RadixSum(radix)([features, gates]), expected, rtol=1e-4, atol=1e-5)


def test_split_attention_saves_and_loads(tmp_path):
    image = keras.Input((6, 5, 8))
    model = keras.Model(image, layers.split_attention(image, 16, groups=2, name="s"))
    assert model.output.shape == (None, 6, 5, 16)
    model.save(tmp_path / "m.keras")
    images = np.random.default_rng(0).standard_normal((2, 6, 5, 8)).astype(np.float32)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(images), model(images))


@pytest.mark.parametrize("radix", [0, -1, 1.5])
def test_a_radix_is_a_positive_whole_number(radix):
    with pytest.raises(InputError, match=rf"radix is no positive whole number. Received: {radix}"):
        attention.RadixSum(radix)
