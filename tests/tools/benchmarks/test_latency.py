"""`divco-benchmark latency`."""

import json
import pickle

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from divco_tf.errors import InputError, RunError
from divco_tf.models.branch_stack import build
from divco_tf.tools.benchmarks import latency
from divco_tf.tools.benchmarks.process import Worker
from tests.tiny import lively, one_line

BACKBONE = "wide_resnet10_1"
SIZES = {"num_classes": 3, "input_shape": (16, 16, 3)}
SMALL = {"backbones": [BACKBONE], "split_factors": [1, 2], "image_size": 16, "num_classes": 3}
ALL = [latency.LARGE, *latency.IN_SEQUENCE, *latency.SIDE_BY_SIDE]


def quiet(line: str) -> None:
    """A report that nobody reads."""


class InThisProcess:
    """Stands for a `Worker`; its threads are this process's."""

    def __init__(self, name, make, *, threads, logical_cpus, report, cpu_threads):
        assert logical_cpus == 2  # a branch each; so many there are in tests
        self.result = pickle.loads(pickle.dumps(make))()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_every_way_has_its_row_for_each_batch_size_and_setting_of_threads(monkeypatch):
    monkeypatch.setattr(latency, "Worker", InThisProcess)
    result = latency.run(**SMALL, batch_sizes=[1, 3], threads=["2/1", "1/2"], rounds=2, steps=3, report=quiet)
    kept = json.loads(json.dumps({key: result[key] for key in ("settings", "systems")}))
    records, comparisons = kept["systems"]["latencies"], kept["systems"]["comparisons"]
    one_at_once = [latency.LARGE, *latency.IN_SEQUENCE]  # with which nothing is side by side
    assert [(r["threads"], r["batch_size"], r["way"]) for r in records] == [
        (threads, batch_size, way)
        for threads, ways in (("2/1", one_at_once), ("1/2", ALL))
        for batch_size in (1, 3)
        for way in ways
    ]
    counted = {s: sum(np.size(w) for w in build(BACKBONE, split_factor=s, **SIZES).trainable_variables) for s in (1, 2)}
    for record in records:
        seconds = np.array(record["seconds"])
        assert seconds.shape == (2, 3) and (seconds > 0).all()
        assert record["p50"] == pytest.approx(np.median(seconds)) and record["p95"] <= seconds.max()
        assert record["rounds"] == pytest.approx(np.median(seconds, axis=1))
        assert record["split_factor"] == (1 if record["way"] == latency.LARGE else 2)
        assert record["parameters"] == counted[record["split_factor"]] and record["multiply_adds"] > 1e6
        assert (record["of_sequence"] is None) == (record["way"] == latency.LARGE)
    assert [(c["split_factor"], c["batch_size"]) for c in comparisons] == [(2, 1), (2, 3)]
    for (head, rows), count in zip(result["tables"], (len(records), 2), strict=True):
        assert [len(row) for row in rows] == [len(head)] * count
    assert kept["settings"]["threads"] == ["2/1", "1/2"] and kept["settings"]["split_factors"] == [1, 2]
    assert result["conclusion"] == kept["systems"]["conclusion"] == latency.conclusion(comparisons)


def test_all_ways_answer_as_the_branches_do(monkeypatch):
    stack = lively(build(BACKBONE, split_factor=2, **SIZES))
    monkeypatch.setattr(latency, "build", lambda *_, **__: stack)
    images = tf.constant(np.random.default_rng(0).standard_normal((4, 16, 16, 3), np.float32))
    expected = np.stack([stack.branch(index)(images, training=False) for index in range(2)], axis=1)
    found = {way: answer(images) for way, answer in latency.ways(BACKBONE, 2, SIZES).items()}
    assert list(found) == ALL[1:]
    for logits in found.values():
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    latency.check_agreement(found)


@pytest.mark.parametrize("wrong", [lambda x: x[:, ::-1], lambda x: x + 0.03, lambda x: np.where(x > 1, np.nan, x)])
def test_answers_that_differ_are_not_timed(wrong):
    logits = np.random.default_rng(0).standard_normal((4, 2, 3))
    with pytest.raises(RunError) as error:
        latency.check_agreement({latency.CHAIN: logits, latency.THREADS: wrong(logits)})
    assert one_line(error.value, says=f"{latency.THREADS} and {latency.CHAIN}")


@pytest.mark.parametrize("in_sequence", [True, False])
def test_in_sequence_a_branch_waits_for_the_whole_one_before_it_in_what_tensorflow_runs(in_sequence):
    branches = [latency._traced(build("tiny", **SIZES).branch(0), SIZES["input_shape"]) for _ in range(2)]
    function = latency.one_graph(branches, SIZES["input_shape"], in_sequence=in_sequence)
    context.enable_run_metadata()
    try:
        function(tf.zeros((1, *SIZES["input_shape"])))
        (graph,) = context.context().export_run_metadata().partition_graphs
    finally:
        context.disable_run_metadata()
    inputs = {node.name: {name.lstrip("^").split(":")[0] for name in node.input} for node in graph.node}
    convolutions = [node.name for node in graph.node if "Conv2D" in node.op]
    linear = [node.name for node in graph.node if "MatMul" in node.op]
    assert len(convolutions) == len(linear) == 2
    waits = [linear for linear in linear for convolution in convolutions if linear in before(convolution, inputs)]
    assert len(waits) == in_sequence


def before(name: str, inputs: dict[str, set[str]]) -> set[str]:
    """All that a node waits for."""
    found, left = set(), [name]
    while left:
        new = inputs[left.pop()] - found
        found |= new
        left += new
    return found


