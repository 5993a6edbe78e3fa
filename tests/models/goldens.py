"""The authors' networks by numbers: records of tests/reference/data/backbones.json beside our templates."""

import collections
import contextlib
import functools
import re
import zlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.models import layers, stacked_variables
from divco_tf.models.backbones.registry import backbone_of
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.division import branch_spec
from divco_tf.models.sizes import count_multiply_adds, count_parameters
from divco_tf.models.torch_weights import import_state_dict, torch_tensors
from tests.reference import load_json, load_npz

TOLERANCE = 2e-5  # of max|logit|; the smallest effect of any tested porting mistake is 3.7e-4
RECORDS: dict[str, dict] = {record["key"]: record for record in load_json("backbones.json")["records"]}


def backbone_name(record: dict[str, Any]) -> str:
    """Our name of a record's network."""
    name = re.sub(r"^efficientnetb", "efficientnet_b", record["arch"].lower())
    return f"{name}_cifar" if name.startswith("efficientnet_b") and record["dataset"] != "imagenet" else name


@contextlib.contextmanager
def frugally():
    """Neither traces nor draws initial values: most of what a deep network's single answer costs."""
    tf.config.run_functions_eagerly(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacked_variables, "stacked_initializer", lambda *_: "zeros")
        yield
    tf.config.run_functions_eagerly(False)


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
def golden_input(side: int) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(b"input")))
    return rng.standard_normal((2, 3, side, side)).astype(np.float32).transpose(0, 2, 3, 1)


def single_branch(name: str, split_factor: int, num_classes: int, side: int = 32) -> BranchStack:
    """One of S networks."""
    spec = branch_spec(name, split_factor=split_factor)
    return build(spec=spec, copies=1, num_classes=num_classes, input_shape=(side, side, 3))


def golden_logits(stack: BranchStack, lowest_scale: float = 0.4) -> np.ndarray:
    """The stack's logits [2, K] of the golden input with the golden weights."""
    state = {
        f"models.0.{tensor.name}": synthetic(tensor.name, tensor.shape, lowest_scale)
        for tensor in torch_tensors(stack.network.template)
    }
    import_state_dict(stack, state)
    return stack(golden_input(stack.view_shape[0])).numpy()[:, 0]


def golden_difference(logits: np.ndarray, golden: dict[str, Any]) -> float:
    """Largest difference from the golden logits, as a share of the largest logit."""
    expected = load_npz("logits.npz")[golden["key"]]
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


def check_sizes(template: keras.Model, spec: Any, record: dict[str, Any]) -> None:
    """Parameters, multiply-adds, statistics, what is decayed. Tensors that no forward pass uses are not built."""
    unused = unused_elements(spec, record)
    assert count_parameters(template) == record["params"] - unused["weight"] - unused["bias"]
    assert count_multiply_adds(template) == record["macs_one_net"] == record["macs_conv"] + record["macs_linear"]
    statistics = sum(np.prod(variable.shape) for variable in template.non_trainable_variables)
    assert statistics == record["bn_buffer_elems"] - unused["running_mean"] - unused["running_var"]
    groups, sizes = record["weight_decay_groups"], collections.Counter()
    for variable in template.trainable_variables:
        sizes[variable.path.rsplit("/", 1)[1]] += int(np.prod(variable.shape))
    scales = sizes["gamma"] if groups["bn_scale_elems_decayed"] else 0
    assert sizes["kernel"] + scales == groups["decayed_elems"] - unused["weight"]
    assert sizes["beta"] + sizes["bias"] + sizes["gamma"] - scales == groups["no_decay_elems"] - unused["bias"]


def unused_elements(spec: Any, record: dict[str, Any]) -> collections.Counter:
    """Sizes of the tensors that the backbone leaves out by name, by the last part of their names."""
    names = backbone_of(spec).unused_tensors(spec)
    sizes = collections.Counter()
    for name in names:
        sizes[name.rsplit(".", 1)[1]] += int(np.prod(state_shapes(record["key"])[name]))
    return sizes


