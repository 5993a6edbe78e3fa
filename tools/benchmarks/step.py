"""`divco-benchmark step`: a training step of the branch stack beside what it could have been."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.division import branch_spec
from divco_tf.models.layers import basic
from divco_tf.models.template import build_network
from divco_tf.tools.benchmarks.process import Step, Worker
from divco_tf.training import losses
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.optimizer import SGD

STACK, XLA, SEPARATE = "branch stack", "branch stack, XLA", "separate Keras models"
DEFAULT_THREADS, SHARED_CORES = "branch stack, TensorFlow's threads", "separate Keras models, the stack's threads"
LARGE, TORCH = "S=1 network", "PyTorch, eager"
WEIGHT, RATE, MOMENTUM = 0.5, 0.01, 0.9


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed; `division` is what `branch_spec` takes, {"split_factor": 4}."""

    backbone: str
    division: Mapping[str, int]
    batch_size: int
    image_size: int
    num_classes: int

    @property
    def split_factor(self) -> int:
        """S."""
        return max(self.division.values())

    @property
    def sizes(self) -> dict[str, Any]:
        """What `build` is told about the data."""
        return {"num_classes": self.num_classes, "input_shape": (self.image_size, self.image_size, 3)}

    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Views [B, S, H, W, 3] and labels [B, K], drawn from a fixed seed, float32."""
        rng = np.random.default_rng(0)
        views = rng.standard_normal((self.batch_size, self.split_factor, *self.sizes["input_shape"]), np.float32)
        labels = np.eye(self.num_classes, dtype=np.float32)[rng.integers(self.num_classes, size=self.batch_size)]
        return views, labels

    def system(self, name: str) -> Step:
        """A training step of the system `name`, in this process."""
        spec, sizes = branch_spec(self.backbone, **self.division), self.sizes
        views, labels = self.batch()
        if name in (SEPARATE, SHARED_CORES):
            return _separate_step(spec, self.split_factor, sizes, views, labels)
        if name == TORCH:
            return _torch_step(spec, self.split_factor, sizes, views, labels)
        if name == LARGE:
            return stack_step(cotraining_model(build(self.backbone, **sizes)), views[:, :1], labels)
        stack = build(spec=spec, copies=self.split_factor, **sizes)
        return stack_step(cotraining_model(stack, jit="on" if name == XLA else "off"), views, labels)

    def worker(self, name: str, report: Callable[[str], None]) -> Worker:
        """The system `name` in a process of its own, on the threads that it would be used with."""
        shares = name in (STACK, SHARED_CORES)
        make = functools.partial(self.system, name)
        return Worker(name, make, cpu_threads=self.split_factor if shares else None, report=report)


def run(
    *,
    report: Callable[[str], None],
    backbone: str = "wide_resnet40_1",
    split_factor: int = 4,
    undivided: bool = False,
    batch_size: int = 16,
    image_size: int = 32,
    num_classes: int = 10,
    rounds: int = 5,
    steps: int = 10,
    xla: bool = False,
) -> dict[str, Any]:
    """Times every system in a process of its own, since threads are a process's; see the module `benchmark`.

    Returns:
      head and rows of the table, and what JSON holds: settings, systems by name.
    """
    division = {"copies" if undivided else "split_factor": split_factor}
    branch_spec(backbone, **division)  # refuses before a process is started
    settings = Settings(backbone, division, batch_size, image_size, num_classes)
    names = [STACK, DEFAULT_THREADS, SEPARATE, SHARED_CORES]
    if "copies" not in division:
        names.append(LARGE)  # undivided copies have no large network
    names += [XLA] * xla + [TORCH] * bool(torch_version())
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(settings.worker(name, report)) for name in names}
        take_rounds(workers, rounds, steps, report)
    systems = {name: worker.times for name, worker in workers.items()}
    return {
        "head": ("", "build s", "trace + first step s", "of separate", "a step s", "of separate", "fastest s"),
        "rows": [_row(name, system, systems[SEPARATE]) for name, system in systems.items()],
        "settings": {**division, **dataclasses.asdict(settings), "rounds": rounds, "steps": steps},
        "systems": systems,
    }


def machine() -> dict[str, Any]:
    """What a timing was taken on."""
    gpus = [device.name for device in tf.config.list_physical_devices("GPU")]
    versions = {"python": platform.python_version(), "tensorflow": tf.__version__, "keras": keras.__version__}
    versions["torch"] = torch_version()
    return {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine(), "gpus": gpus, **versions}


def take_rounds(workers: Mapping[str, Worker], rounds: int, steps: int, report: Callable[[str], None]) -> None:
    """Lets every worker take its turn of `steps` steps in each round; their `times` hold what a step took."""
    for worker in workers.values():
        worker.seconds(1)  # caches and thread pools are warm then
    for index in range(rounds):
        for worker in workers.values():
            worker.times["rounds"].append(worker.seconds(steps) / steps)
        told = ", ".join(f"{name} {worker.times['rounds'][-1]:.3f} s" for name, worker in workers.items())
        report(f"round {index + 1}/{rounds}: {told}")


def _row(name: str, system: dict[str, Any], separate: dict[str, Any]) -> tuple[str, ...]:
    ratio = statistics.median(a / b for a, b in zip(system["rounds"], separate["rounds"], strict=True))
    system["first_of_separate"] = system["first"] / separate["first"]
    system["step_of_separate"] = ratio
    system["median"] = statistics.median(system["rounds"])
    return (
        name,
        f"{system['build']:.2f}",
        f"{system['first']:.2f}",
        f"{system['first_of_separate']:.2f}",
        f"{system['median']:.3f}",
        f"{ratio:.2f}",
        f"{min(system['rounds']):.3f}",
    )


def cotraining_model(stack: BranchStack, **options: Any) -> CoTrainingModel:
    """The model whose step is timed, compiled; `options` are the model's."""
    model = CoTrainingModel(stack, cotraining=CoTraining(weight=WEIGHT), **{"jit": "off", **options})
    model.compile(SGD(RATE, momentum=MOMENTUM))
    return model


