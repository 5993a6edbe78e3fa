import contextlib
import dataclasses
import functools
import re
import zlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models import branch_stack, layers
from divco_tf.models.backbones import BACKBONES, Backbone, backbone_of, register_backbone, register_backbones
from divco_tf.models.backbones.wide_resnet_cifar import WideResNetSpec
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.divide import divide, regularisation
from divco_tf.models.import_torch import import_state_dict, torch_name, torch_shape
from divco_tf.models.spec import branch_spec
from divco_tf.models.summary import count_multiply_adds, count_parameters
from divco_tf.models.template import build_template
from divco_tf.training.optimizers import OptimizerConfig
from tests import tiny
from tests.reference import load_json, load_npz

TOLERANCE = 2e-5  # of max|logit|; the smallest effect of any tested porting mistake is 3.7e-4
RECORDS = {
    record["key"]: record
    for record in load_json("backbones.json")["records"]
    if re.fullmatch(r"resnet1\d\d|wide_resnet\d\d_\d+", record["arch"]) and record["dataset"].startswith("cifar")
}
NETWORKS = sorted({(record["arch"], record["split_factor"]) for record in RECORDS.values()})


@contextlib.contextmanager
def frugally():
    """Neither traces nor draws initial values: most of what a deep network's single answer costs."""
    tf.config.run_functions_eagerly(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(branch_stack, "_stacked_initializer", lambda *_: "zeros")
        yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def frugal():
    with frugally():
        yield


def synthetic(name: str, shape: tuple[int, ...], lowest_scale: float) -> np.ndarray:
    """The weights behind the golden logits: numbers by tensor name (tests/reference/data/backbones.json says how)."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    if name.endswith(".running_var"):
        value = 0.5 + rng.random(shape)
    elif name.endswith((".running_mean", ".bias")):
        value = 0.1 * rng.standard_normal(shape)
    elif len(shape) == 1:
        value = lowest_scale + 0.4 * rng.random(shape)
    else:
        value = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    return value.astype(np.float32)


@functools.cache
def golden_input() -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(b"input")))
    return rng.standard_normal((2, 3, 32, 32)).astype(np.float32).transpose(0, 2, 3, 1)


def single_branch(arch: str, split_factor: int, num_classes: int) -> BranchStack:
    """One of S networks."""
    spec = branch_spec(arch, split_factor=split_factor)
    return build(spec=spec, copies=1, num_classes=num_classes, input_shape=(32, 32, 3))


def golden_logits(stack: BranchStack, lowest_scale: float = 0.4) -> np.ndarray:
    """The stack's logits [2, K] of the golden input with the golden weights."""
    state = {
        f"models.0.{torch_name(variable)}": synthetic(torch_name(variable), torch_shape(variable), lowest_scale)
        for variable in stack.network.template.variables
    }
    import_state_dict(stack, state)
    return stack(golden_input()).numpy()[:, 0]


def golden_difference(logits: np.ndarray, golden: dict[str, Any]) -> float:
    """Largest difference from the golden logits, as a share of the largest logit."""
    expected = load_npz("logits.npz")[golden["key"]]
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


@pytest.fixture(scope="module", params=NETWORKS, ids=str)
def network(request) -> tuple[BranchStack, list[dict]]:
    """One of S networks for 100 classes, and its records for 10 and for 100."""
    arch, split_factor = request.param
    records = [RECORDS[f"{arch}__{dataset}__S{split_factor}"] for dataset in ("cifar10", "cifar100")]
    with frugally():
        return single_branch(arch, split_factor, 100), records


def test_all_records_of_the_two_families_are_tested():
    assert len(RECORDS) == 56
    assert sum(len(record["golden"]) for record in RECORDS.values()) == 48  # eight are kept back on purpose
    assert {record["arch"] for record in RECORDS.values()} <= set(BACKBONES.names())


def test_logits_are_the_references(network, frugal):
    stack, records = network
    logits = golden_logits(stack)
    for record in records:
        for golden in record["golden"]:
            assert golden["norm_scale_lo"] == 0.4
            # The golden classifier of 10 classes is drawn as the first 10 rows of that of 100.
            assert golden_difference(logits[:, : record["num_classes"]], golden) < TOLERANCE


def test_facts_are_the_references(network):
    stack, records = network
    for record in records:
        template = stack.network.template
        if record["num_classes"] != stack.num_classes:
            template = build_template(stack.spec, num_classes=record["num_classes"], input_shape=(32, 32, 3))
        check_sizes(template, record)
        check_settings(template, record)


def check_sizes(template: keras.Model, record: dict[str, Any]) -> None:
    assert count_parameters(template) == record["params"]
    assert count_multiply_adds(template) == record["macs_one_net"] == record["macs_conv"] + record["macs_linear"]
    statistics = sum(np.prod(variable.shape) for variable in template.non_trainable_variables)
    assert statistics == record["bn_buffer_elems"]
    assert template.get_layer("fc").kernel.shape[0] == record["widths"]["classifier_in"]
    assert template.get_layer("layer0.0").filters == record["widths"]["first_conv_out"]
    scales = sum(np.prod(variable.shape) for variable in template.variables if variable.path.endswith("/gamma"))
    assert scales == record["weight_decay_groups"]["bn_scale_elems_decayed"]


def check_settings(template: keras.Model, record: dict[str, Any]) -> None:
    norms = [layer for layer in template.layers if isinstance(layer, layers.BatchNormalization)]
    assert len(norms) == record["n_bn"]
    assert {norm.epsilon for norm in norms} == set(record["bn_eps"])
    assert {round(1 - norm.momentum, 9) for norm in norms} == set(record["bn_momentum"])
    dropouts = [[layer.name, layer.rate] for layer in template.layers if isinstance(layer, layers.Dropout)]
    assert dropouts == record["regularisers"].get("dropout_modules", [])
    spec = branch_spec(record["arch"], split_factor=record["split_factor"])
    assert regularisation(spec) == {"dropout": dropouts[0][1] if dropouts else 0.0}


@pytest.mark.parametrize("decay_norm_scales", [True, False])
@pytest.mark.parametrize("key", ["resnet110__cifar100__S4", "wide_resnet16_8__cifar10__S8"])
def test_decayed_parameters_are_the_references(key, decay_norm_scales, frugal):
    record = RECORDS[key]
    stack = single_branch(record["arch"], record["split_factor"], record["num_classes"])
    optimizer = OptimizerConfig(weight_decay=1e-4, decay_norm_scales=decay_norm_scales).build(0.1)
    optimizer.build(stack.trainable_variables)
    sizes = [int(np.prod(variable.shape)) for variable in stack.trainable_variables]
    decayed = sum(sizes[index] for index in optimizer._decayed)
    groups = record["weight_decay_groups"]
    scales = 0 if decay_norm_scales else groups["bn_scale_elems_decayed"]
    assert decayed == groups["decayed_elems"] - scales
    assert sum(sizes) - decayed == groups["no_decay_elems"] + scales


def kerass_epsilon(monkeypatch):
    def norm(x, *, name, gamma=1.0):
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=name)(x)

    monkeypatch.setattr(layers, "norm", norm)


