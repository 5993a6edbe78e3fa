import numpy as np

from divco_tf.analysis.robustness import Robustness
from divco_tf.tools.shared.tables import corruption_table


def test_a_table_of_corruptions_has_a_row_a_family_and_means():
    robustness = Robustness(
        families=("fog", "snow"),
        severities=(2, 5),
        images=80,
        accuracy=np.array([[0.9, 0.7], [0.8, 0.4]]),
        negative_log_likelihood=np.ones((2, 2)),
        clean_accuracy=0.95,
        clean_negative_log_likelihood=0.5,
    )
    head, _, *lines = corruption_table("runs/a", robustness).splitlines()
    assert head.split("  ")[0] == "runs/a" and "80 images" in head
    assert [line.split() for line in lines] == [
        ["clean", "95.00"],
        ["fog", "90.00", "70.00", "80.00"],
        ["snow", "80.00", "40.00", "60.00"],
        ["mean", "85.00", "55.00", "70.00"],
    ]
