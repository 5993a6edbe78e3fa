"""`divco-benchmark xla`: branches compiled by XLA and not, a small network of every family, S = 4."""

import contextlib
import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from divco_tf.errors import RunError
from divco_tf.models.branch_stack import build
from divco_tf.models.division import branch_spec
from divco_tf.runtime.compute import resolve_jit
from divco_tf.tools.benchmarks.process import OutOfTime, Step, Worker
from divco_tf.tools.benchmarks.step import Settings, cotraining_model, stack_step, take_rounds

ONE_BLOCK_A_STAGE = {"blocks": (1, 1, 1, 1)}
SMALL: dict[str, dict[str, Any]] = {
    "wide_resnet16_8": {"depth": 10, "widen_factor": 1},
    "resnet110": {"depth": 11},
    "resnext29_8x64d": {"depth": 11, "width": 16, "groups": 2},
    "se_resnet110": {"depth": 11},
    "pyramidnet164": {"depth": 11, "widening": 16.0},
    "densenet190": {"depth": 10, "growth": 12, "shake_drop": 0.1},
    "shake_resnet26_2x96d": {"depth": 8, "width": 16},
    "efficientnet_b0_cifar": {"blocks": (1,) * 7},
    "resnet50": {**ONE_BLOCK_A_STAGE, "width": 16},
    "resnext50_32x4d": {**ONE_BLOCK_A_STAGE, "width": 16, "groups": 4, "base_width": 16},
    "wide_resnet50_2": {**ONE_BLOCK_A_STAGE, "width": 16},
    "se_resnet50_b": {**ONE_BLOCK_A_STAGE, "width": 16},
    "se_resnext101_64x4d": {**ONE_BLOCK_A_STAGE, "width": 16, "groups": 4, "base_width": 16},
    "resnest101": {**ONE_BLOCK_A_STAGE, "width": 16},
    "resnexst50_4x16d": {**ONE_BLOCK_A_STAGE, "width": 16, "groups": 2},
    "efficientnet_b0": {"blocks": (1,) * 7},
    "keras_mobilenet_v2": {"alpha": 0.35},
    "keras_efficientnet_v2_b0": {"width_coefficient": 0.25, "depth_coefficient": 0.1},
    "keras_cv_resnet50_v2": {"blocks": (2, 2, 2, 2), "width": 16},
    "keras_cv_csp_darknet_tiny": {"blocks": (1, 1, 1, 1), "width": 16},
    "keras_cv_mobilenet_v3_small": {"alpha": 0.35},
    "keras_cv_efficientnet_v2_b0": {"width_coefficient": 0.25, "depth_coefficient": 0.1},
}
"""A backbone of every family, for most types of spec too, and the fields that make it small."""
BRANCHES = 4
JITS = ("off", "on")


@dataclasses.dataclass(frozen=True)
class System:
    """A backbone's stack, whose training step is timed with `jit` "off" or "on"."""

    backbone: str
    jit: str
    settings: Settings

    def step(self) -> Step:
        """Makes it in this process."""
        small = SMALL.get(self.backbone, {})
        stack = build(self.backbone, copies=BRANCHES, **self.settings.sizes, **small)
        return stack_step(cotraining_model(stack, jit=self.jit), *self.settings.batch())

    def worker(self, report: Callable[[str], None], limit: float) -> Worker:
        """The system in a process of its own, with the threads that `divco-train` gives it."""
        threads = None if resolve_jit(self.jit) else BRANCHES
        return Worker(f"{self.backbone}, jit={self.jit}", self.step, cpu_threads=threads, report=report, limit=limit)


def run(
    *,
    report: Callable[[str], None],
    backbones: Sequence[str] = tuple(SMALL),
    batch_size: int = 8,
    image_size: int = 32,
    num_classes: int = 10,
    rounds: int = 5,
    steps: int = 10,
    limit: float = 60.0,
) -> dict[str, Any]:
    """Times the first step, with trace and compilation, and the following ones; see the module `benchmark`.

    Args:
      backbones: names; those of SMALL are made small.
      batch_size: images a step.
      image_size: pixels a side.
      num_classes: K.
      rounds: in which both take their turn.
      steps: a turn.
      limit: seconds for a system until its first step; one that takes longer is ended, and told.
      report: called with each line of progress.

    Returns:
      As `step.run`; systems by backbone, then by jit.
    """
    for backbone in backbones:
        branch_spec(backbone)  # refuses before a process is started
    systems = {}
    for backbone in backbones:
        settings = Settings(backbone, {"copies": BRANCHES}, batch_size, image_size, num_classes)
        cases = [System(backbone, jit, settings) for jit in JITS]
        systems[backbone] = _timed(cases, rounds=rounds, steps=steps, limit=limit, report=report)
    return {
        "head": ("", "first step s", "XLA", "ratio", "a step ms", "XLA", "ratio"),
        "rows": [_row(backbone, timed) for backbone, timed in systems.items()],
        "settings": {
            **{"batch_size": batch_size, "image_size": image_size, "num_classes": num_classes, "copies": BRANCHES},
            **{"rounds": rounds, "steps": steps, "limit": limit},
            "small": {backbone: SMALL.get(backbone, {}) for backbone in backbones},
        },
        "systems": systems,
    }


def _timed(
    cases: Sequence[System], *, rounds: int, steps: int, limit: float, report: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    timed, workers = {}, {}
    with contextlib.ExitStack() as stack:
        for case in cases:
            try:
                workers[case.jit] = stack.enter_context(case.worker(report, limit))
                timed[case.jit] = workers[case.jit].times
            except RunError as error:
                cell = f"> {limit:g}" if isinstance(error, OutOfTime) else "failed"
                timed[case.jit] = {"cell": cell, "error": str(error)}
                report(str(error))
        told = functools.partial(_with_name, cases[0].backbone, report)
        try:
            take_rounds(workers, rounds if workers else 0, steps, told)
        except RunError as error:
            report(str(error))
    for times in timed.values():
        if times.get("rounds"):
            times["median"] = statistics.median(times["rounds"])
    return timed


def _with_name(name: str, report: Callable[[str], None], line: str) -> None:
    report(f"{name}, {line}")


def _row(backbone: str, timed: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    cells = [backbone]
    for key, scale, digits in (("first", 1, 2), ("median", 1e3, 1)):
        off, on = (timed[jit] for jit in JITS)
        cells += [f"{scale * times[key]:.{digits}f}" if key in times else times.get("cell", "") for times in (off, on)]
        cells.append(f"{on[key] / off[key]:.2f}" if key in on and key in off else "")
    return tuple(cells)