def stride_on_another_pixel(monkeypatch):
    def conv(x, filters, kernel_size, *, name, stride=1, use_bias=False):
        return keras.layers.Conv2D(filters, kernel_size, strides=stride, padding="same", use_bias=use_bias, name=name)(
            x
        )

    monkeypatch.setattr(layers, "conv", conv)


def no_shortcut_pool(monkeypatch):
    def shortcut(x, filters, *, name, stride=1):
        first = 1 if stride > 1 else 0
        return layers.norm(
            layers.conv(x, filters, 1, stride=stride, name=f"{name}.{first}"), name=f"{name}.{first + 1}"
        )

    monkeypatch.setattr(layers, "shortcut", shortcut)


@pytest.mark.parametrize("mistake", [kerass_epsilon, stride_on_another_pixel, no_shortcut_pool])
def test_a_porting_mistake_moves_the_logits(mistake, monkeypatch, frugal):
    mistake(monkeypatch)
    golden = RECORDS["wide_resnet16_8__cifar10__S8"]["golden"][0]
    assert golden_difference(golden_logits(single_branch("wide_resnet16_8", 8, 10)), golden) > 10 * TOLERANCE


@pytest.fixture(scope="module")
def initial() -> BranchStack:
    return build("wide_resnet10_4", split_factor=4, num_classes=100, input_shape=(8, 8, 3), seed=5)


def test_kernels_start_at_the_papers_spread(initial):
    for variable in initial.trainable_variables:
        value = variable.numpy()
        if variable.name == "fc.kernel":
            expected = 1e-3
        elif variable.name.endswith("kernel"):
            expected = np.sqrt(2 / (np.prod(value.shape[1:3]) * value.shape[-1]))
        else:
            continue
        for branch in value:  # five standard errors of a standard deviation
            assert abs(branch.std() / expected - 1) < 5 / np.sqrt(2 * branch.size), variable.name
            assert abs(branch.mean()) < 5 * expected / np.sqrt(branch.size), variable.name


@pytest.mark.parametrize(("name", "last"), [("wide_resnet10_1", "bn2"), ("resnet110", "bn3")])
def test_each_residual_block_starts_as_its_shortcut(name, last):
    stack = build(name, num_classes=10, input_shape=(8, 8, 3))
    for variable in stack.variables:
        value = variable.numpy()
        kind = variable.name.rsplit(".", 1)[1]
        if kind == "gamma":
            assert np.all(value == (0.0 if variable.name.endswith(f".{last}.gamma") else 1.0)), variable.name
        elif kind != "kernel":
            assert np.all(value == (1.0 if kind == "moving_variance" else 0.0)), variable.name


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
    monkeypatch.setattr("divco_tf.models.backbones._BUILDERS", {})


def own_builder(spec: OwnSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    return layers.classifier(layers.conv(image, spec.width, 3, name="c"), num_classes)


def test_a_plugin_is_a_spec_and_a_decorated_builder(clean_registry):
    assert register_backbone("own", OwnSpec())(own_builder) is own_builder
    assert BACKBONES.get("own") == Backbone("own", OwnSpec(), own_builder)
    stack = build("own", split_factor=3, num_classes=5, input_shape=(4, 4, 3), width=2)
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
