"""plan(): what a run will be, and whether data, disk and folder are ready for it, without training or writing."""

import dataclasses
import math
import os
import pathlib
import shutil
from collections.abc import Iterator

import keras
import numpy as np
import psutil
import tensorflow as tf

from divco_tf import files
from divco_tf.data.sources import ArraySource, BadImage, Source
from divco_tf.data.sources.request import in_bytes
from divco_tf.errors import InputError
from divco_tf.models.recompute.memory import step_memory
from divco_tf.models.sizes import count_multiply_adds, count_parameters
from divco_tf.models.template import build_template, synchronise_norms
from divco_tf.runs.assemble import make_pipeline, notes, open_splits
from divco_tf.runs.checks import check_arguments, check_settings, check_unused, check_warm_start
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.model_dir import check_model_dir, numbered
from divco_tf.runs.options import Options
from divco_tf.runs.records.checkpoints import Checkpoints
from divco_tf.runtime.compute import resolve_jit
from divco_tf.runtime.strategy import branch_devices, check_workers, make_strategy, named_workers

MISSING, PROBLEM = "MISSING", "PROBLEM"


@dataclasses.dataclass(frozen=True)
class Line:
    """One thing about a run.

    Attributes:
      topic: "data", "steps", ...
      text: what there is to say of it.
      mark: `MISSING` or `PROBLEM` where it keeps the run from training; else empty.
    """

    topic: str
    text: str
    mark: str = ""

    def __str__(self) -> str:
        return f"{self.topic + ':':<12} {self.mark + ': ' if self.mark else ''}{self.text}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will be.

    Attributes:
      content: a line a thing.
    """

    content: tuple[Line, ...]

    @property
    def problems(self) -> tuple[Line, ...]:
        """What keeps the run from training here and now."""
        return tuple(line for line in self.content if line.mark)

    def lines(self) -> list[str]:
        """For a human; the last line is "ready: yes", or says what is not."""
        topics = ", ".join(dict.fromkeys(line.topic for line in self.problems))
        verdict = Line("ready", f"no, see {topics}" if topics else "yes")
        return [str(line) for line in (*self.content, verdict)]


def plan(
    experiment: Experiment,
    *,
    model_dir: str | pathlib.Path,
    data_dir: str | None = None,
    options: Options | None = None,
    extend: bool = False,
) -> Plan:
    """What `train` with the same arguments will do, and what keeps it from that.

    Sizes come from shapes: no weights are built. Of the data, files are listed, headers read, and one image a split is
    decoded. Where there are none, the dataset's known number of images and classes stands in for them. What this
    computer lacks (data, space, a free folder) is a line of the plan.

    Args:
      experiment: what to train.
      model_dir: of the run; it is not made, nor anything in it.
      data_dir: where the dataset lies.
      options: where and how fast.
      extend: as `train`'s.

    Raises:
      InputError: settings that `train` refuses whatever lies where.
    """
    model_dir, options = files.local_path(model_dir, "model_dir"), options or Options()
    check_arguments(experiment, options, extend=extend)
    check_workers(options.strategy)
    devices = _Devices.of(experiment, options)
    check_settings(experiment, options, replicas=devices.replicas)
    found, data = _data(experiment, data_dir, options, model_dir)
    source = found or _stand_in(experiment)
    pipeline = make_pipeline(experiment, source, on_error=options.on_error, part=(0, devices.workers))
    run = _Planned(experiment, options, devices, len(source), pipeline.steps_per_epoch)
    with tf.device("CPU:0"):
        network = _Network(experiment, source.num_classes)
        content = (
            Line("trains", _trained(experiment, source.num_classes)),
            devices.line,
            Line("batch", _batch(run)),
            *data,
            Line("steps", _steps(run)),
            *(Line("rates", text) for text in _rates(run)),
            Line("network", _sizes(network)),
            Line("memory", _memory(run, network)),
            *_places(run, network, model_dir, found, extend=extend),
        )
    return Plan(content)


@dataclasses.dataclass(frozen=True)
class _Devices:
    """Where a run computes.

    Attributes:
      line: what is said of it.
      replicas: of all workers together.
      workers: processes of the job.
      branches: on one device.
    """

    line: Line
    replicas: int
    branches: int
    workers: int = 1

    @classmethod
    def of(cls, experiment: Experiment, options: Options) -> "_Devices":
        """Nothing is connected to, and no server started."""
        branches, jit = experiment.split_factor, "off" if experiment.synchronised_norm else options.jit
        gpus = tf.config.list_logical_devices("GPU")
        here = _counted(len(gpus), "GPU") if gpus else f"no GPU, {_counted(len(os.sched_getaffinity(0)), 'CPU core')}"
        here = f"{here} here; XLA {'on' if resolve_jit(jit) else 'off'}"
        if options.strategy == "tpu":
            text = "tpu: not looked at before training connects to it; the plan counts on 1 replica"
            return cls(Line("devices", text), 1, branches)
        if options.strategy == "multi_worker_mirrored":
            workers, replicas = named_workers(), max(len(gpus), 1)
            if not workers:
                received = os.environ.get("TF_CONFIG", "none")
                text = f"TF_CONFIG names no workers. Received: {received}; the plan counts on one"
                return cls(Line("devices", text, PROBLEM), replicas, branches)
            each = f"{_counted(workers, 'worker')} of {_counted(replicas, 'replica')}, if all are like this one"
            line = Line("devices", f"multi_worker_mirrored: {each}; {here}")
            return cls(line, workers * replicas, branches, workers)
        replicas, told = make_strategy(options.strategy).num_replicas_in_sync, ""
        if placed := branch_devices(options.strategy, branches):
            branches //= len(placed)
            told = f", {_counted(branches, 'branch', 'branches')} on each of {_counted(len(placed), 'device')}"
        text = f"{options.strategy}: {_counted(replicas, 'replica')}{told}; {here}"
        return cls(Line("devices", text), replicas, branches)


@dataclasses.dataclass(frozen=True)
class _Planned:
    """The numbers that all lines share."""

    experiment: Experiment
    options: Options
    devices: _Devices
    images: int
    steps_per_epoch: int

    @property
    def total_steps(self) -> int:
        return self.experiment.total_steps(self.steps_per_epoch)

    @property
    def per_replica(self) -> int:
        return self.experiment.batch_size // self.devices.replicas


class _Network:
    """The S branches by their shapes, with what the optimizer keeps of each variable."""

    def __init__(self, experiment: Experiment, num_classes: int) -> None:
        self.split_factor, size = experiment.split_factor, experiment.preprocessing.image_size
        self.branch = experiment.branch_spec(num_classes)
        self.template = build_template(
            self.branch,
            num_classes=num_classes,
            input_shape=(size, size, 3),
            precision=experiment.precision,
        )
        if experiment.synchronised_norm:
            synchronise_norms(self.template)
        self.averages = int(experiment.ema_decay is not None)
        self.slots = _slots(experiment, self.template)

    @property
    def checkpoint_bytes(self) -> int:
        """Of the stack, the optimizer's slots and the moving average."""
        weights, statistics = (
            4 * self.split_factor * sum(math.prod(variable.shape) for variable in variables)
            for variables in (self.template.trainable_variables, self.template.non_trainable_variables)
        )
        return weights * (1 + self.slots + self.averages) + statistics * (1 + self.averages)


