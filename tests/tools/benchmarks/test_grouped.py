"""`divco-benchmark grouped`."""

import json

import numpy as np
import pytest

from divco_tf.tools.benchmarks import grouped as benchmark


def test_every_way_of_a_grouped_convolution_is_timed(monkeypatch):
    monkeypatch.setattr(benchmark, "NETWORKS", {})
    monkeypatch.setattr(benchmark, "TURN", 0.0)
    result = benchmark.run(rounds=2, report=lambda line: None, shapes={"tiny": ((1, 4, 4, 8), 2)})
    systems = json.loads(json.dumps(result["systems"]))["tiny"]
    assert len(result["rows"]) == len(systems) >= 6
    for name, system in systems.items():
        assert len(system["rounds"]) == (1 if name in benchmark.ONCE else 2)
        assert system["of_ours"] == pytest.approx(
            np.median(np.divide(system["rounds"], systems[benchmark.OURS]["rounds"][: len(system["rounds"])]))
        )
    assert systems[benchmark.OURS]["of_ours"] == 1


def test_every_way_of_a_grouped_convolution_has_the_same_gradients():
    ways = {name: make for name, make in benchmark._convolutions((2, 4, 4, 8), 4) if name != benchmark.TORCH}
    expected = ways[benchmark.OURS]()()
    for name, make in ways.items():
        for gradient, reference in zip(make()(), expected, strict=True):
            np.testing.assert_allclose(gradient, reference, rtol=1e-4, atol=1e-4, err_msg=name)
