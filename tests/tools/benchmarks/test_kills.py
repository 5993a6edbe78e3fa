"""`divco-benchmark kills`."""

from divco_tf.tools.benchmarks.kills import state
from tests.runs import runs


def test_kills_compares_all_that_a_run_ends_with(tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        runs.run(tmp_path / name, runs.experiment(epochs=1, seed=seed))
    assert state(tmp_path / "one") == state(tmp_path / "same")
    (sums, records), (others, other_records) = state(tmp_path / "one"), state(tmp_path / "other")
    assert sums != others and records != other_records