def _slots(experiment: Experiment, template: keras.Model) -> int:
    """Values that the optimizer keeps of each weight.

    A variable without any element stands in for the stack's, since making one takes milliseconds. The optimizer
    refuses a pattern that matches none of the names, so with patterns all of them are made.
    """
    names = [variable.path.replace("/", ".") for variable in template.trainable_variables]
    chosen = names if experiment.optimizer.exclude_from_decay else names[:1]
    variables = [keras.Variable(np.empty([0], np.float32), name=name) for name in chosen]
    optimizer = experiment.optimizer.build(0.1, split_factor=experiment.split_factor)
    optimizer.build(variables)
    return sum(tuple(variable.shape) == (0,) for variable in optimizer.variables) // len(variables)


def _data(
    experiment: Experiment, data_dir: str | None, options: Options, model_dir: pathlib.Path
) -> tuple[Source | None, list[Line]]:
    """The training images, if they can be opened, and what is said of all splits."""
    found: dict[str, Source] = {}
    try:
        # No budget of memory: nothing is decoded ahead.
        place = {"model_dir": model_dir, "data_dir": data_dir}
        open_splits(experiment, options, **place, found=found, memory_budget=0, index_dir=None)
    except InputError as error:
        text = str(error)
        if "train" not in found:
            text += f" Taken for the plan: {_taken(experiment)}."
        return found.get("train"), [Line("data", text, PROBLEM if isinstance(error, BadImage) else MISSING)]
    counts = ", ".join(f"{len(source):,} {split.replace('_', '-')}" for split, source in found.items())
    where = f" in {data_dir}" if data_dir is not None and experiment.facts.reader != "digits" else ""
    lines = [f"{counts} images of {found['train'].num_classes} classes{where}", *notes(found)]
    return found["train"], [Line("data", line) for line in lines]


