"""`divco-benchmark checkpoint`: how long training waits for a checkpoint that a thread writes."""

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

from divco_tf.models.branch_stack import build
from divco_tf.runs.records.checkpoints import Checkpoints, CheckpointWriter
from divco_tf.runs.records.variables import State
from divco_tf.runtime.compute import share_cores
from divco_tf.tools.benchmarks.step import Settings, cotraining_model, stack_step


def run(
    *,
    report: Callable[[str], None],
    backbone: str = "wide_resnet40_1",
    split_factor: int = 4,
    batch_size: int = 16,
    image_size: int = 32,
    num_classes: int = 10,
    rounds: int = 5,
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
      As `step.run`.
    """
    share_cores(split_factor)
    settings = Settings(backbone, {"split_factor": split_factor}, batch_size, image_size, num_classes)
    model = cotraining_model(build(backbone, split_factor=split_factor, **settings.sizes))
    step = stack_step(model, *settings.batch())
    step()
    state = {"stack": model.stack.variables, "optimizer": model.optimizer.variables}
    step()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(pathlib.Path(folder), keep=1)
        saves = [_save(index, state, step, checkpoints, report) for index in range(rounds)]
        megabytes = sum(path.stat().st_size for path in checkpoints.last().path.iterdir()) / 2**20
    middle = {name: statistics.median(save[name] for save in saves) for name in saves[0]}
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
        "settings": {"backbone": backbone, "split_factor": split_factor, "batch_size": batch_size, "rounds": rounds},
        "systems": {"checkpoint": {"saves": saves, "megabytes": megabytes, "median": middle}},
    }


def _save(
    index: int, state: State, step: Callable[[], Any], checkpoints: Checkpoints, report: Callable[[str], None]
) -> dict[str, float]:
    """Saves while steps go on; seconds of an undisturbed step, the call, until the file is there, and the cost."""
    undisturbed = statistics.median(_seconds(step) for _ in range(3))
    writer = CheckpointWriter(checkpoints, report=report)
    start = time.perf_counter()
    writer.save(index, state)
    called = time.perf_counter() - start
    disturbed = [_seconds(step)]
    while checkpoints.last() is None or checkpoints.last().step < index:
        disturbed.append(_seconds(step))
    written = time.perf_counter() - start
    writer.wait()
    cost = called + sum(disturbed) - len(disturbed) * undisturbed
    save = {"step": undisturbed, "call": called, "written": written, "cost": cost}
    report(f"save {index + 1}: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in save.items()))
    return save


def _seconds(step: Callable[[], Any]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start