def stack_step(model: CoTrainingModel, views: np.ndarray, labels: np.ndarray) -> Step:
    """A training step of the model, on one batch again and again."""
    function, batch = tf.function(model.train_step, autograph=False), (tf.constant(views), tf.constant(labels))
    return lambda: function(batch)["loss"].numpy()


def _separate_step(
    spec: Any, split_factor: int, sizes: Mapping[str, Any], views: np.ndarray, labels: np.ndarray
) -> Step:
    """S functional Keras models with Keras's own batch norm and optimizer, in one tf.function."""
    with mock.patch.object(basic, "BatchNormalization", keras.layers.BatchNormalization):
        models = [build_network(spec, name=f"branch{index}", **sizes) for index in range(split_factor)]
    variables = [variable for model in models for variable in model.trainable_variables]
    optimizer = keras.optimizers.SGD(RATE, momentum=MOMENTUM, nesterov=True)
    optimizer.build(variables)
    metrics = [keras.metrics.CategoricalAccuracy() for _ in range(split_factor + 1)]

    @tf.function(autograph=False)  # as Keras's fit traces its steps
    def step(views: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = tf.stack([model(views[:, i], training=True) for i, model in enumerate(models)], axis=1)
            loss = tf.reduce_sum(losses.cross_entropy(labels, logits), axis=1) + WEIGHT * losses.jensen_shannon(logits)
            loss = tf.reduce_mean(loss)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        optimizer.apply(gradients, variables)
        metrics[-1].update_state(labels, losses.ensemble_probabilities(logits))
        for index in range(split_factor):
            metrics[index].update_state(labels, logits[:, index])
        return loss

    batch = tf.constant(views), tf.constant(labels)
    return lambda: step(*batch).numpy()


def torch_version() -> str | None:
    """The version of the PyTorch that is timed beside; None where it, or the laboratory with its twins, is missing."""
    if importlib.util.find_spec("divco_tf.tools.laboratory") is None:
        return None
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch_step(spec: Any, split_factor: int, sizes: Mapping[str, Any], views: np.ndarray, labels: np.ndarray) -> Step:
    import torch
    from torch.nn import functional as F

    from divco_tf.tools.laboratory.torch_twin import TorchTwin

    network = build_network(spec, **sizes)
    twins = [TorchTwin(network).to(memory_format=torch.channels_last).train() for _ in range(split_factor)]
    parameters = [parameter for twin in twins for parameter in twin.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM, nesterov=True)
    per_view = [
        torch.tensor(np.ascontiguousarray(views[:, i].transpose(0, 3, 1, 2))).to(memory_format=torch.channels_last)
        for i in range(split_factor)
    ]
    target = torch.tensor(labels)

    def step() -> float:
        optimizer.zero_grad()
        logits = torch.stack([twin(view) for twin, view in zip(twins, per_view, strict=True)], 1)
        log_p = F.log_softmax(logits, -1)
        log_mean = torch.logsumexp(log_p, 1) - np.log(split_factor)
        entropy = -(log_p.exp() * log_p).sum(-1).mean(1)
        js = -(log_mean.exp() * log_mean).sum(-1) - entropy
        loss = (-(target[:, None] * log_p).sum((1, 2)) + WEIGHT * js).mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