def _stand_in(experiment: Experiment) -> Source:
    """As many black images as are known to be in the dataset; they take no memory."""
    count, classes = _known(experiment)
    size = experiment.preprocessing.image_size
    images = np.broadcast_to(np.uint8(0), (count, size, size, 3))
    names = experiment.facts.class_names or numbered(classes)
    return ArraySource(images, np.zeros(count, np.int64), names, name=experiment.dataset)


def _known(experiment: Experiment) -> tuple[int, int]:
    """Images and classes of a dataset that is not there; of one that is the user's, the fewest that there can be."""
    facts = experiment.facts
    count = facts.train_images and round(facts.train_images * (1 - experiment.held_out))
    count = count or experiment.batch_size
    return min(count, experiment.train_images or count), facts.num_classes or 2


def _taken(experiment: Experiment) -> str:
    count, classes = _known(experiment)
    known = "what the dataset has" if experiment.facts.train_images else "the fewest possible, one batch"
    return f"{count:,} images of {classes} classes, {known}"


def _trained(experiment: Experiment, num_classes: int) -> str:
    size = experiment.preprocessing.image_size
    divided = "" if experiment.rule == "paper" else f" by the {experiment.rule} rule"
    return (
        f"{experiment.backbone}, S = {experiment.split_factor}{divided}, on {experiment.dataset}: {size} x {size} "
        f"pixels, {num_classes} classes, {experiment.precision}, {experiment.optimizer.name}"
    )


def _batch(run: _Planned) -> str:
    experiment, micro_batches = run.experiment, run.options.micro_batches
    parts = f", in {micro_batches} micro-batches of {run.per_replica // micro_batches}" if micro_batches > 1 else ""
    return (
        f"{experiment.batch_size} images, {run.per_replica} a replica{parts}; views of each: {experiment.split_factor}"
    )


def _steps(run: _Planned) -> str:
    left = run.images - run.steps_per_epoch * run.experiment.batch_size
    return (
        f"{run.steps_per_epoch:,} an epoch of {run.images:,} images ({left:,} left over), {run.total_steps:,} in "
        f"{run.total_steps / run.steps_per_epoch:,.4g} epochs"
    )


def _rates(run: _Planned) -> Iterator[str]:
    """A line a key point of the run: the learning rate and the co-training weight there."""
    experiment, steps_per_epoch = run.experiment, run.steps_per_epoch
    schedule = experiment.schedule(steps_per_epoch)
    for step, names in _key_points(run).items():
        told = f"step {step:,} ({', '.join(names)}): learning rate {float(schedule.at(step)):.4g}"
        if experiment.split_factor > 1:
            weight = float(experiment.cotraining.weight_at(step, steps_per_epoch=steps_per_epoch))
            told += f", co-training weight {weight:.4g}"
        yield told


