"""`divco-benchmark memory`: peak memory and time of a training step, by how activations are kept."""

import contextlib
import dataclasses
import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divco_tf.models.branch_stack import build
from divco_tf.models.division import branch_spec
from divco_tf.models.recompute.memory import step_memory
from divco_tf.models.template import build_template
from divco_tf.tools.benchmarks.process import Step, Worker
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.optim.optimizer import SGD

PLAIN = "plain"
MICRO_BATCHES = 4
PEAKS = 2
"""They hardly differ from step to step."""
WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    f"{MICRO_BATCHES} micro-batches": {"micro_batches": MICRO_BATCHES},
    "remat": {"remat": True},
    f"remat, {MICRO_BATCHES} micro-batches": {"remat": True, "micro_batches": MICRO_BATCHES},
    "branches in turn": {"branches_in_turn": True},
    "remat, branches in turn": {"remat": True, "branches_in_turn": True},
}
"""Arguments of CoTrainingModel."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured."""

    backbone: str
    split_factor: int
    batch_size: int
    image_size: int
    num_classes: int
    jit: str

    @property
    def _data(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes, "input_shape": (self.image_size, self.image_size, 3)}

    def step(self, way: str) -> Step:
        """A training step, in this process."""
        stack = build(self.backbone, split_factor=self.split_factor, **self._data)
        model = CoTrainingModel(stack, jit=self.jit, **WAYS[way])
        model.compile(SGD(0.01, momentum=0.9))
        rng = np.random.default_rng(0)
        views = rng.standard_normal((self.batch_size, self.split_factor, *stack.view_shape), np.float32)
        batch = tf.constant(views), tf.constant(rng.integers(self.num_classes, size=self.batch_size))
        function = tf.function(model.train_step, autograph=False)
        return lambda: function(batch)["loss"].numpy()

    def worker(self, way: str, report: Callable[[str], None]) -> Worker:
        """The step in a process of its own."""
        at_once = 1 if WAYS[way].get("branches_in_turn") else self.split_factor
        shared = None if self.jit == "on" else at_once
        name, step = f"S={self.split_factor}, {way}", functools.partial(self.step, way)
        return Worker(name, step, cpu_threads=shared, report=report, measures_memory=True)

    def estimate(self, way: str) -> int:
        """Bytes that a step takes, by `step_memory`."""
        spec = branch_spec(self.backbone, split_factor=self.split_factor)
        template = build_template(spec, **self._data)
        sizes = {"batch_size": self.batch_size, "split_factor": self.split_factor}
        return step_memory(template, **sizes, **WAYS[way]).step


def run(
    *,
    report: Callable[[str], None],
    backbone: str = "wide_resnet40_1",
    split_factors: Sequence[int] = (1, 2, 4),
    batch_size: int = 32,
    image_size: int = 32,
    num_classes: int = 10,
    rounds: int = 5,
    steps: int = 10,
    xla: bool = False,
) -> dict[str, Any]:
    """Measures every way for each split factor, each in a process of its own; see the module `benchmark`.

    The peak is what a step takes beside what was there before it: weights, optimizer, batch, program.

    Returns:
      As `step.run`; systems by split factor, then by way.
    """
    for split_factor in split_factors:
        branch_spec(backbone, split_factor=split_factor)  # refuses before a process is started
    systems, rows = {}, []
    for split_factor in split_factors:
        settings = Settings(backbone, split_factor, batch_size, image_size, num_classes, "on" if xla else "off")
        ways = [way for way in WAYS if split_factor > 1 or "turn" not in way]  # there is one branch
        systems[f"S={split_factor}"] = measured = _measure(settings, ways, rounds, steps, report)
        rows += [_row(f"S={split_factor}, {way}", times, measured[PLAIN]) for way, times in measured.items()]
    return {
        "head": ("", "peak MB", "of plain", "estimate MB", "off by", "a step s", "of plain", "fastest s"),
        "rows": rows,
        "settings": {
            **dataclasses.asdict(settings),
            "split_factor": list(split_factors),
            "rounds": rounds,
            "steps": steps,
        },
        "systems": systems,
    }


def _measure(
    settings: Settings, ways: Sequence[str], rounds: int, steps: int, report: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        workers = {way: stack.enter_context(settings.worker(way, report)) for way in ways}
        for way, worker in workers.items():
            worker.times["estimate_mb"] = settings.estimate(way) / 1e6
            worker.times["peaks_mb"] = [worker.step_bytes() / 1e6 for _ in range(PEAKS)]
        for _ in range(rounds):
            for worker in workers.values():
                worker.times["rounds"].append(worker.seconds(steps) / steps)
        return {way: worker.times for way, worker in workers.items()}


def _row(name: str, system: dict[str, Any], plain: dict[str, Any]) -> tuple[str, ...]:
    system["step_mb"] = statistics.median(system["peaks_mb"])
    system["memory_of_plain"] = system["step_mb"] / plain["step_mb"]
    system["estimate_off"] = system["estimate_mb"] / system["step_mb"] - 1
    system["median"] = statistics.median(system["rounds"])
    system["step_of_plain"] = statistics.median(a / b for a, b in zip(system["rounds"], plain["rounds"], strict=True))
    return (
        name,
        f"{system['step_mb']:.0f}",
        f"{system['memory_of_plain']:.2f}",
        f"{system['estimate_mb']:.0f}",
        f"{100 * system['estimate_off']:+.0f} %",
        f"{system['median']:.3f}",
        f"{system['step_of_plain']:.2f}",
        f"{min(system['rounds']):.3f}",
    )
