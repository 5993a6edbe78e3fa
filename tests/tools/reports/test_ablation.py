import numpy as np

from divco_tf.analysis.judged import Judged, save_judged
from divco_tf.analysis.results import add_row
from divco_tf.tools.reports import ablation


def test_arms_stand_beside_the_baseline_and_what_is_seen_is_bold(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "judged").mkdir()
    common = {"status": "done", "dataset": "digits", "backbone": "wide_resnet10_2", "parameters": 1, "multiply_adds": 1}
    for split_factor, loss, gain in ((1, "js", -0.2), (4, "js", 0.0), (4, "none", 0.0)):
        for seed in range(6):
            right = rng.random(400) < 0.7 + gain
            classes = np.where(right, 0, 1)
            judged = Judged(np.zeros(400, int), classes, right * 1.0, -1.0 * ~right, right * 0.0, classes[:, None])
            name = f"{split_factor},{loss},{seed}"
            save_judged(tmp_path / "judged" / f"{name}.npz", {"test": judged})
            test = {**dict.fromkeys((key for key, *_ in ablation.METRICS), 0.25), "accuracy": right.mean()}
            arguments = {"seed": seed, "split_factor": split_factor, "cotraining.loss": loss}
            row = {"cell": name, "arguments": arguments, "split_factor": split_factor, "seed": seed, "test": test}
            add_row(tmp_path, {**common, **row})
    rows = ablation.table(tmp_path, baseline="S=4, loss=js").splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [
        "S=1, loss=js",
        "S=4, loss=js",
        "S=4, loss=none",
    ]
    assert rows[0].count("**-") == 2 and rows[1].endswith("|  |  |") and "**" not in rows[2] and "(" in rows[2]


def test_the_page_is_current():
    text = ablation.PAGE.read_text(encoding="utf-8")
    filled = ablation.filled(text, ablation.BEGIN, ablation.END, ablation.table())
    assert filled == text, "python -m tools.reports.ablation writes it"