def _key_points(run: _Planned) -> dict[int, list[str]]:
    """The names of each step that is worth a look, in order."""
    last, cotrains = run.total_steps - 1, run.experiment.split_factor > 1
    ramps = {
        "end of warm-up": run.experiment.learning_rate,
        **({"end of the co-training ramp": run.experiment.cotraining} if cotrains else {}),
    }
    steps_per_epoch = run.steps_per_epoch
    points = [("first", 0), *((name, math.ceil(each.warmup(steps_per_epoch))) for name, each in ramps.items())]
    points = [(name, step) for name, step in points if name == "first" or 0 < step <= last]
    points += [
        (name, run.total_steps * part // 4) for part, name in ((1, "a quarter"), (2, "half"), (3, "three quarters"))
    ]
    named: dict[int, list[str]] = {}
    for name, step in sorted([*points, ("last", last)], key=lambda point: point[1]):
        named.setdefault(step, []).append(name)
    return named


def _sizes(network: _Network) -> str:
    parameters, multiply_adds = count_parameters(network.template), count_multiply_adds(network.template)
    branches = network.split_factor
    told = f"{branches * parameters:,} parameters, {branches * multiply_adds:,} multiply-adds an image"
    return told + (f"; a branch {parameters:,} and {multiply_adds:,}" if branches > 1 else "")


def _memory(run: _Planned, network: _Network) -> str:
    options = run.options
    memory = step_memory(
        network.template,
        batch_size=run.per_replica,
        split_factor=run.devices.branches,
        micro_batches=options.micro_batches,
        remat=options.remat,
        branches_in_turn=options.branches_in_turn,
        slots=network.slots + network.averages,
    )
    told = (
        f"about {in_bytes(memory.total)} a device: weights and optimizer {in_bytes(memory.state)}, gradients "
        f"{in_bytes(memory.gradients)}, activations {in_bytes(memory.activations)}"
    )
    if tf.config.list_physical_devices("GPU"):
        return told
    return f"{told}; {in_bytes(psutil.virtual_memory().available)} are free here"


def _places(
    run: _Planned, network: _Network, model_dir: pathlib.Path, source: Source | None, *, extend: bool
) -> Iterator[Line]:
    """What is said of model_dir, of its disk, and of another run that this one begins with."""
    checkpoints = Checkpoints(model_dir / "checkpoints").all()
    yield _model_dir(run, network, model_dir, source, extend=extend)
    kept = run.options.keep_checkpoints + run.options.keep_best * bool(run.experiment.held_out)
    yield _disk(model_dir, network.checkpoint_bytes, kept=kept, there=len(checkpoints))
    if (cache_dir := run.options.cache_dir) and not _can_be_made(pathlib.Path(cache_dir)):
        yield Line("cache_dir", f"it cannot be made. Received: {cache_dir}; choose another folder.", PROBLEM)
    try:
        if start := check_warm_start(run.experiment, model_dir):
            yield Line("warm start", start)
    except InputError as error:
        yield Line("warm start", str(error), PROBLEM)


def _model_dir(
    run: _Planned, network: _Network, model_dir: pathlib.Path, source: Source | None, *, extend: bool
) -> Line:
    parent = _nearest_folder(model_dir)
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return Line("model_dir", f"it cannot be written. Received: {model_dir}; choose another folder.", PROBLEM)
    told: list[str] = []
    try:
        identity = run.experiment.identity(source)
        if not check_model_dir(
            model_dir, identity, extend=extend, report=told.append, branch=network.branch, source=source
        ):
            return Line("model_dir", f"{model_dir}, a new run")
        check_unused(model_dir)
        last = Checkpoints(model_dir / "checkpoints").last_whole(report=told.append)
    except InputError as error:
        return Line("model_dir", str(error), PROBLEM)
    step = last.step if last else 0
    goes_on = f"goes on from step {step:,} of" if step < run.total_steps else f"is finished: step {step:,} of"
    told.append(f"{model_dir} holds this run, which {goes_on} {run.total_steps:,}")
    return Line("model_dir", " ".join(told))


def _disk(model_dir: pathlib.Path, size: int, *, kept: int, there: int) -> Line:
    """Whether the checkpoints that are kept, and the one being written, fit beside what lies there."""
    free, needed = shutil.disk_usage(_nearest_folder(model_dir)).free, size * max(kept + 1 - there, 1)
    told = f"{_counted(kept, 'checkpoint')} of {in_bytes(size)} and one being written"
    text = f"{told}: {in_bytes(needed)} more, {in_bytes(free)} are free"
    return Line("disk", text, PROBLEM if needed > free else "")


def _can_be_made(folder: pathlib.Path) -> bool:
    """Whether a folder can be made; one that is there may lie where nothing can be written, if it is filled."""
    nearest = _nearest_folder(folder)
    return nearest.is_dir() and (nearest == folder.absolute() or os.access(nearest, os.W_OK | os.X_OK))


def _nearest_folder(path: pathlib.Path) -> pathlib.Path:
    """The path itself, or as much of it as is there already."""
    path = path.absolute()
    return next(found for found in (path, *path.parents) if found.exists())


def _counted(count: int, noun: str, plural: str = "") -> str:
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