def state_shapes(key: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a record's state dict, one small network's."""
    content = load_json("state_dicts.json.gz")
    layout = content["layouts"][key]
    if "shapes" in layout:
        shapes = layout["shapes"]
    else:
        shapes = list(content["layouts"][layout["same_shapes_as"]]["shapes"])
        for index, shape in layout["except_index"].items():
            shapes[int(index)] = shape
    return dict(zip(content["names"][layout["names"]], map(tuple, shapes), strict=True))


def check_names(template: keras.Model, spec: Any, record: dict[str, Any]) -> None:
    """Names and shapes of the state dict, in any order."""
    unused = backbone_of(spec).unused_tensors(spec)
    theirs = {
        name: shape
        for name, shape in state_shapes(record["key"]).items()
        if not name.endswith("num_batches_tracked") and name not in unused
    }
    assert {tensor.name: tensor.shape for tensor in torch_tensors(template)} == theirs


def check_norms(template: keras.Model, record: dict[str, Any]) -> None:
    """Batch-norm settings."""
    norms = [layer for layer in template.layers if isinstance(layer, layers.BatchNormalization)]
    assert {norm.epsilon for norm in norms} == set(record["bn_eps"])
    assert {round(1 - norm.momentum, 9) for norm in norms} == set(record["bn_momentum"])


def check_regularisers(template: keras.Model, record: dict[str, Any]) -> None:
    """The strength of every stochastic layer."""
    theirs = record["regularisers"]
    final = [rate for _, rate in theirs.get("dropout_modules", []) if rate]
    if "lightnet_final_dropout" in theirs:
        final.append(theirs["lightnet_final_dropout"])
    assert [layer.rate for layer in template.layers if isinstance(layer, layers.Dropout)] == pytest.approx(final)
    if "lukemelas" in theirs:
        rates = {layer.rate for layer in template.layers if isinstance(layer, layers.DropPath)}
        assert (rates or {0.0}) == {theirs["lukemelas"]["drop_connect_rate"]}
    check_channel_dropout(template, theirs.get("lightnet_block_dropout2d", {}))
    check_shake_drops(template, record)
    check_drop_blocks(template, theirs.get("dropblock_modules"))
    mixes = any(isinstance(layer, layers.ShakeShake) for layer in template.layers)
    assert mixes == ("shakeshake" in theirs)


def check_shake_drops(template: keras.Model, record: dict[str, Any]) -> None:
    """ShakeDrop's probability rises by equal steps from the first block to the last."""
    ours = [(layer.name, layer.rate) for layer in template.layers if isinstance(layer, layers.ShakeDrop)]
    theirs = record["regularisers"].get("shakedrop_modules", {"count": 0})
    assert len(ours) == theirs["count"]
    if ours:
        (first, least), (last, most) = theirs["first"], theirs["last"]
        assert (ours[0][0], ours[-1][0]) == (first, last)
        assert most == record["widths"]["final_shake_p"]
        assert [rate for _, rate in ours] == pytest.approx(np.linspace(least, most, len(ours)), rel=1e-8)


def check_drop_blocks(template: keras.Model, theirs: dict[str, Any] | None) -> None:
    """Three of ours, one after each norm, are one module of theirs, which they call three times."""
    ours = [layer for layer in template.layers if isinstance(layer, layers.DropBlock)]
    assert len(ours) == 3 * (theirs or {"count": 0})["count"]
    if ours:
        modules = [re.fullmatch(r"(layer\d\.\d+)\.bn([123])\.drop", layer.name).groups() for layer in ours]
        assert [norm for _, norm in modules] == ["1", "2", "3"] * theirs["count"]
        for (module, _), (name, *_) in ((modules[0], theirs["first"]), (modules[-1], theirs["last"])):
            assert name == f"{module}.drop"
        _, rate, block_size, gamma_scale = theirs["first"]
        assert theirs["last"][1:] == [rate, block_size, gamma_scale] and theirs["distinct_probs"] == [rate]
        assert gamma_scale == 1.0  # squares are as frequent as the article's equation 1 has it
        assert {layer.block_size for layer in ours} == {block_size}
        assert [layer.rate for layer in ours] == pytest.approx([rate] * len(ours), rel=1e-8)


def check_channel_dropout(template: keras.Model, theirs: dict[str, float]) -> None:
    """On every shortcut, with the rate of its stage: the record has one of the first block, which none may cross."""
    added = {layer.name.removesuffix(".add") for layer in template.layers if isinstance(layer, keras.layers.Add)}
    ours = {
        layer.name.removesuffix(".drop"): layer.rate
        for layer in template.layers
        if isinstance(layer, layers.ChannelDropout)
    }
    assert ours == pytest.approx({name: theirs[f"{name.split('.')[0]}.block1"] for name in added if theirs})
