"""`divco-benchmark agreement`: how far weights differ by where they were trained."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from divco_tf.errors import RunError
from divco_tf.models import layers
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.branch_stack import BranchStack
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.loop import train
from divco_tf.runs.model_dir import load
from divco_tf.runs.options import Options
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.learning_rate import LearningRate
from divco_tf.training.optim.optimizer import OptimizerConfig

STEPS, SPLIT_FACTOR, RATE, LARGE_RATE = 5, 4, 1e-3, 0.1
LIMIT = 1e-5
"""Of the largest difference of a weight after so many steps at RATE."""


@dataclasses.dataclass(frozen=True)
class AgreementSpec:
    """A small network with all that draws at random, with batch norm or with nothing that looks at a batch."""

    norm: bool = False
    width: int = 8
    dropout: float = 0.3
    shake_drop: float = 0.5


@register_backbones({"agreement_no_norm": AgreementSpec(), "agreement_norm": AgreementSpec(norm=True)})
def agreement(spec: AgreementSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, C] -> logits [B, num_classes].

    Its activation is smooth: a digit's background is one value, and where a ReLU's input is near 0 there, rounding
    turns the whole background on or off.
    """

    def block(x: Any, name: str, stride: int = 1) -> Any:
        x = layers.conv(x, spec.width, 3, stride=stride, use_bias=not spec.norm, name=name)
        x = layers.norm(x, name=f"{name}.norm") if spec.norm else x
        return keras.layers.Activation("silu", name=f"{name}.silu")(x)

    x = block(image, "stem", stride=2)
    y = layers.ShakeDrop(spec.shake_drop, name="block.shake_drop")(block(x, "block"), draw=draw)
    x = keras.layers.Add(name="block.add")([x, y])
    return layers.classifier(x, num_classes, dropout=spec.dropout, draw=draw)


@dataclasses.dataclass(frozen=True)
class Case:
    """A run: `network` is one of NETWORKS.

    Attributes:
      onednn: whether oneDNN's kernels compute, which sum in another order than TensorFlow's own.
    """

    network: str
    strategy: str = "one_device"
    devices: int = 1
    micro_batches: int = 1
    jit: str = "off"
    onednn: bool = True
    rate: float = RATE

    @property
    def workers(self) -> int:
        """Processes; each has one device."""
        return self.devices if self.strategy == "multi_worker_mirrored" else 1

    def experiment(self) -> Experiment:
        """Co-training loss, mixup and ShakeDrop are on, and dropout but for the PyramidNet, which has none."""
        return Experiment(
            dataset="digits",
            split_factor=SPLIT_FACTOR,
            mixup_alpha=0.2,
            cotraining=CoTraining(weight=0.5),
            optimizer=OptimizerConfig(weight_decay=5e-4),
            learning_rate=LearningRate(rule="constant", learning_rate=self.rate),
            batch_size=256,
            **NETWORKS[self.network],
        )


NO_NORM, NORM, SYNCHRONISED = "no batch norm", "batch norm", "synchronised batch norm"
PYRAMID, SYNCHRONISED_PYRAMID = "PyramidNet", "PyramidNet, synchronised"
_NORM = {"backbone": "agreement_norm"}
_PYRAMID = {"backbone": "pyramidnet164", "overrides": {"depth": 11, "widening": 24.0}}
NETWORKS = {
    NO_NORM: {"backbone": "agreement_no_norm"},
    NORM: _NORM,
    SYNCHRONISED: {**_NORM, "synchronised_norm": True},
    PYRAMID: _PYRAMID,
    SYNCHRONISED_PYRAMID: {**_PYRAMID, "synchronised_norm": True},
}
PAIRS = (
    *(
        (Case(network, "mirrored", devices, jit=jit), Case(network))
        for network, jit in ((NO_NORM, "off"), (NO_NORM, "on"), (SYNCHRONISED, "auto"))
        for devices in (2, 4)
    ),
    *(
        (Case(network, "mirrored", devices), Case(network, micro_batches=devices))
        for network in (NORM, PYRAMID)
        for devices in (2, 4)
    ),
    (Case(NO_NORM, micro_batches=4), Case(NO_NORM)),
    *((Case(network, "multi_worker_mirrored", 2), Case(network)) for network in (NO_NORM, SYNCHRONISED)),
    (Case(NORM, "multi_worker_mirrored", 2), Case(NORM, micro_batches=2)),
    *(
        (Case(network, "branch_parallel", devices), Case(network))
        for network in (NO_NORM, NORM, PYRAMID)
        for devices in (2, 4)
    ),
    *((Case(SYNCHRONISED_PYRAMID, "mirrored", devices), Case(PYRAMID)) for devices in (2, 4)),
    *(
        (Case(network, "mirrored", 4, rate=LARGE_RATE), Case(network, rate=LARGE_RATE))
        for network in (NO_NORM, SYNCHRONISED)
    ),
    *(
        (Case(network, onednn=False, rate=rate), Case(network, rate=rate))
        for network, rate in ((NO_NORM, RATE), (NORM, RATE), (PYRAMID, RATE), (NO_NORM, LARGE_RATE), (NORM, LARGE_RATE))
    ),
)
"""Each case with what it shall be equal to; the last ones, on one device, tell what another order of sums makes."""


