"""Sweeps of seconds on digits: resumed, shared, with cells that fail."""

import json
import multiprocessing
import pathlib

import numpy as np
import pytest

from divco_tf.analysis.grid import cells
from divco_tf.analysis.judged import judged, load_judged
from divco_tf.analysis.outputs import load_outputs
from divco_tf.analysis.results import add_row, read_rows
from divco_tf.analysis.sweep import RECORD, Sweep
from divco_tf.errors import InputError, Preempted, RunError
from divco_tf.runs import evaluation
from divco_tf.runs.options import Options
from tests.runs import runs

GRID = ["split_factor=1,2; seed=0,1"]


def sweep(folder, grid=GRID, **changes):
    options = {"test": changes.pop("test", True), "options": Options(evaluate_every=0, contact_sheet=False, threads=1)}
    return Sweep(experiment=runs.experiment(**changes), cells=cells(grid), folder=folder, **options)


def without_seconds(rows):
    """Rows by cell, without what a clock says."""
    return {row["cell"]: {name: value for name, value in row.items() if not name.startswith("seconds")} for row in rows}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A sweep that was run in one go."""
    folder = tmp_path_factory.mktemp("sweep")
    sweep(folder, held_out=0.2).run(report=lambda line: None)
    return folder


def test_a_row_has_arguments_sizes_metrics_of_both_splits_and_versions(undisturbed):
    rows = read_rows(undisturbed)
    assert [row["cell"] for row in rows] == [cell.name for cell in cells(GRID)]
    row = rows[-1]
    assert (row["status"], row["arguments"]) == ("done", {"split_factor": 2, "seed": 1})
    assert (row["backbone"], row["dataset"], row["split_factor"], row["seed"]) == ("tiny", "digits", 2, 1)
    assert row["parameters"] == 2 * 166 and row["multiply_adds"] > 0 and row["steps"] == 8
    assert len(row["test"]["branch_accuracies"]) == 2
    assert {"accuracy", "brier_score", "error_correlation"} <= set(row["test"]) & set(row["held_out"])
    assert 0.8 < row["calibrated"]["set_coverage"] <= 1 and 1 <= row["calibrated"]["set_size"] <= 10
    assert row["calibrated"]["negative_log_likelihood"] < row["test"]["negative_log_likelihood"] + 0.02
    assert row["seconds"] > 0 and row["versions"]["divco_tf"]
    assert [point["split"] for point in row["curve"]] == ["held_out"]


def test_a_row_says_what_evaluation_says(undisturbed):
    for row in read_rows(undisturbed):
        model_dir = undisturbed / "cells" / row["cell"]
        for split in ("test", "held_out"):
            figures = evaluation.evaluate(model_dir, split=split)
            assert row[split]["accuracy"] == pytest.approx(figures.accuracy, abs=1e-9)
            assert row[split]["branch_accuracies"] == pytest.approx(figures.branch_accuracies, abs=1e-9)
            assert row[split]["negative_log_likelihood"] == pytest.approx(figures.negative_log_likelihood, rel=1e-6)


def test_predictions_are_kept_whole_and_small(undisturbed):
    for row in read_rows(undisturbed):
        outputs = load_outputs(undisturbed / "predictions" / f"{row['cell']}.npz")["test"]
        assert outputs.logits.shape == (387, row["split_factor"], 10)
        assert judged(outputs).correct.mean() == pytest.approx(row["test"]["accuracy"])
        small = load_judged(undisturbed / "judged" / f"{row['cell']}.npz")
        assert list(small) == ["held_out", "test"]
        np.testing.assert_array_equal(small["test"].classes, judged(outputs).classes)


def test_a_finished_sweep_does_nothing(undisturbed):
    before = (undisturbed / "results.jsonl").read_text()

    def never(cell):
        raise AssertionError(cell)

    sweep(undisturbed, held_out=0.2).run(run_cell=never)
    assert (undisturbed / "results.jsonl").read_text() == before


def test_a_sweep_that_was_stopped_in_cells_and_between_them_ends_with_the_same_rows(undisturbed, tmp_path):
    started = []

    def stopped(cell):
        started.append(cell.name)
        if len(started) % 2:
            raise Preempted("SIGTERM came.")
        again.run_cell(cell)

    again = sweep(tmp_path, held_out=0.2)
    for _ in range(4):
        with pytest.raises(Preempted):
            again.run(run_cell=stopped, report=lambda line: None)
    again.run(report=lambda line: None)
    assert len(started) > len(set(started))
    assert without_seconds(read_rows(tmp_path)) == without_seconds(read_rows(undisturbed))


def test_a_cell_that_fails_is_a_row_with_its_reason_and_the_others_are_run(tmp_path):
    lines = []
    broken = sweep(tmp_path, ["split_factor=1,2,-1; epochs=1", "learning_rate.learning_rate=1e9; epochs=3"])

    def run_cell(cell):
        if cell.arguments.get("split_factor") == 2:
            raise RunError("the process was killed by SIGKILL (out of memory?)")
        broken.run_cell(cell)

    broken.run(run_cell=run_cell, report=lines.append)
    reasons = {row["cell"]: row.get("reason") for row in read_rows(tmp_path)}
    assert reasons["split_factor=1,epochs=1"] is None
    assert "SIGKILL" in reasons["split_factor=2,epochs=1"]
    assert "Experiment.split_factor is out of range" in reasons["split_factor=-1,epochs=1"]
    assert "is not finite" in reasons["learning_rate.learning_rate=1000000000.0,epochs=3"]
    assert any(line.startswith("failed: ") for line in lines)
    broken.run(run_cell=lambda cell: pytest.fail(cell.name))  # failures are not tried again unless that is asked for
    assert {cell.name for cell in broken.left(retry_failed=True)} == {name for name in reasons if reasons[name]}
    again = []

    def succeeds(cell):
        again.append(cell.name)
        add_row(tmp_path, {"cell": cell.name, "status": "done", "test": {}})

    sweep(tmp_path, ["split_factor=1,2; epochs=1"]).run(run_cell=succeeds, retry_failed=True, report=lines.append)
    assert again == ["split_factor=2,epochs=1"]


def test_a_cell_that_leaves_no_row_is_a_failure_and_not_run_for_ever(tmp_path):
    sweep(tmp_path, ["seed=0"]).run(run_cell=lambda cell: None, report=lambda line: None)
    (row,) = read_rows(tmp_path)
    assert (row["status"], row["reason"]) == ("failed", "it ended without a result; what it printed on stderr says why")


def test_a_sweep_of_no_experiment_at_all_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match="Experiment has no such field. Received: sede"):
        sweep(tmp_path / "new", ["sede=1,2"]).run()
    assert not (tmp_path / "new").exists()


def test_a_folder_of_another_sweep_is_refused(undisturbed):
    with pytest.raises(InputError, match=r"holds another sweep. Received: batch_size 64 \(there 256\)"):
        sweep(undisturbed, held_out=0.2, batch_size=64).run()


def test_a_record_of_a_release_without_a_field_is_the_same_sweeps(undisturbed, tmp_path):
    record = json.loads((undisturbed / RECORD).read_text())
    del record["experiment"]["dropout_samples"]
    (tmp_path / RECORD).write_text(json.dumps(record))
    sweep(tmp_path, held_out=0.2).begin()


@pytest.mark.parametrize(("grid", "steps"), [("steps=7", 7), ("epochs=1", 5)])
def test_a_cells_length_takes_the_place_of_the_other(tmp_path, grid, steps):
    for start in ({"epochs": 2}, {"epochs": None, "steps": 3}):
        described = sweep(tmp_path, [grid], **start)
        assert described.experiment_of(described.cells[0]).total_steps(5) == steps


def test_without_test_images_none_is_opened(tmp_path, monkeypatch):
    from divco_tf.data.sources import opening

    opened = []
    digits = opening._open_digits
    monkeypatch.setattr(
        opening, "_open_digits", lambda facts, request: opened.append(request.split) or digits(facts, request)
    )
    sweep(tmp_path, ["epochs=1"], held_out=0.2, test=False).run(report=lambda line: None)
    (row,) = read_rows(tmp_path)
    assert "test" not in row and row["held_out"]["accuracy"] > 0
    assert set(opened) == {"train", "held_out"}


def _share(folder, count, log):
    def run_cell(cell):
        with open(log, "a") as file:
            file.write(cell.name + "\n")
        add_row(pathlib.Path(folder), {"cell": cell.name, "status": "done", "test": {}})

    sweep(pathlib.Path(folder), [f"seed=0..{count - 1}"]).run(run_cell=run_cell, report=lambda line: None)


def test_processes_share_the_cells_without_doing_one_twice(tmp_path):
    context = multiprocessing.get_context("spawn")
    arguments = (str(tmp_path / "sweep"), 12, str(tmp_path / "log"))
    processes = [context.Process(target=_share, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted((tmp_path / "log").read_text().split()) == sorted(f"seed={seed}" for seed in range(12))


def test_a_cell_that_another_process_has_is_left_to_it(tmp_path):
    mine, theirs, done = sweep(tmp_path, ["seed=0,1"]), sweep(tmp_path, ["seed=0,1"]), []

    def theirs_runs(cell):
        done.append(("theirs", cell.name))
        add_row(tmp_path, {"cell": cell.name, "status": "done", "test": {}})

    def mine_runs(cell):
        done.append(("mine", cell.name))
        if cell.name == "seed=0":  # meanwhile the other process comes by
            assert not theirs._run_if_free(cell, theirs_runs, set(), lambda line: None)
            assert theirs._run_if_free(theirs.cells[1], theirs_runs, set(), lambda line: None)
        add_row(tmp_path, {"cell": cell.name, "status": "done", "test": {}})

    mine.run(run_cell=mine_runs, report=lambda line: None)
    assert done == [("mine", "seed=0"), ("theirs", "seed=1")]
