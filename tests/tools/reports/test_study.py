import numpy as np
import pytest

from divco_tf.analysis.judged import Judged, save_judged
from divco_tf.analysis.results import add_row
from divco_tf.tools.reports import study

SIZES = (1000, 2500, 5000)


@pytest.fixture
def folder(tmp_path):
    """Rows and answers of three amounts of data; at 5,000 images the arms of S=4 are better by 20 points."""
    rng = np.random.default_rng(0)
    (tmp_path / "judged").mkdir()
    difficulty = rng.random(500)
    for size in SIZES:
        for (split, loss, divided), arm in study.ARMS.items():
            for seed in range(6):
                better = 0.2 if size == 5000 and arm != study.LARGE else 0.0
                right = difficulty < 0.4 + size / 20000 + better + 0.004 * rng.standard_normal()
                name = f"{size},{arm},{seed}"
                classes = np.where(right, 0, 1)
                judged = Judged(np.zeros(500, int), classes, right * 1.0, -1.0 * ~right, right * 0.0, classes[:, None])
                save_judged(tmp_path / "judged" / f"{name}.npz", {"test": judged})
                arguments = {"train_images": size, "cotraining.loss": loss, "optimizer.divide_weight_decay": divided}
                metrics = dict.fromkeys((key for key, *_ in study.METRICS), 0.25)
                row = {"cell": name, "status": "done", "split_factor": split, "seed": seed, "arguments": arguments}
                add_row(tmp_path, {**row, "test": metrics})
    return tmp_path


def test_the_tables_have_every_arm_its_verdict_and_the_prediction(folder):
    text = "\n".join(study.tables(study.found(folder)))
    for arm in study.ARMS.values():
        assert text.count(f"| {arm} | 6 | 25.00 | 0.250 |") == len(SIZES)
    assert "| 5,000 | S=4 apart pays: +" in text and "| 1,000 | S=4 apart: no difference seen" in text
    assert "Measured: S=4" in text and text.count("measured error %") == 1


def test_one_seed_predicts_nothing(folder):
    first = {size: {arm: {0: seeds[0]} for arm, seeds in arms.items()} for size, arms in study.found(folder).items()}
    text = "\n".join(study.tables(first))
    assert "Predicted" not in text and "fewer than six seeds cannot show one" in text


def test_the_page_written_twice_is_the_same_and_without_cells_says_so(folder):
    empty = f"before\n{study.BEGIN}\nold\n{study.END}\nafter\n"
    once = study.page(empty, study.found(folder))
    assert study.page(once, study.found(folder)) == once
    assert once.startswith("before\n") and once.endswith("\nafter\n") and "old" not in once
    assert "No cell has been trained yet." in study.page(once, {})


def test_the_page_is_current():
    text = study.PAGE.read_text(encoding="utf-8")
    assert study.page(text, study.found()) == text, "python -m tools.reports.study writes it"
