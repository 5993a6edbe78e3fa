"""Cells become arms within tasks, with names that tell them apart and a baseline."""

import json

import numpy as np
import pytest

from divco_tf.analysis.judged import judged
from divco_tf.analysis.report.study import class_names, grouped, read_study
from divco_tf.errors import InputError
from tests.analysis.report import synthetic

LABELS = np.arange(40) % 10
JS, NONE = {"split_factor": 4, "cotraining.loss": "js"}, {"split_factor": 4, "cotraining.loss": "none"}


def row(arguments, splits=("test",), **more):
    found = synthetic.outputs(LABELS, split_factor=arguments["split_factor"], skill=6, seed=arguments.get("seed", 0))
    return synthetic.done(arguments, dict.fromkeys(splits, found), **more)


def study(*rows, **options):
    return grouped(rows, {}, name="study", **options)


def test_cells_that_differ_in_their_seed_alone_are_an_arm():
    found = study(*(row({"split_factor": s, "seed": seed}) for s in (4, 1) for seed in (2, 0, 1)))
    assert [(arm.name, [result.seed for result in arm.results]) for arm in found.arms] == [
        ("S=1", [0, 1, 2]),
        ("S=4", [0, 1, 2]),
    ]


def test_a_name_tells_what_varies_by_the_last_part_of_its_path_where_that_is_clear():
    found = study(*(row({**arm, "epochs": 3}) for arm in (JS, NONE)))
    assert found.names == ["S=4, loss=js", "S=4, loss=none"]
    assert found.common == {"split_factor": 4, "epochs": 3}
    flags = study(*(row({"split_factor": 4, "identical_views": flag}) for flag in (False, True)))
    assert flags.names == ["S=4, identical_views", "S=4, identical_views=False"]
    twice = study(*(row({"split_factor": 1, "a.rate": rate, "b.rate": rate + 1}) for rate in (1, 2)))
    assert twice.names == ["S=1, a.rate=1, b.rate=2", "S=1, a.rate=2, b.rate=3"]


def test_a_length_that_goes_with_the_amount_of_data_is_no_other_arm():
    sizes = [{"train_images": images, "steps": images // 10} for images in (1000, 500)]
    found = study(*(row({"split_factor": s, **size}) for size in sizes for s in (1, 4)))
    assert found.names == ["S=1", "S=4"]
    assert [found.told(task) for task in found.tasks] == ["500 images", "1,000 images"]
    assert all(len(found.of_task(task)) == 2 for task in found.tasks)


def test_other_datasets_and_backbones_are_other_tasks():
    rows = [
        row({"split_factor": s, "backbone": backbone}, backbone=backbone)
        for backbone in ("resnet110", "wide_resnet10_2")
        for s in (1, 4)
    ]
    found = study(*rows)
    assert [found.told(task) for task in found.tasks] == ["resnet110", "wide_resnet10_2"]
    assert found.names == ["S=1", "S=4"]


def test_the_plainest_arm_with_one_branch_is_the_baseline_by_what_the_sweep_starts_from():
    rows = [row({"split_factor": s, "dropout_samples": n}) for s in (4, 1) for n in (16, 0)]
    assert study(*rows, experiment=synthetic.EXPERIMENT).baseline == "S=1, dropout_samples=0"
    assert study(row(JS), row(NONE), experiment=synthetic.EXPERIMENT).baseline == "S=4, loss=js"


def test_the_focus_is_a_plain_arm_of_most_branches():
    rows = [row(arm) for arm in ({"split_factor": 1}, {"split_factor": 2}, {"split_factor": 4}, NONE)]
    found = study(*rows, experiment=synthetic.EXPERIMENT)
    assert found.focus(found.tasks[0]).name == "S=4"
    single = study(rows[0])
    assert single.focus(single.tasks[0]).name == "S=1"


@pytest.mark.parametrize(("splits", "told"), [(("held_out", "test"), "test"), (("held_out",), "held_out")])
def test_test_images_are_told_of_where_all_cells_were_judged_on_them(splits, told):
    found = study(row({"split_factor": 1}, splits), row({"split_factor": 4}, splits))
    assert found.split == told and len(found.arms) == 2 and not found.failed


def test_a_cell_judged_on_other_images_than_the_rest_is_listed_and_not_told_of():
    found = study(row({"split_factor": 1}, ("held_out",)), row({"split_factor": 4}, ("test",)))
    assert (found.split, found.names) == ("test", ["S=4"])
    assert "not judged on test images" in found.failed[0]["reason"]


def test_a_folder_holds_rows_answers_and_the_experiment(tmp_path):
    folder = synthetic.sweep(tmp_path / "digits", labels=LABELS, failures=[{"split_factor": 3}])
    found = read_study(folder)
    assert (found.name, found.names) == ("digits", ["S=1", "S=4", "S=4, loss=none"])
    assert found.experiment == synthetic.EXPERIMENT and len(found.failed) == 1
    expected = judged(synthetic.outputs(LABELS, split_factor=4, skill=6.5, seed=0))
    kept = found.arms[1].results[0].judged
    np.testing.assert_array_equal(kept.branch_classes, expected.branch_classes)
    np.testing.assert_allclose(kept.log_likelihood, expected.log_likelihood, rtol=1e-3, atol=1e-6)


def test_rows_stand_for_themselves_where_answers_and_record_are_gone(tmp_path):
    folder = synthetic.sweep(tmp_path / "digits", labels=LABELS)
    (folder / "sweep.json").unlink()
    for path in (folder / "judged").iterdir():
        path.unlink()
    found = read_study(folder)
    assert len(found.arms) == 3 and not any(arm.judged for arm in found.arms) and found.experiment == {}


def test_only_failures_are_a_study_without_arms(tmp_path):
    (tmp_path / "results.jsonl").write_text(json.dumps(synthetic.failed({"split_factor": 4}, "no data")) + "\n")
    found = read_study(tmp_path)
    assert (found.arms, found.tasks, found.baseline, len(found.failed)) == ((), [], None, 1)


def test_classes_have_their_names_or_numbers():
    found = study(row({"split_factor": 1}), row({"split_factor": 4, "dataset": "cifar10"}, dataset="cifar10"))
    digits, cifar10 = sorted(found.tasks, key=lambda task: task.dataset, reverse=True)
    assert class_names(found, cifar10, 10)[3] == "cat"
    assert class_names(found, digits, 12) == tuple(map(str, range(12)))


def write_nothing(folder):
    pass


def write_no_row(folder):
    (folder / "results.jsonl").write_text("{}\n")


def write_arms(folder):
    (folder / "results.jsonl").write_text(json.dumps(row({"split_factor": 4})) + "\n")


@pytest.mark.parametrize(
    ("write", "says"),
    [(write_nothing, "Neither a sweep"), (write_no_row, "is no row"), (write_arms, "No arm is called")],
)
def test_what_is_no_study_is_refused_in_one_line(tmp_path, write, says):
    write(tmp_path)
    with pytest.raises(InputError, match=says) as error:
        read_study(tmp_path, baseline="S=3")
    assert "Received: " in str(error.value) and "\n" not in str(error.value)


def test_damaged_answers_are_refused(tmp_path):
    folder = synthetic.sweep(tmp_path / "digits", labels=LABELS, seeds=[0])
    next((folder / "judged").iterdir()).write_bytes(b"damaged")
    with pytest.raises(InputError, match="no predictions"):
        read_study(folder)
