"""`divco-benchmark xla`."""

import json

import pytest

from divco_tf.models.backbones import BACKBONES
from divco_tf.models.spec import branch_spec
from divco_tf.models.summary import count_parameters
from divco_tf.models.template import build_template
from divco_tf.tools import _benchmark_xla as xla


def test_every_family_has_a_small_network():
    builders = {entry.builder for entry in BACKBONES.entries()}
    shipped = {builder for builder in builders if builder.__module__.startswith("divco_tf.models.")}
    assert shipped == {BACKBONES.get(name).builder for name in xla.SMALL}


@pytest.mark.parametrize("backbone", ["wide_resnet16_8", "resnet110", "resnest101", "keras_mobilenet_v2"])
def test_small_networks_are_small(backbone):
    spec = branch_spec(backbone, copies=xla.BRANCHES, **xla.SMALL[backbone])
    assert count_parameters(build_template(spec, num_classes=10, input_shape=(32, 32, 3))) < 1e6


def test_a_system_over_its_limit_is_told_as_such():
    lines = []
    result = xla.run(
        backbones=["wide_resnet16_8"],
        batch_size=2,
        image_size=8,
        num_classes=3,
        rounds=1,
        steps=1,
        limit=0.01,
        report=lines.append,
    )
    systems = json.loads(json.dumps(result["systems"]))["wide_resnet16_8"]
    assert [systems[jit]["cell"] for jit in ("off", "on")] == ["> 0.01", "> 0.01"]
    assert all("0.01 s" in line for line in lines)
    assert result["rows"] == [("wide_resnet16_8", "> 0.01", "> 0.01", "", "> 0.01", "> 0.01", "")]


@pytest.mark.slow
def test_both_ways_of_a_network_are_timed():
    result = xla.run(
        backbones=["wide_resnet16_8"],
        batch_size=2,
        image_size=8,
        num_classes=3,
        rounds=2,
        steps=1,
        limit=300.0,
        report=lambda line: None,
    )
    systems = json.loads(json.dumps(result["systems"]))["wide_resnet16_8"]
    for jit in ("off", "on"):
        assert len(systems[jit]["rounds"]) == 2
        assert systems[jit]["first"] > 0
    row = result["rows"][0]
    assert float(row[3]) == pytest.approx(systems["on"]["first"] / systems["off"]["first"], abs=0.01)
