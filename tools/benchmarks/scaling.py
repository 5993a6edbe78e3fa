"""`divco-benchmark scaling`: a training step over S at equal multiply-adds, over devices and over micro-batches.

And what of a step is not the network's: the overhead, as the difference to loss and gradients alone, and in pieces.
"""

import contextlib
import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models import draws
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.division import branch_spec
from divco_tf.models.sizes import count_multiply_adds
from divco_tf.models.template import build_template
from divco_tf.registry import did_you_mean
from divco_tf.runtime.strategy import branch_devices, make_strategy
from divco_tf.tools.benchmarks.process import Step, Worker
from divco_tf.tools.benchmarks.step import (
    TORCH,
    WEIGHT,
    Settings,
    cotraining_model,
    take_rounds,
    torch_version,
)
from divco_tf.training import losses
from divco_tf.training.cotraining import CoTrainingModel

STEP, ALONE = "training step", "loss and gradients alone"
STACKING, UPDATE = "stacking gradients", "finite check and update"
BATCH_SIZES = {"wide_resnet16_8": 8, "resnet110": 16, "resnext29_8x64d": 4}
"""Images a step, 32 for others: turns of about a second, as the machine is not the same from minute to minute."""
PARTS = ("division", "overhead", "devices", "micro_batches")
MICRO_BATCHES = (1, 2, 4)


@dataclasses.dataclass(frozen=True)
class System:
    """What is timed: a network divided, and how a step of it runs.

    Attributes:
      settings: network, S and sizes of the batch.
      kind: STEP, ALONE, TORCH, or a piece of a step: STACKING, UPDATE.
      strategy: of a STEP, one of runtime.STRATEGIES.
      logical_cpus: into how many devices the CPU is divided.
      micro_batches: of a STEP.
    """

    settings: Settings
    kind: str = STEP
    strategy: str = "one_device"
    logical_cpus: int = 1
    micro_batches: int = 1

    def step(self) -> Step:
        """Makes it in this process."""
        if self.kind == TORCH:
            return self.settings.system(TORCH)
        with make_strategy(self.strategy).scope() as strategy:
            places = branch_devices(self.strategy, self.settings.split_factor)
            stack = build(self.settings.backbone, **self.settings.division, **self.settings.sizes, devices=places)
            views, labels = self.settings.batch()
            if self.kind == ALONE:
                function = loss_and_gradients(stack, tf.constant(views), tf.constant(labels))
                return lambda: function()[0].numpy()
            if self.kind == STACKING:
                return stacking(stack)
            model = cotraining_model(stack, micro_batches=self.micro_batches)
            if self.kind == UPDATE:
                return update(model)
        dataset = tf.data.Dataset.from_tensor_slices((views, labels)).batch(len(labels), drop_remainder=True)
        batch = next(iter(strategy.experimental_distribute_dataset(dataset)))

        @tf.function(autograph=False)
        def step(batch: Any) -> tf.Tensor:
            return strategy.reduce("MEAN", strategy.run(model.train_step, args=(batch,))["loss"], axis=None)

        return lambda: step(batch).numpy()

    def worker(self, name: str, report: Callable[[str], None]) -> Worker:
        """The system in a process of its own, with the threads that `divco-train` gives it."""
        threads = None if self.kind == TORCH else self.settings.split_factor
        return Worker(name, self.step, cpu_threads=threads, logical_cpus=self.logical_cpus, report=report)


def run(
    *,
    report: Callable[[str], None],
    backbones: Sequence[str] = ("wide_resnet16_8", "resnet110", "resnext29_8x64d"),
    split_factors: Sequence[int] = (1, 2, 4),
    batch_size: int | None = None,
    rounds: int = 5,
    steps: int = 10,
    parts: Sequence[str] = PARTS,
    image_size: int = 32,
    num_classes: int = 10,
) -> dict[str, Any]:
    """Times every system in a process of its own, in rounds; see the module `benchmark`.

    Args:
      backbones: their names. Devices and micro-batches are measured with the first one.
      split_factors: S of `division`; the other parts have the largest.
      batch_size: images a step; None: that of BATCH_SIZES.
      rounds: in which every system takes its turn.
      steps: a turn.
      report: called with each line of progress.
      parts: which of PARTS.
      image_size: pixels a side.
      num_classes: K.

    Returns:
      The tables, and what JSON holds: settings, systems by table and name.

    Raises:
      InputError: an unknown part, or a backbone that cannot be divided so.
    """
    for part in parts:
        if part not in PARTS:
            raise InputError(f"Unknown part. Received: {part}.{did_you_mean(part, PARTS)}")

    timed = functools.partial(_timed, rounds=rounds, steps=steps, report=report)
    sizes = {"image_size": image_size, "num_classes": num_classes}
    divided = [[_settings(name, s, batch_size, **sizes) for s in split_factors] for name in backbones]
    most_divided = [max(row, key=lambda case: case.split_factor) for row in divided]
    first, systems, tables = most_divided[0], {}, []
    if "division" in parts:
        systems["division"] = {row[0].backbone: timed(_division(row)) for row in divided}
        rows = [cells for row in divided for cells in _division_rows(row, systems["division"][row[0].backbone])]
        tables.append((DIVISION, rows))
    if "overhead" in parts:
        systems["overhead"] = {case.backbone: timed(_pieces(case)) for case in most_divided}
        tables.append((OVERHEAD, [_overhead_row(case, systems["overhead"][case.backbone]) for case in most_divided]))
    for part, cases in (("devices", _devices(first)), ("micro_batches", _micro_batches(first))):
        if part in parts:
            systems[part] = timed(cases)
            tables.append(((f"{_told(first)}: {part}", "a step s", "of the first"), _rows(systems[part])))
    return {
        "tables": tables,
        "settings": {**dataclasses.asdict(first), "backbones": list(backbones), "rounds": rounds, "steps": steps},
        "systems": systems,
    }


