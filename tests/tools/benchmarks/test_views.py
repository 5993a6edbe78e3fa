"""`divco-benchmark views` times what it says."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def result():
    from divco_tf.tools.benchmarks import views

    files = views.jpeg.photographs(2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "_keras_cv", lambda images, split_factor: {"keras-cv": lambda step: None})
        patch.setattr(views.jpeg, "photographs", lambda: files)
        return views.run(data_dir=None, batch_size=4, split_factor=2, rounds=2, steps=2, report=lambda line: None)


def test_every_system_is_timed_in_every_round(result):
    from divco_tf.tools.benchmarks.views import SMALL_POLICIES

    views = result["systems"]["views"]
    assert set(views) == {*SMALL_POLICIES, "224 pixels from JPEG, S=1", "224 pixels from JPEG, S=2"}
    for row, systems in views.items():
        more = {"keras-cv"} if "Rand" in row else set()
        more |= {"divco_tf, decoding alone", "Pillow, decoding alone"} if "JPEG" in row else set()
        assert set(systems) == {"divco_tf", "Pillow"} | more
        assert systems["divco_tf"]["of_ours"] == 1
        ours, pillow = (np.array(systems[name]["rounds"]) for name in ("divco_tf", "Pillow"))
        assert len(ours) == len(pillow) == 2
        assert systems["Pillow"]["of_ours"] == pytest.approx(np.median(pillow / ours))
    assert all(len(row["rounds"]) == 2 for row in result["systems"]["threads"].values())
    assert list(result["systems"]["threads"]) == ["1", "2", "8"]


def test_the_cost_of_s_is_a_line(result):
    by_split_factor = dict(result["systems"]["split factors"])
    line = by_split_factor.pop("line")
    medians = {int(s): row["median"] for s, row in by_split_factor.items()}
    assert list(medians) == [1, 2, 4, 8]
    # Least squares by its normal equations.
    s, seconds = np.array(list(medians)), np.array(list(medians.values()))
    slope = ((s - s.mean()) * (seconds - seconds.mean())).sum() / ((s - s.mean()) ** 2).sum()
    assert line["seconds_a_branch"] == pytest.approx(slope)
    assert line["seconds_at_0"] == pytest.approx(seconds.mean() - slope * s.mean())


def test_tables_say_which_images_and_json_has_the_rest(result):
    heads = [head for head, _ in result["tables"]]
    assert all("made-up photographs, batch 4" in head[0] for head in heads) and len(heads) == 3
    for head, rows in result["tables"]:
        assert all(len(row) == len(head) for row in rows)
    kept = json.loads(json.dumps({key: result[key] for key in ("settings", "systems")}))
    assert kept["settings"]["split_factor"] == 2


def test_further_rows_may_be_timed():
    from divco_tf.tools.benchmarks.views import Row, time_rows

    called = []
    row = Row("mine", 8, {"ours": lambda step: called.append(("ours", step)), "theirs": lambda step: sum(range(10**5))})
    timed = time_rows([row], rounds=2, steps=3, report=lambda line: None)
    assert called == [("ours", step) for step in (0, 0, 1, 2, 3, 4, 5)]  # the first compiles
    assert timed["mine"]["theirs"]["of_ours"] > 1


@pytest.mark.slow
def test_keras_cv_makes_rand_augments_views():
    from divco_tf.tools.benchmarks import views

    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    [(name, batch)] = views._keras_cv(images, 2).items()
    assert name.startswith("keras-cv, RandAugment alone, ")
    views = batch(0)
    assert views.shape == (16, 32, 32, 3)
    assert 0.2 < (views != np.repeat(images, 2, axis=0)).mean() < 1
