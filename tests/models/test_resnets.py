"""ResNets, ResNeXts and their squeeze-and-excitation forms: how they divide, and how they begin."""

import dataclasses

import pytest

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.models.backbones.resnet import ResNetSpec, WideResNet50Spec
from divco_tf.models.backbones.senet import SENetSpec
from divco_tf.models.divide import divide
from tests import tiny
from tests.reference import load_json


def spec_of(name: str):
    return BACKBONES.get(name).spec


@pytest.mark.parametrize(
    ("name", "narrower"), [("wide_resnet50_2", "resnet50"), ("wide_resnet50_3", "wide_resnet50_2")]
)
def test_half_of_a_wide_resnet50_is_the_next_narrower_network(name, narrower):
    assert dataclasses.asdict(divide(spec_of(name), 2)) == dataclasses.asdict(spec_of(narrower))


def test_a_wide_resnet101_is_divided_as_a_resnet101():
    for split_factor in (2, 4):
        wide, narrow = (divide(spec_of(name), split_factor) for name in ("wide_resnet101_2", "resnet101"))
        assert (wide.width, wide.base_width) == (narrow.width, 2 * narrow.base_width)


@pytest.mark.parametrize("name", ["resnext50_32x4d", "resnext29_16x64d", "senet154", "se_resnext101_64x4d_b"])
@pytest.mark.parametrize("split_factor", [2, 4, 8, 16])
def test_only_groups_and_regularisation_are_divided_where_there_are_groups(name, split_factor):
    large = spec_of(name)
    small = divide(large, split_factor, regularisers=False)
    assert small == dataclasses.replace(large, groups=large.groups // split_factor)


@pytest.mark.parametrize(
    ("name", "split_factor", "works"),
    [
        ("wide_resnet50_2", 8, "64 divides by 1, 2, 4"),
        ("wide_resnet50_3", 8, "64 divides by 1, 2, 4"),
        ("wide_resnet101_2", 8, "64 divides by 1, 2, 4"),
        ("se_resnet110", 8, "16 divides by 1, 2, 4"),
        ("se_resnet164", 8, "16 divides by 1, 2, 4"),
        ("resnet50", 16, "64 divides by 1, 2, 4, 8"),
        ("resnext50_32x4d", 3, "32 divides by 1, 2, 4, 8, 16, 32"),
        ("senet154", 128, "64 divides by 1, 2, 4, 8, 16, 32, 64"),
    ],
)
def test_a_split_factor_without_a_division_is_refused(name, split_factor, works):
    with pytest.raises(InputError) as error:
        divide(spec_of(name), split_factor)
    assert tiny.one_line(error.value, says=f"Received: {split_factor}; {works}. ")


def test_what_the_reference_cannot_build_is_refused():
    families = {type(spec_of(name)) for name in ("resnet50", "wide_resnet50_2", "wide_resnet101_2", "se_resnet110")}
    errors = [
        error
        for error in load_json("backbones.json")["build_errors"]
        if error["arch"] in BACKBONES.names() and type(spec_of(error["arch"])) in families
    ]
    assert {error["arch"] for error in errors} == {
        *("wide_resnet50_2", "wide_resnet50_3", "wide_resnet101_2", "se_resnet110", "se_resnet164")
    }
    for error in errors:
        with pytest.raises(InputError):
            divide(spec_of(error["arch"]), error["split_factor"])


def test_a_wide_resnet_of_imagenet_keeps_its_name_from_the_cifar_form():
    assert isinstance(spec_of("wide_resnet50_2"), WideResNet50Spec)
    for name in ("wide_resnet50_4", "wide_resnet101_3"):
        with pytest.raises(InputError, match=r"depth is 6 n \+ 4. Received: (50|101)"):
            BACKBONES.get(name)


@pytest.mark.parametrize(
    ("spec", "options", "says"),
    [
        (ResNetSpec, {"blocks": ()}, "A stage has no blocks. Received: blocks=()"),
        (ResNetSpec, {"blocks": (3, 0)}, "A stage has no blocks. Received: blocks=(3, 0)"),
        (ResNetSpec, {"blocks": (1,), "width": 0}, "A bottleneck has no channels. Received: width=0"),
        (ResNetSpec, {"blocks": (1,), "groups": 0}, "groups=0"),
        (SENetSpec, {"blocks": (1,), "base_width": 0}, "width=64, base_width=0"),
    ],
)
def test_a_spec_checks_itself(spec, options, says):
    with pytest.raises(InputError) as error:
        spec(**options)
    assert tiny.one_line(error.value, says=says)