def run(*, report: Callable[[str], None]) -> dict[str, Any]:
    """Trains every case in processes of their own and compares weights and statistics.

    Returns:
      As `step.run`.
    """
    with tempfile.TemporaryDirectory() as folder:
        trained: dict[Case, BranchStack] = {}
        for case in dict.fromkeys(case for pair in PAIRS for case in reversed(pair)):
            trained[case] = _trained(case, pathlib.Path(folder) / str(len(trained)))
            report(f"trained: {_told(case)}")
        systems = {
            f"{_told(case)} / {_told(other)}": _differences(trained[case], trained[other], other)
            for case, other in PAIRS
        }
    return {
        "head": (
            f"after {STEPS} steps",
            "compared with",
            "weights differ by",
            "moved by",
            "statistics",
            "moved by",
        ),
        "rows": [
            (*name.split(" / "), *(f"{value:.1e}" for value in found.values())) for name, found in systems.items()
        ],
        "settings": {
            "steps": STEPS,
            "split_factor": SPLIT_FACTOR,
            "learning_rate": RATE,
            "batch_size": 256,
            "limit": LIMIT,
        },
        "systems": systems,
    }


def _told(case: Case) -> str:
    devices = f" on {case.devices}" if case.devices > 1 else ""
    told = "" if case.onednn else ", TensorFlow's kernels"
    told += f", rate {case.rate}" * (case.rate != RATE)
    micro_batches = f", {case.micro_batches} micro-batches" if case.micro_batches > 1 else ""
    return f"{case.network}: {case.strategy}{devices}{micro_batches}{', XLA' * (case.jit == 'on')}{told}"


def _trained(case: Case, model_dir: pathlib.Path) -> BranchStack:
    command = [sys.executable, "-m", __name__, json.dumps(dataclasses.asdict(case)), str(model_dir)]
    if case.workers > 1:
        command = [sys.executable, "-m", "divco_tf.tools.launch", str(case.workers), *command]
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1" if case.onednn else "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1]
        raise RunError(f"A run has failed. Received: {_told(case)}: {last}")
    return load(model_dir)


def _differences(one: BranchStack, other: BranchStack, case: Case) -> dict[str, float]:
    """Of the trained stacks and, for scale, how far `other` is from how it began."""
    initial = case.experiment().build(10)
    return {
        "weights": _largest(one.trainable_variables, other.trainable_variables),
        "weights_moved": _largest(other.trainable_variables, initial.trainable_variables),
        "statistics": _largest(one.non_trainable_variables, other.non_trainable_variables),
        "statistics_moved": _largest(other.non_trainable_variables, initial.non_trainable_variables),
    }


def _largest(some: list[keras.Variable], others: list[keras.Variable]) -> float:
    """The largest difference of an element."""
    pairs = zip(some, others, strict=True)
    return max((float(np.max(np.abs(a.numpy() - b.numpy()))) for a, b in pairs), default=0.0)


def _train(case: Case, model_dir: pathlib.Path) -> None:
    from divco_tf.tools.shared import app

    app.load_tensorflow()
    import tensorflow as tf

    if case.devices > 1 and case.workers == 1:
        cpus = [tf.config.LogicalDeviceConfiguration()] * case.devices
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
    options = Options(
        strategy=case.strategy, micro_batches=case.micro_batches, jit=case.jit, threads=1, contact_sheet=False
    )
    train(case.experiment(), model_dir=model_dir, options=options)


if __name__ == "__main__":
    _train(Case(**json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))
