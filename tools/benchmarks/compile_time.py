"""`divco-benchmark compile`: how long deep networks take before their first training step has been taken."""

from collections.abc import Callable, Sequence
from typing import Any

from divco_tf.models.division import branch_spec
from divco_tf.tools.benchmarks.step import SEPARATE, STACK, Settings

NETWORKS = {"pyramidnet272": (32, 100), "densenet190": (32, 100), "senet154": (64, 1000)}
"""The deepest ones, with pixels a side and classes. SENet-154 at 224 pixels is no other graph, only slower."""


def run(
    *,
    report: Callable[[str], None],
    backbones: Sequence[str] = ("pyramidnet272", "densenet190", "senet154"),
    split_factor: int = 4,
    batch_size: int = 16,
) -> dict[str, Any]:
    """Build, trace and first step of the branch stack and of S separate stock Keras models, a process each.

    Args:
      backbones: their names; of 32 pixels and 100 classes unless NETWORKS says other sizes.
      split_factor: S.
      batch_size: images a step.
      report: called with each line of progress.

    Returns:
      As `step.run`; systems by backbone, then by name.
    """
    for backbone in backbones:
        branch_spec(backbone, split_factor=split_factor)  # refuses before a process is started
    systems, rows = {}, []
    for backbone in backbones:
        image_size, num_classes = NETWORKS.get(backbone, (32, 100))
        settings = Settings(backbone, {"split_factor": split_factor}, batch_size, image_size, num_classes)
        systems[backbone] = {}
        for name in (STACK, SEPARATE):
            with settings.worker(name, lambda line, backbone=backbone: report(f"{backbone}, {line}")) as worker:
                systems[backbone][name] = worker.times
        rows += _rows(backbone, systems[backbone])
    return {
        "head": ("", "build s", "trace + first step s", "together s", "of separate", "peak memory MB"),
        "rows": rows,
        "settings": {"backbones": list(backbones), "split_factor": split_factor, "batch_size": batch_size},
        "systems": systems,
    }


def _rows(backbone: str, systems: dict[str, dict]) -> list[tuple[str, ...]]:
    rows = []
    for name, times in systems.items():
        times["together"] = times["build"] + times["first"]
        times["of_separate"] = times["together"] / (systems[SEPARATE]["build"] + systems[SEPARATE]["first"])
        seconds = (times["build"], times["first"], times["together"], times["of_separate"])
        rows.append((f"{backbone}, {name}", *(f"{value:.2f}" for value in seconds), f"{times['peak_mb']:.0f}"))
    return rows
