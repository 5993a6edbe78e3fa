"""`divco-benchmark xla`."""

import json

import pytest

from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.models.division import branch_spec
from divco_tf.models.sizes import count_parameters
from divco_tf.models.template import build_template
from divco_tf.tools.benchmarks import xla
from divco_tf.tools.benchmarks.step import cotraining_model
from tests import tiny  # noqa: F401 registers the network
from tests.tools.told_times import told_times  # noqa: F401 the fixture


def test_every_family_has_a_small_network():
    builders = {entry.builder for entry in BACKBONES.entries()}
    shipped = {builder for builder in builders if builder.__module__.startswith("divco_tf.models.")}
    assert shipped == {BACKBONES.get(name).builder for name in xla.SMALL}


@pytest.mark.parametrize("backbone", ["wide_resnet16_8", "resnet110", "resnest101", "keras_mobilenet_v2"])
def test_small_networks_are_small(backbone):
    spec = branch_spec(backbone, copies=xla.BRANCHES, **xla.SMALL[backbone])
    assert count_parameters(build_template(spec, num_classes=10, input_shape=(32, 32, 3))) < 1e6


TINY = {"backbones": ["tiny"], "batch_size": 2, "image_size": 8, "num_classes": 3, "rounds": 2, "steps": 3}


@pytest.mark.parametrize(
    ("seconds", "row"),
    [
        (9.0, ("tiny", "2.00", "4.00", "2.00", "2500.0", "5000.0", "2.00")),
        (3.0, ("tiny", "2.00", "> 300", "", "2500.0", "> 300", "")),
        (0.0, ("tiny", "> 300", "> 300", "", "> 300", "> 300", "")),
    ],
)
def test_a_row_has_both_ways_or_that_one_was_over_its_limit(told_times, monkeypatch, seconds, row):  # noqa: F811
    monkeypatch.setattr(told_times, "limit", seconds)
    monkeypatch.setattr(xla, "cotraining_model", lambda stack, jit: cotraining_model(stack))  # XLA is slow here
    lines = []
    result = xla.run(**TINY, limit=300.0, report=lines.append)
    assert result["rows"] == [row]
    assert sum("no step within 300 s" in line for line in lines) == row.count("> 300") // 2
    json.dumps(result["systems"])


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
    row = result["rows"][0]
    assert float(row[3]) == pytest.approx(systems["on"]["first"] / systems["off"]["first"], abs=0.01)