def _settings(backbone: str, split_factor: int, batch_size: int | None, **sizes: int) -> Settings:
    return Settings(backbone, {"split_factor": split_factor}, batch_size or BATCH_SIZES.get(backbone, 32), **sizes)


def loss_and_gradients(
    stack: BranchStack, views: tf.Tensor, labels: tf.Tensor
) -> Callable[[], tuple[tf.Tensor, list[list[tf.Tensor]]]]:
    """The S branch functions of a stack, forward and backward, and nothing else of what a training step does.

    Each branch has weights of its own here: nothing is stacked, updated, checked or counted.

    Args:
      stack: whose functions and values are taken.
      views: float32 [B, S, H, W, C].
      labels: probabilities [B, K].

    Returns:
      A function that gives the loss and, for each branch, the gradient of each of its weights.
    """
    split_factor, function = stack.split_factor, stack.network.function(training=True, jit=False)

    def of_branch(variables: Sequence[keras.Variable]) -> list[list[tf.Tensor]]:
        return [[tf.identity(variable.value[branch]) for variable in variables] for branch in range(split_factor)]

    weights, moving = of_branch(stack.trainable_variables), of_branch(stack.non_trainable_variables)
    per_view = [tf.identity(view) for view in tf.unstack(views, axis=1)]
    draw = tf.zeros([len(labels), *draws.DRAW_SHAPE], tf.uint64)

    @tf.function(autograph=False)
    def step() -> tuple[tf.Tensor, list[list[tf.Tensor]]]:
        with tf.GradientTape() as tape:
            tape.watch(weights)
            calls = zip(weights, moving, per_view, strict=True)
            logits = tf.stack([function(*call, draw)[0] for call in calls], axis=1)
            loss = tf.reduce_sum(losses.cross_entropy(labels, logits), axis=1)
            if split_factor > 1:
                loss += WEIGHT * losses.jensen_shannon(logits)
            loss = tf.reduce_mean(loss)
        # Returned, since TensorFlow leaves out gradients that only a control dependency asks for.
        return loss, tape.gradient(loss, weights)

    return step


def stacking(stack: BranchStack) -> Step:
    """Puts the gradients of S branches together to those of stacked weights, by itself."""
    gradients = [
        [tf.identity(of_branch) for of_branch in tf.unstack(variable.value)] for variable in stack.trainable_variables
    ]
    function = tf.function(lambda: [tf.stack(branches) for branches in gradients], autograph=False)
    return lambda: function()[0].numpy()


def update(model: CoTrainingModel) -> Step:
    """What a step does with gradients and statistics once they are there, by itself."""
    gradients = [0.01 * variable.value for variable in model.stack.trainable_variables]
    moving = [tf.identity(variable.value) for variable in model.stack.non_trainable_variables]
    function = tf.function(lambda: model._apply_where_finite(gradients, moving, tf.ones([])), autograph=False)

    def step() -> int:
        function()
        return int(model.bad_steps.numpy())

    return step


def _pieces(settings: Settings) -> dict[str, System]:
    return {kind: System(settings, kind) for kind in (STEP, STACKING, UPDATE)}


def _division(row: Sequence[Settings]) -> dict[str, System]:
    kinds = [STEP, ALONE] + [TORCH] * bool(torch_version() and _has_twin(row[0]))
    return {f"S={case.split_factor}, {kind}": System(case, kind) for case in row for kind in kinds}


def _has_twin(settings: Settings) -> bool:
    from divco_tf.tools.laboratory.torch_twin import TorchTwin

    try:
        TorchTwin(_template(settings))
    except NotImplementedError:
        return False
    return True


