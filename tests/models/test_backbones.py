import dataclasses
from typing import Any

import numpy as np
import pytest

from divco_tf.errors import InputError
from divco_tf.models import layers
from divco_tf.models.backbones.registry import BACKBONES, Backbone, backbone_of, register_backbone, register_backbones
from divco_tf.models.backbones.wide_resnet_cifar import WideResNetSpec
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.divide import divide
from tests import tiny


@pytest.fixture(scope="module")
def initial() -> BranchStack:
    return build("wide_resnet10_4", split_factor=4, num_classes=100, input_shape=(8, 8, 3), seed=5)


def test_branches_start_apart_and_a_seed_gives_the_same_stack(initial):
    options = {"split_factor": 4, "num_classes": 100, "input_shape": (8, 8, 3)}
    same, other = build("wide_resnet10_4", seed=5, **options), build("wide_resnet10_4", seed=6, **options)
    for ours, again, theirs in zip(initial.variables, same.variables, other.variables, strict=True):
        np.testing.assert_array_equal(ours, again)
        if ours.name.endswith("kernel"):
            drawn = [*ours.numpy(), *theirs.numpy()]
            assert all(not np.array_equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i]), ours.name


def test_layers_of_one_shape_start_apart():
    kernels = [
        variable.numpy()[0]
        for variable in build("wide_resnet16_1", num_classes=3, input_shape=(8, 8, 3)).variables
        if variable.name.startswith("layer1.") and variable.name.endswith("kernel")
    ]
    assert {kernel.shape for kernel in kernels} == {(3, 3, 16, 16)}
    assert len({kernel.tobytes() for kernel in kernels}) == len(kernels) == 4


@pytest.mark.parametrize("name", ["wide_resnet10_2", "wide_resnet16_4", "wide_resnet28_10"])
def test_any_wide_resnet_has_a_name(name):
    depth, factor = map(int, name.removeprefix("wide_resnet").split("_"))
    entry = BACKBONES.get(name)
    assert (entry.spec.depth, entry.spec.widen_factor) == (depth, factor)


@pytest.mark.parametrize(
    "name", ["wide_resnet10", "wide_resnet10_2_3", "wide_resnet_2", "Wide_resnet10_2", "wide_resnet10_-2"]
)
def test_other_forms_are_unknown(name):
    with pytest.raises(InputError, match=r"Unknown backbone. Received: .*Also any wide_resnet<depth>_<width>"):
        BACKBONES.get(name)


@pytest.mark.parametrize(("name", "says"), [("wide_resnet11_2", "depth is 6 n"), ("wide_resnet10_0", "not positive")])
def test_a_form_with_illegal_numbers_is_refused(name, says):
    with pytest.raises(InputError, match=says):
        BACKBONES.get(name)


def test_a_published_networks_regularisation_stays_with_its_name():
    assert BACKBONES.get("wide_resnet40_10").spec.dropout == 0.1
    assert BACKBONES.get("wide_resnet40_9").spec.dropout == 0.0


def test_a_spec_alone_says_its_builder():
    spec = divide(BACKBONES.get("resnet110").spec, 4)
    entry = backbone_of(spec)
    assert entry.spec is spec
    assert entry.builder is BACKBONES.get("resnet110").builder


@dataclasses.dataclass(frozen=True)
class OwnSpec:
    width: int = 4


@pytest.fixture
def clean_registry(monkeypatch):
    """Puts the registry back after the test."""
    monkeypatch.setattr(BACKBONES, "_entries", dict(BACKBONES._entries))
    monkeypatch.setattr("divco_tf.models.backbones.registry._BUILDERS", {})


def own_builder(spec: OwnSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    return layers.classifier(layers.conv(image, spec.width, 3, name="c"), num_classes)


def test_a_plugin_is_a_spec_and_a_decorated_builder(clean_registry):
    assert register_backbone("own", OwnSpec())(own_builder) is own_builder
    assert BACKBONES.get("own") == Backbone("own", OwnSpec(), own_builder)
    stack = build("own", copies=3, num_classes=5, input_shape=(4, 4, 3), width=2)
    assert stack(np.zeros((2, 3, 4, 4, 3), np.float32)).shape == (2, 3, 5)


def test_a_name_or_a_type_of_spec_that_is_taken_is_refused(clean_registry):
    register_backbone("own", OwnSpec())(own_builder)
    with pytest.raises(InputError, match=r"backbone own is registered already"):
        register_backbone("own", OwnSpec())(own_builder)

    def other_builder(spec, image, *, draw, num_classes):
        raise AssertionError

    with pytest.raises(InputError, match=r"one builder. Received: other with a OwnSpec, which is own_builder's"):
        register_backbone("other", OwnSpec(8))(other_builder)
    assert "other" not in BACKBONES.names()


@pytest.mark.parametrize("spec", [{"width": 4}, dataclasses.make_dataclass("Thawed", ["width"])(4), OwnSpec], ids=str)
def test_only_frozen_specs_are_registered(spec):
    with pytest.raises(InputError, match=r"spec of own is no frozen dataclass. Received: "):
        register_backbones({"own": spec})


def test_a_spec_that_nobody_builds_is_refused():
    with pytest.raises(InputError, match=r"No backbone takes this spec. Received: OwnSpec\(width=4\)"):
        backbone_of(OwnSpec())


def test_a_builder_must_return_logits(clean_registry):
    @register_backbone("own", OwnSpec())
    def features(spec, image, *, draw, num_classes):
        return layers.conv(image, num_classes, 1, name="c")

    with pytest.raises(InputError, match=r"builder of own does not return logits \[B, 7\]. Received: shape") as error:
        build("own", num_classes=7, input_shape=(4, 4, 3))
    assert tiny.one_line(error.value, says="own")


def test_a_wide_resnet_takes_any_image_size():
    spec = WideResNetSpec(depth=10, widen_factor=1)
    for side in (7, 9):
        stack = build(spec=spec, num_classes=3, input_shape=(side, side + 2, 3))
        assert stack(np.zeros((1, side, side + 2, 3), np.float32)).shape == (1, 1, 3)
