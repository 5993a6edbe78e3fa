"""`divco-benchmark checkpoint`: how long training waits for a checkpoint that a thread writes."""

import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from divco_tf.models.branch_stack import build
from divco_tf.tools._benchmark_step import Settings, cotraining_model, machine, stack_step
from divco_tf.training.checkpoint import Checkpoints, CheckpointWriter


def run(
    backbone: str,
    *,
    split_factor: int,
    batch_size: int,
    image_size: int,
    num_classes: int,
    rounds: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Times steps with nobody writing, and those during which a checkpoint is written, in turn.

    What a save costs is what the steps until the file is there take beyond as many undisturbed ones: the call, the
    copies of variables that the next step makes, and what hashing and writing take of the cores.

    Args:
      backbone: registered; divided by `split_factor`.
      split_factor: S.
      batch_size: images a step.
      image_size: pixels a side.
      num_classes: K.
      rounds: saves.
      report: called with a line for each.

    Returns:
      As `_benchmark_step.run`.
    """
    settings = Settings(backbone, {"split_factor": split_factor}, batch_size, image_size, num_classes)
    model = cotraining_model(build(backbone, split_factor=split_factor, **settings.sizes))
    step = stack_step(model, *settings.batch())
    step()
    state = {"stack": model.stack.variables, "optimizer": model.optimizer.variables}
    times: dict[str, Any] = {"steps": [], "call": [], "written": [], "cost": []}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(pathlib.Path(folder), keep=1)
        writer = CheckpointWriter(checkpoints, report=report)
        step()
        for index in range(rounds):
            undisturbed = [_seconds(step) for _ in range(3)]
            start = time.perf_counter()
            writer.save(index, state)
            called = time.perf_counter() - start
            disturbed = [_seconds(step)]
            while not checkpoints.all() or checkpoints.all()[-1].step < index:
                disturbed.append(_seconds(step))
            written = time.perf_counter() - start
            usual = statistics.median(undisturbed)
            cost = called + sum(disturbed) - len(disturbed) * usual
            for name, value in zip(times, (undisturbed, called, written, cost), strict=True):
                times[name].append(value)
            report(f"save {index + 1}/{rounds}: call {1000 * called:.0f} ms, {len(disturbed)} steps meanwhile")
            writer.wait()
        megabytes = sum(path.stat().st_size for path in checkpoints.all()[-1].path.iterdir()) / 2**20
    middle = {
        "step": statistics.median(second for row in times["steps"] for second in row),
        **{name: statistics.median(times[name]) for name in ("call", "written", "cost")},
    }
    return {
        "head": ("", "S", "MB", "a step s", "the call ms", "there after s", "cost s", "in steps"),
        "rows": [
            (
                backbone,
                str(split_factor),
                f"{megabytes:.0f}",
                f"{middle['step']:.3f}",
                f"{1000 * middle['call']:.0f}",
                f"{middle['written']:.2f}",
                f"{middle['cost']:.3f}",
                f"{middle['cost'] / middle['step']:.2f}",
            )
        ],
        "command": " ".join(["divco-benchmark", *sys.argv[1:]]),
        "machine": machine(),
        "settings": {"backbone": backbone, "split_factor": split_factor, "batch_size": batch_size, "rounds": rounds},
        "systems": {"checkpoint": {**times, "megabytes": megabytes, **{f"median_{k}": v for k, v in middle.items()}}},
    }


def _seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
