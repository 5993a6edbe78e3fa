"""`divco-benchmark agreement`."""

import pytest

from divco_tf.tools.benchmarks import agreement


def test_agreement_tells_weights_from_statistics():
    case = agreement.Case(agreement.NORM)
    one, other = case.experiment().build(10), case.experiment().build(10)
    assert set(agreement._differences(one, other, case).values()) == {0.0}
    one.trainable_variables[0].assign_add(one.trainable_variables[0] * 0 + 0.5)
    variance = next(v for v in one.non_trainable_variables if "variance" in v.name)
    variance.assign(variance * 1.25)
    found = {"weights": 0.5, "weights_moved": 0, "statistics": 0.25, "statistics_moved": 0}
    assert agreement._differences(one, other, case) == pytest.approx(found)
