"""`divco-benchmark compile`."""

from divco_tf.tools.benchmarks import compile_time
from tests import tiny  # noqa: F401 registers the network
from tests.tools.told_times import told_times  # noqa: F401 the fixture


def test_compile_tells_both_ways_to_the_first_step(told_times):  # noqa: F811
    backbones = {"backbones": ["tiny"], "split_factor": 2, "batch_size": 2}
    result = compile_time.run(**backbones, report=lambda line: None)
    assert result["rows"] == [
        ("tiny, branch stack", "1.00", "2.00", "3.00", "0.50", "100"),
        ("tiny, separate Keras models", "2.00", "4.00", "6.00", "1.00", "200"),
    ]
    times = result["systems"]["tiny"]["branch stack"]
    assert (times["together"], times["of_separate"], times["peak_mb"]) == (3, 0.5, 100)