def _devices(settings: Settings) -> dict[str, System]:
    """By strategy and devices: all GPUs, or 1 and 2 logical CPUs."""
    gpus = len(tf.config.list_physical_devices("GPU"))
    cases = {"one device": System(settings)}
    for strategy, counts in (("mirrored", (1, 2)), ("branch_parallel", (2,))):
        for count in [gpus] if gpus else counts:
            if strategy == "branch_parallel":  # every device has as many branches (`runtime.strategy.branch_devices`)
                count = max(used for used in range(1, count + 1) if settings.split_factor % used == 0)
                if count == 1:
                    continue
            name = f"{strategy}, {count} {'GPU' if gpus else 'logical CPU'}{'s' * (count > 1)}"
            cases[name] = System(settings, strategy=strategy, logical_cpus=1 if gpus else count)
    return cases


def _micro_batches(settings: Settings) -> dict[str, System]:
    fitting = [count for count in MICRO_BATCHES if settings.batch_size % count == 0]
    return {
        f"{count} of {settings.batch_size // count} images": System(settings, micro_batches=count) for count in fitting
    }


def _timed(
    systems: Mapping[str, System], *, rounds: int, steps: int, report: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    with contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(system.worker(name, report)) for name, system in systems.items()}
        take_rounds(workers, rounds, steps, report)
    return {
        name: {**worker.times, "median": statistics.median(worker.times["rounds"])} for name, worker in workers.items()
    }


def _ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The median over rounds, in which both had their turn one after the other."""
    return statistics.median(a / b for a, b in zip(one["rounds"], other["rounds"], strict=True))


def _fastest_ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    return min(one["rounds"]) / min(other["rounds"])


RATIOS: dict[str, Callable[[dict[str, Any], dict[str, Any]], float]] = {"median": _ratio, "fastest": _fastest_ratio}
"""Two estimates, as machines are shared: what others take away can only make a round slower."""
DIVISION = ("", "S", "a step s", "of S=1", "of PyTorch", "overhead", "fastest s", "of S=1", "of PyTorch", "overhead")
DIVISION += ("multiply-adds", "activations")


OVERHEAD = ("", "S", "images", "a step ms", "stacking ms", "check and update ms", "together")
"""The pieces are too small a part of a step to be seen in differences of whole steps."""


def _overhead_row(settings: Settings, systems: dict[str, dict[str, Any]]) -> tuple[str, ...]:
    step, *pieces = (systems[kind] for kind in (STEP, STACKING, UPDATE))
    step["overhead"] = sum(_ratio(piece, step) for piece in pieces)
    milliseconds = [f"{1e3 * system['median']:.1f}" for system in (step, *pieces)]
    told = (settings.backbone, str(settings.split_factor), str(settings.batch_size))
    return (*told, *milliseconds, f"{step['overhead']:.1%}")


def _division_rows(row: Sequence[Settings], systems: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of one backbone; their ratios are added to `systems` too."""
    rows, first = [], systems[f"S={row[0].split_factor}, {STEP}"]
    sizes = [_sizes(settings) for settings in row]
    for settings, (multiply_adds, activations) in zip(row, sizes, strict=True):
        prefix = f"S={settings.split_factor}, "
        step, alone, torch = (systems.get(prefix + kind) for kind in (STEP, ALONE, TORCH))
        step["multiply_adds"], step["activations"] = multiply_adds / sizes[0][0], activations / sizes[0][1]
        cells = [settings.backbone, str(settings.split_factor)]
        for name, ratio in RATIOS.items():
            seconds = statistics.median(step["rounds"]) if name == "median" else min(step["rounds"])
            of_torch = ratio(step, torch) if torch else None
            step[name] = seconds
            step[f"{name}_ratios"] = {
                "of_first": ratio(step, first),
                "of_torch": of_torch,
                "overhead": 1 - ratio(alone, step),
            }
            cells += [f"{seconds:.3f}", f"{ratio(step, first):.3f}", f"{of_torch:.3f}" if torch else ""]
            cells.append(f"{1 - ratio(alone, step):.1%}")
        rows.append((*cells, f"{step['multiply_adds']:.2f}", f"{step['activations']:.2f}"))
    return rows


def _template(settings: Settings) -> keras.Model:
    return build_template(branch_spec(settings.backbone, **settings.division), **settings.sizes)


def _sizes(settings: Settings) -> tuple[int, int]:
    """Multiply-adds of the S branches for one image, and how many numbers their layers put out."""
    template = _template(settings)
    activations = sum(math.prod(layer.output.shape[1:]) for layer in template.layers if len(layer.output.shape) == 4)
    return settings.split_factor * count_multiply_adds(template), settings.split_factor * activations


def _rows(systems: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    rows, first = [], next(iter(systems.values()))
    for name, system in systems.items():
        system["of_first"] = _ratio(system, first)
        rows.append((name, f"{system['median']:.3f}", f"{system['of_first']:.3f}"))
    return rows


def _told(settings: Settings) -> str:
    return f"{settings.backbone}, S={settings.split_factor}, {settings.batch_size} images"
