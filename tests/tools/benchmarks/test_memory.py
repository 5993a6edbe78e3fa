"""`divco-benchmark memory`."""

import json

from divco_tf.tools.benchmarks import memory
from tests import tiny  # noqa: F401 registers the network
from tests.tools.told_times import told_times  # noqa: F401 the fixture

TINY = {"batch_size": 4, "image_size": 8, "num_classes": 3, "report": lambda line: None}


def test_memory_tells_peak_and_time_of_every_way(told_times):  # noqa: F811
    result = memory.run(backbone="tiny", split_factors=(1, 2), rounds=2, steps=2, **TINY)
    one, two = result["systems"]["S=1"], result["systems"]["S=2"]
    assert list(one) == ["plain", "4 micro-batches", "remat", "remat, 4 micro-batches"]  # one branch has no turn
    assert list(two) == [*one, "branches in turn", "remat, branches in turn"]
    assert [system["step_mb"] for system in one.values()] == [1, 2, 3, 4]
    assert [system["memory_of_plain"] for system in one.values()] == [1, 2, 3, 4]
    assert two["plain"]["rounds"] == [5, 10] and two["4 micro-batches"]["step_of_plain"] == 6 / 5
    assert one["4 micro-batches"]["estimate_mb"] < one["plain"]["estimate_mb"] < two["plain"]["estimate_mb"]
    assert one["plain"]["estimate_off"] == one["plain"]["estimate_mb"] - 1
    assert [len(row) for row in result["rows"]] == [len(result["head"])] * 10
    json.dumps(result)
