"""A sweep: one cell after the other, each trained, and judged on all metrics, into one row of results.jsonl.

What lies in its folder: sweep.json (the experiment that all cells start from), results.jsonl, `cells/` (a model_dir
each), `predictions/` (what each branch answers to every image), `judged/` (the same, small enough to keep).
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from divco_tf import files
from divco_tf.analysis.grid import Cell, with_arguments
from divco_tf.analysis.judged import judged, save_judged
from divco_tf.analysis.outputs import Outputs, outputs, save_outputs
from divco_tf.analysis.results import add_row, read_rows
from divco_tf.errors import InputError, Preempted, RunError
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.options import Options
from divco_tf.runs.progress import Standing
from divco_tf.runs.records.experiment_json import read_json, told_difference, versions

RECORD = "sweep.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Cells of one experiment in one folder.

    Attributes:
      experiment: what all cells start from.
      cells: what each sets.
      folder: of the sweep alone.
      data_dir: where the dataset lies.
      options: where and how fast.
      test: whether cells are judged on the test images; False opens none, and judges on held-out ones.

    Raises:
      InputError: a folder of another sweep.
    """

    experiment: Experiment
    cells: Sequence[Cell]
    folder: pathlib.Path
    data_dir: str | None = None
    options: Options = Options(evaluate_every=0, contact_sheet=False)
    test: bool = True

    def begin(self) -> None:
        """Makes the folder this sweep's, and a row of each cell that no experiment is.

        Raises:
          InputError: it is another's, or cannot be written, or no cell is an experiment.
        """
        refused = {}
        for cell in self.cells:
            try:
                self.experiment_of(cell)
            except InputError as error:
                refused[cell] = error
        if len(refused) == len(self.cells):
            raise next(iter(refused.values()), InputError("A sweep has no cells. Received: none; another shard has."))
        identity = self.experiment.identity(None)
        path = files.make_writable(self.folder, "sweep's folder") / RECORD
        if path.exists():
            before = read_json(path, dict, "the record of a sweep").get("experiment", {})
            # What a release did not have yet had its default.
            if any(before.get(key, identity[key]) != identity[key] for key in identity):
                told = told_difference("", before, identity)
                raise InputError(f"{self.folder} holds another sweep. Received: {told}; choose another folder.")
        else:
            files.write_json(path, {"experiment": identity, "versions": versions()})
        left = self.left()
        for cell, error in refused.items():
            if cell in left:
                self.add_failure(cell, str(error))

    def experiment_of(self, cell: Cell) -> Experiment:
        """What a cell trains; a length in steps takes the place of one in epochs, and the other way round.

        Raises:
          InputError: no such experiment.
        """
        lengths = {"steps": "epochs", "epochs": "steps"}
        other = {lengths[name]: None for name in cell.arguments if name in lengths}
        return with_arguments(self.experiment, {**other, **cell.arguments})

    def left(self, *, retry_failed: bool = False) -> list[Cell]:
        """The cells that have no row yet, or one without the test images that are to be judged."""

        def ended(row: Mapping[str, Any]) -> bool:
            return not retry_failed if row["status"] == "failed" else "test" in row or not self.test

        names = {row["cell"] for row in read_rows(self.folder) if ended(row)}
        return [cell for cell in self.cells if cell.name not in names]

    def model_dir(self, cell: Cell) -> pathlib.Path:
        """Of a cell's run."""
        return self.folder / "cells" / cell.name

    def run(
        self,
        *,
        run_cell: Callable[[Cell], None] | None = None,
        retry_failed: bool = False,
        report: Callable[[str], None] = print,
    ) -> None:
        """Runs what is left, cell by cell; what another process works on is left to it, and waited for at the end.

        Args:
          run_cell: how; in this process unless given. It may raise `InputError` or `RunError`: a row with the reason.
          retry_failed: run again what has failed before.
          report: called with each line of progress.

        Raises:
          Preempted: SIGTERM came; the same call goes on.
        """
        self.begin()
        run_cell = run_cell or self.run_cell
        again = {row["cell"] for row in read_rows(self.folder) if row["status"] == "failed" and retry_failed}
        while left := [cell for cell in self.cells if cell.name in again or cell in self.left()]:
            if not any([self._run_if_free(cell, run_cell, again, report) for cell in left]):
                time.sleep(1)  # all that is left is being worked on by others

    def _run_if_free(
        self, cell: Cell, run_cell: Callable[[Cell], None], again: set[str], report: Callable[[str], None]
    ) -> bool:
        """Runs a cell, unless another process has it or has ended it; whether it did."""
        claim = self.folder / ".claims" / cell.name
        claim.mkdir(parents=True, exist_ok=True)
        with files.FolderLock(claim) as lock:
            try:
                lock.acquire("cell", report=report)
            except InputError:
                return False
            if cell.name not in again and cell not in self.left():
                return False
            again.discard(cell.name)
            done = len(self.cells) - len(self.left())
            report(f"cell {done + 1} of {len(self.cells)}: {cell.name}")
            try:
                run_cell(cell)
            except Preempted:
                raise
            except (InputError, RunError) as error:
                report(f"failed: {error}")
                self.add_failure(cell, str(error))
            else:
                if cell in self.left():  # else it would be run for ever
                    self.add_failure(cell, "it ended without a result; what it printed on stderr says why")
        return True

    def add_failure(self, cell: Cell, reason: str) -> None:
        """The row of a cell that failed."""
        add_row(self.folder, {"cell": cell.name, "arguments": cell.arguments, "status": "failed", "reason": reason})

    def run_cell(
        self,
        cell: Cell,
        *,
        report: Callable[[str], None] = lambda line: None,
        watch: Callable[[Standing], None] | None = None,
    ) -> dict[str, Any]:
        """Trains and judges a cell in this process, and adds its row.

        Args:
          cell: which.
          report, watch: as `train`'s.

        Raises:
          InputError, RunError, Preempted: as `train` does.
        """
        from divco_tf.runs.loop import train

        started = time.monotonic()
        experiment = self.experiment_of(cell)
        # `outputs` answers to the test images once, below.
        options = dataclasses.replace(self.options, evaluate_test=self.test and not experiment.held_out)
        model_dir = self.model_dir(cell)
        told = {"report": report, "watch": watch}
        train(experiment, model_dir=model_dir, data_dir=self.data_dir, options=options, **told)
        splits = ["held_out"] * bool(experiment.held_out) + ["test"] * self.test
        found = {
            split: outputs(model_dir, split=split, data_dir=self.data_dir, weights=weights_judged(experiment))
            for split in splits
        }
        for kind, save, content in (
            ("predictions", save_outputs, found),
            ("judged", save_judged, {split: judged(each) for split, each in found.items()}),
        ):
            (self.folder / kind).mkdir(exist_ok=True)
            save(self.folder / kind / f"{cell.name}.npz", content)
        row = row_of(cell, experiment, model_dir, found)
        before = next((each for each in read_rows(self.folder) if each["cell"] == cell.name), {})
        row["seconds"] = time.monotonic() - started + before.get("seconds", 0.0)
        add_row(self.folder, row)
        return row