def planted(way: str, threads: str, *rounds: float, split_factor: int = 2, batch_size: int = 1) -> dict:
    times = {"rounds": list(rounds), "p50": float(np.median(rounds))}
    case = {"backbone": "a", "split_factor": split_factor, "batch_size": batch_size, "threads": threads, "way": way}
    return case | times


def test_the_fastest_of_each_kind_are_compared_round_by_round_whatever_their_threads():
    records = [
        planted(latency.LARGE, "2/2", 2, 4, 8, split_factor=1),
        planted(latency.CHAIN, "2/2", 4, 8, 8),
        planted(latency.CALLS, "2/2", 5, 9, 9),
        planted(latency.GRAPH, "2/2", 3, 6, 12),
        planted(latency.LARGE, "1/2", 3, 5, 9, split_factor=1),
        planted(latency.CHAIN, "1/2", 8, 8, 8),
        planted(latency.CALLS, "1/2", 9, 9, 9),
        planted(latency.THREADS, "1/2", 1, 4, 6),
        planted(latency.LARGE, "1/2", 1, 1, 1, split_factor=1, batch_size=8),  # another case
        planted(latency.THREADS, "1/2", 1, 1, 1, split_factor=4),
    ]
    latency.add_ratios(records[:8])
    assert [record["of_large"] for record in records[:4]] == [1, 2, 2.25, 1.5]  # 2, 2, 1; 2.5, 2.25, 1.125; ...
    assert [record["of_large"] for record in records[4:8]] == [1, 8 / 5, 9 / 5, 6 / 9]  # of that with the same threads
    assert [record["of_sequence"] for record in records[:8]] == [None, 1, 1.125, 0.75, None, 1, 1.125, 0.5]
    with pytest.raises(ValueError):  # S = 4 was never run in sequence
        list(latency.comparisons(records))
    (found,) = latency.comparisons(records[:9])
    assert found["large"] == {"way": latency.LARGE, "threads": "2/2", "p50": 4}
    assert found["in_sequence"] == {"way": latency.CHAIN, "threads": "2/2", "p50": 8}
    assert found["side_by_side"] == {"way": latency.THREADS, "threads": "1/2", "p50": 4}
    assert (found["of_sequence"], found["of_large"]) == (0.5, 0.75)


@pytest.mark.parametrize(
    ("ratios", "says"),
    [
        (
            [(0.96, 1.2), (1.0, 2.0)],
            "not faster here: 0.96 to 1.00 of the time in sequence, 1.20 to 2.00 of the large network's",
        ),
        (
            [(0.5, 0.8)],
            "faster than in sequence (0.50 of the time) and faster than the large network (0.80 of the time)",
        ),
        (
            [(0.5, 1.1), (0.949, 0.951)],
            "faster than in sequence (0.50 to 0.95 of the time) "
            "and not faster than the large network (0.95 to 1.10 of the time)",
        ),
        (
            [(0.97, 0.9), (0.99, 1.0), (1.5, 1.3)],
            "not faster than in sequence (0.97 to 1.50 of the time) "
            "and faster than the large network in 1 of 3 cases (0.90 to 1.30 of the time)",
        ),
    ],
)
def test_the_conclusion_says_whether_side_by_side_is_faster(ratios, says):
    found = [{"of_sequence": of_sequence, "of_large": of_large} for of_sequence, of_large in ratios]
    assert latency.conclusion(found) == f"side by side is {says}; less than 0.95 counts as faster"


@pytest.mark.parametrize(
    ("cores", "settings"), [(1, ["1/2"]), (2, ["2/2", "1/2"]), (8, ["8/8", "4/8", "2/8"]), (3, ["3/3", "1/3"])]
)
def test_threads_are_all_cores_for_an_operation_or_their_shares(cores, settings):
    assert latency.default_threads([2, 4], cores) == settings


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"split_factors": [1]}, "split_factors=1"),
        ({"split_factors": [0, 2]}, "positive whole number. Received: 0;"),
        ({"backbones": ["resnet110"], "split_factors": [3]}, "3; 16 divides by"),
        ({"batch_sizes": [1, 0]}, "0; 1,32 works"),
        ({"threads": ["2"]}, "threads=2;"),
        ({"threads": ["2/2", "0/2"]}, "threads=0/2;"),
        ({"threads": ["2/1", "1/1"]}, "threads=2/1,1/1;"),
        ({"backbones": [BACKBONE, "resnet11O"]}, "Did you mean resnet110"),
    ],
)
def test_what_cannot_be_timed_is_refused_before_a_process_is_started(monkeypatch, given, says):
    monkeypatch.setattr(latency, "Worker", None)
    with pytest.raises(InputError) as error:
        latency.run(**{**SMALL, **given}, report=quiet)
    assert one_line(error.value, says=says)


def threads() -> tuple:
    """A step that tells the process's settings."""
    told = tf.config.threading.get_intra_op_parallelism_threads, tf.config.threading.get_inter_op_parallelism_threads
    return lambda: (*(get() for get in told), len(tf.config.list_logical_devices("CPU")))


def test_a_worker_has_the_threads_and_devices_that_it_is_given():
    with Worker("a system", threads, cpu_threads=None, threads=(3, 5), logical_cpus=4, report=quiet) as worker:
        assert worker.result() == (3, 5, 4)


@pytest.mark.slow
def test_latencies_are_taken_in_processes_of_their_own():
    result = latency.run(**SMALL, batch_sizes=[2], threads=["2/1", "1/2"], rounds=2, report=quiet)
    records = result["systems"]["latencies"]
    assert [len(turn) for record in records for turn in record["seconds"]] == [10] * 2 * len(records)
    assert len(records) == 3 + len(ALL)
    assert result["conclusion"].startswith("side by side is ")