def weights_judged(experiment: Experiment) -> str:
    """Which weights are judged: the moving average where there is one."""
    return "last" if experiment.ema_decay is None else "ema"


def row_of(cell: Cell, experiment: Experiment, model_dir: pathlib.Path, found: Mapping[str, Outputs]) -> dict[str, Any]:
    """The row of a cell that is done.

    Args:
      cell: which.
      experiment: that it trained.
      model_dir: of its run.
      found: its outputs by split.
    """
    from divco_tf.models.sizes import Sizes
    from divco_tf.runs.model_dir import open_model_dir

    run, size = open_model_dir(model_dir), experiment.preprocessing.image_size
    classes = len(run.class_names)
    branch = Sizes(num_classes=classes, input_shape=(size, size, 3))(run.branch or experiment.branch_spec(classes))
    return {
        "cell": cell.name,
        "arguments": cell.arguments,
        "status": "done",
        "backbone": experiment.backbone,
        "dataset": experiment.dataset,
        "split_factor": experiment.split_factor,
        "seed": experiment.seed,
        "parameters": branch.parameters * experiment.split_factor,
        "multiply_adds": branch.multiply_adds * experiment.split_factor * max(experiment.dropout_samples, 1),
        "steps": run.checkpoint().step,
        "seconds_per_step": run.seconds_per_step,
        "curve": [
            {name: record[name] for name in ("step", "split", "accuracy", "negative_log_likelihood")}
            for record in run.records
        ],
        **{split: _metrics(each) for split, each in found.items()},
        **({"calibrated": _calibrated(found["held_out"], found["test"])} if len(found) == 2 else {}),
        "versions": versions(),
    }


def _calibrated(held_out: Outputs, test: Outputs) -> dict[str, float]:
    """What temperatures and prediction sets that were fitted on held-out images make of the test images."""
    from divco_tf.analysis import calibration, conformal
    from divco_tf.analysis.predictions import logarithms
    from divco_tf.training.metrics import expected_calibration_error, negative_log_likelihood

    threshold = conformal.fit_threshold(held_out.probabilities, held_out.labels)
    sets = conformal.prediction_sets(test.probabilities, threshold)
    found = {"set_size": conformal.mean_size(sets), "set_coverage": conformal.coverage(sets, test.labels)}
    ensembles = [logarithms(each.probabilities) for each in (held_out, test)]
    for name, (before, after) in {"": ensembles, "branch_": [held_out.logits, test.logits]}.items():
        temperature = calibration.fit_temperature(before, held_out.labels)
        probabilities = calibration.apply_temperature(after, temperature)
        found |= {
            f"{name}temperature": temperature,
            f"{name}negative_log_likelihood": negative_log_likelihood(probabilities, test.labels),
            f"{name}expected_calibration_error": expected_calibration_error(probabilities, test.labels),
        }
    return found


def _metrics(of_split: Outputs) -> dict[str, Any]:
    from divco_tf.analysis.metrics import all_metrics

    metrics: dict[str, Any] = all_metrics(of_split.logits, of_split.probabilities, of_split.labels)
    classes = of_split.logits.argmax(axis=2)
    metrics["branch_accuracies"] = np.mean(classes == of_split.labels[:, None], axis=0).tolist()
    return metrics
