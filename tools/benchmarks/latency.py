"""`divco-benchmark latency`: how long the large network takes to answer, and S branches in sequence and side by side.

TensorFlow's threads are a process's, so each setting of them has a process of its own, in which all ways take their
turns. "2/1" are two threads an operation (intra-op) and one operation at once (inter-op); with one operation at once
nothing runs side by side, threads of Python's wait for it too, so such a setting has the other ways only.
"""

import contextlib
import dataclasses
import functools
import os
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divco_tf.errors import InputError, RunError
from divco_tf.models.branch_stack import build
from divco_tf.models.divide import check_split_factor
from divco_tf.models.division import branch_spec
from divco_tf.models.recompute.remat import when_there
from divco_tf.models.sizes import Size, Sizes
from divco_tf.runtime.strategy import branch_devices
from divco_tf.tools.benchmarks.process import Worker

LARGE = "large network"
CHAIN, CALLS = "in sequence, one graph", "in sequence, a call a branch"
STACK, GRAPH = "side by side, branch stack", "side by side, one graph"
THREADS, DEVICES = "side by side, threads", "side by side, devices"
IN_SEQUENCE, SIDE_BY_SIDE = (CHAIN, CALLS), (STACK, GRAPH, THREADS, DEVICES)
MARGIN = 0.05
"""Of the time: less is noise. Two runs on one machine told 1.084 and 1.036 (docs/results.md, Scaling)."""
AGREE = 1e-2
"""What answers may differ by, of the largest logit: a GPU's TF32 has ten bits. Two branches differ by about 1."""
IMAGES, CALLS_A_TURN = 64, (2, 10)
"""A turn is as many answers as make so many images, within these bounds."""

Answer = Callable[[tf.Tensor], np.ndarray]
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Networks:
    """What is timed in one process.

    Attributes:
      backbone: a registered name.
      split_factors: S of each stack, above 1; the large network is always there.
      batch_sizes: images an answer, each of them.
      sizes: what `build` is told about the data.
      threads: of an operation, and operations at once.
      steps: answers a turn; None: by IMAGES.
    """

    backbone: str
    split_factors: Sequence[int]
    batch_sizes: Sequence[int]
    sizes: Mapping[str, Any]
    threads: tuple[int, int]
    steps: int | None = None

    def turns(self) -> Callable[[], dict[tuple[int, int, str], list[float]]]:
        """Builds everything in this process, and checks that all ways agree.

        Returns:
          What gives every way its turn: seconds of each answer, by S, batch size and way.

        Raises:
          RunError: answers differ.
        """
        beside = self.threads[1] > 1
        stacks = {s: ways(self.backbone, s, self.sizes, side_by_side=beside) for s in (1, *self.split_factors)}
        turns = {}
        for batch_size in self.batch_sizes:
            shape = (batch_size, *self.sizes["input_shape"])
            images = tf.constant(np.random.default_rng(0).standard_normal(shape, np.float32))
            fewest, most = CALLS_A_TURN
            steps = self.steps or min(max(IMAGES // batch_size, fewest), most)
            for split_factor, answers in stacks.items():
                check_agreement({way: answer(images) for way, answer in answers.items()})
                for way, answer in answers.items():
                    turns[split_factor, batch_size, way] = functools.partial(_seconds, answer, images, steps)
        return lambda: {key: turn() for key, turn in turns.items()}

    def worker(self, report: Callable[[str], None]) -> Worker:
        """They in a process of their own; a branch has a logical CPU where there is no GPU."""
        cpus = 1 if tf.config.list_physical_devices("GPU") else max(self.split_factors)
        name = f"{self.backbone}, threads {_told(self.threads)}"
        return Worker(name, self.turns, cpu_threads=None, threads=self.threads, logical_cpus=cpus, report=report)


def ways(backbone: str, split_factor: int, sizes: Mapping[str, Any], *, side_by_side: bool = True) -> dict[str, Answer]:
    """Functions of the same networks with the same weights, float32 images [B, H, W, C] -> logits [B, S, K].

    Branches are plain Keras models, but for the branch stack, which is what is exported and what predicts: one graph
    that leaves to TensorFlow what runs at once. It takes its stacked weights apart for every answer.

    Args:
      backbone: a registered name.
      split_factor: S; 1: the large network.
      sizes: of `build`.
      side_by_side: whether those are wanted; that on devices is there where there are two GPUs, or logical CPUs.
    """
    stack = build(backbone, split_factor=split_factor, **sizes)
    branches = [_traced(stack.branch(index), stack.view_shape) for index in range(split_factor)]
    if split_factor == 1:
        return {LARGE: _fetched(one_graph(branches, stack.view_shape))}
    found = {CHAIN: _fetched(one_graph(branches, stack.view_shape, in_sequence=True)), CALLS: _each(branches, map)}
    if side_by_side:
        found[STACK] = _fetched(_traced(stack, stack.view_shape))
        found[GRAPH] = _fetched(one_graph(branches, stack.view_shape))
        found[THREADS] = _each(branches, ThreadPoolExecutor(split_factor).map)
        devices = branch_devices("branch_parallel", split_factor)
        if len(devices) > 1:
            found[DEVICES] = _fetched(_traced(stack.on(devices), stack.view_shape))
    return found


def one_graph(branches: Sequence[Callable], view_shape: Sequence[int], *, in_sequence: bool = False) -> Callable:
    """Images [B, H, W, C] -> logits [B, S, K] as one function, with or without each branch waiting for the last one."""

    def logits(images: tf.Tensor) -> tf.Tensor:
        outputs: list[tf.Tensor] = []
        for branch in branches:
            with when_there(outputs[-1:] if in_sequence else []):
                view = tf.identity(images)
            outputs.append(branch(view))
        return tf.stack(outputs, axis=1)

    return tf.function(logits, input_signature=_signature(view_shape), autograph=False)


def check_agreement(logits: Mapping[str, np.ndarray]) -> None:
    """Refuses to time ways that do not answer alike.

    Args:
      logits: [B, S, K] by way.

    Raises:
      RunError: one differs from the first, or is not finite.
    """
    first, expected = next(iter(logits.items()))
    for way, found in logits.items():
        if not np.allclose(found, expected, rtol=0, atol=AGREE * np.abs(expected).max()):
            difference = np.abs(found - expected).max()
            raise RunError(f"Answers differ. Received: logits {difference:.2g} apart, {way} and {first}.")


def run(
    *,
    report: Callable[[str], None],
    backbones: Sequence[str] = ("wide_resnet16_8", "resnet110"),
    split_factors: Sequence[int] = (1, 2, 4),
    batch_sizes: Sequence[int] = (1, 32),
    threads: Sequence[str] | None = None,
    image_size: int = 32,
    num_classes: int = 10,
    rounds: int = 5,
    steps: int | None = None,
) -> dict[str, Any]:
    """Times every way in rounds, all settings of threads in each; see the module `benchmark`.

    Args:
      backbones: their names.
      split_factors: S; the large network, 1, is always there.
      batch_sizes: images an answer.
      threads: settings such as "2/1"; None: all cores for an operation, and their share for each S.
      image_size: pixels a side.
      num_classes: K.
      rounds: in which every way takes its turn.
      steps: answers a turn; None: as many as make 64 images, 2 to 10.
      report: called with each line of progress.

    Returns:
      The tables, the conclusion, and what JSON holds: settings; systems: latencies, a record a row of the first table
      with the seconds of each answer, and comparisons, a record a row of the second one.

    Raises:
      InputError: a backbone that cannot be divided so, or numbers that cannot be.
    """
    divided = sorted({split_factor for split_factor in split_factors if split_factor != 1})
    _check(divided, batch_sizes)
    settings = _parsed(threads or default_threads(divided))
    sizes = {"num_classes": num_classes, "input_shape": (image_size, image_size, 3)}
    counted = {name: _sizes(name, divided, sizes) for name in backbones}
    records: list[Record] = []
    for name in backbones:
        cases = [Networks(name, divided, batch_sizes, sizes, setting, steps) for setting in settings]
        for case, seconds in zip(cases, _timed(cases, rounds, report), strict=True):
            records += _records(case, seconds, counted[name])
    add_ratios(records)
    found = list(comparisons(records))
    return {
        "tables": [(HEAD, list(map(_row, records))), (FASTEST, list(map(_fastest_row, found)))],
        "conclusion": conclusion(found),
        "settings": {
            **{"backbones": list(backbones), "split_factors": [1, *divided], "batch_sizes": list(batch_sizes)},
            **{"threads": list(map(_told, settings)), "image_size": image_size, "num_classes": num_classes},
            **{"rounds": rounds, "steps": steps, "margin": MARGIN},
        },
        "systems": {"latencies": records, "comparisons": found, "conclusion": conclusion(found)},
    }


def default_threads(split_factors: Sequence[int], cores: int | None = None) -> list[str]:
    """All cores for an operation, as TensorFlow does it, and the share of S branches at once, as `share_cores` does."""
    cores = cores or len(os.sched_getaffinity(0))
    shares = dict.fromkeys(max(cores // split_factor, 1) for split_factor in (1, *split_factors))
    return [f"{share}/{max(cores, 2)}" for share in shares]


def add_ratios(records: Sequence[Record]) -> None:
    """Adds what each takes of the large network's time, and of the faster way in sequence, in the same process."""
    for record in records:
        same = [other for other in records if _alike(record, other, "backbone", "batch_size", "threads")]
        record["of_large"] = _ratio(record, _fastest(same, (LARGE,)))
        stack = [other for other in same if _alike(record, other, "split_factor")]
        record["of_sequence"] = None if record["way"] == LARGE else _ratio(record, _fastest(stack, IN_SEQUENCE))


def comparisons(records: Sequence[Record]) -> Iterator[Record]:
    """For each backbone, S and batch size the fastest of each kind, whatever its threads, beside each other.

    Args:
      records: with backbone, split_factor, batch_size, threads, way, p50 (s), and rounds (s, as many in each).
    """
    cases = [(r["backbone"], r["split_factor"], r["batch_size"]) for r in records if r["split_factor"] > 1]
    for backbone, split_factor, batch_size in dict.fromkeys(cases):
        sizes = [r for r in records if (r["backbone"], r["batch_size"]) == (backbone, batch_size)]
        stack = [record for record in sizes if record["split_factor"] == split_factor]
        large, sequence = _fastest(sizes, (LARGE,)), _fastest(stack, IN_SEQUENCE)
        beside = _fastest(stack, SIDE_BY_SIDE)
        kinds = {"large": large, "in_sequence": sequence, "side_by_side": beside}
        yield {
            **{"backbone": backbone, "split_factor": split_factor, "batch_size": batch_size},
            **{kind: {key: r[key] for key in ("way", "threads", "p50")} for kind, r in kinds.items()},
            **{"of_sequence": _ratio(beside, sequence), "of_large": _ratio(beside, large)},
        }


def conclusion(comparisons: Sequence[Record]) -> str:
    """Whether side by side is faster than in sequence and than the large network, by more than MARGIN, in one line."""
    spans, faster = {}, {}
    for key, name in (("of_sequence", "in sequence"), ("of_large", "the large network")):
        ratios = [comparison[key] for comparison in comparisons]
        spans[name] = " to ".join(dict.fromkeys(f"{ratio:.2f}" for ratio in (min(ratios), max(ratios))))
        faster[name] = sum(ratio < 1 - MARGIN for ratio in ratios)
    margin = f"less than {1 - MARGIN:.2f} counts as faster"
    if not any(faster.values()):
        sequence, large = spans.values()
        told = f"{sequence} of the time in sequence, {large} of the large network's"
        return f"side by side is not faster here: {told}; {margin}"
    told = []
    for name, count in faster.items():
        some = f" in {count} of {len(comparisons)} cases" if 0 < count < len(comparisons) else ""
        told.append(f"{'' if count else 'not '}faster than {name}{some} ({spans[name]} of the time)")
    return f"side by side is {' and '.join(told)}; {margin}"


def _check(divided: Sequence[int], batch_sizes: Sequence[int]) -> None:
    if not divided:
        raise InputError("There is nothing side by side. Received: split_factors=1; 2,4 works.")
    for split_factor in divided:
        check_split_factor(split_factor)
    for batch_size in batch_sizes:
        if batch_size < 1:
            raise InputError(f"A batch size is a positive whole number. Received: {batch_size}; 1,32 works.")


def _parsed(settings: Sequence[str]) -> list[tuple[int, int]]:
    for setting in settings:
        if not re.fullmatch("[1-9][0-9]{0,3}/[1-9][0-9]{0,3}", setting):
            raise InputError(f"Threads are told as intra-op/inter-op. Received: threads={setting}; 2/2,1/2 works.")
    if all(setting.endswith("/1") for setting in settings):
        told = ",".join(settings)
        raise InputError(f"One operation at once is nothing side by side. Received: threads={told}; 2/1,1/2 works.")
    return [(int(of_operation), int(at_once)) for of_operation, at_once in (setting.split("/") for setting in settings)]


def _told(threads: tuple[int, int]) -> str:
    return "/".join(map(str, threads))


def _sizes(backbone: str, split_factors: Sequence[int], sizes: Mapping[str, Any]) -> dict[int, Size]:
    """Of all branches, by S; refuses what cannot be built, before a process is started."""
    count, found = Sizes(**sizes), {}
    for split_factor in (1, *split_factors):
        branch = count(branch_spec(backbone, split_factor=split_factor))
        found[split_factor] = Size(split_factor * branch.parameters, split_factor * branch.multiply_adds)
    return found


def _timed(
    cases: Sequence[Networks], rounds: int, report: Callable[[str], None]
) -> list[dict[tuple, list[list[float]]]]:
    """Seconds of each answer, by S, batch size and way, then round by round; of each case."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(case.worker(report)) for case in cases]  # their first turns warm them
        found: list[dict[tuple, list[list[float]]]] = [{} for _ in cases]
        for index in range(rounds):
            for worker, of_case in zip(workers, found, strict=True):
                for key, seconds in worker.result().items():
                    of_case.setdefault(key, []).append(seconds)
            report(f"{cases[0].backbone}: round {index + 1}/{rounds}")
    return found


def _records(case: Networks, seconds: Mapping[tuple, list[list[float]]], sizes: Mapping[int, Size]) -> list[Record]:
    return [
        {
            **{"backbone": case.backbone, "way": way, "split_factor": split_factor, "batch_size": batch_size},
            **{"threads": _told(case.threads), "p50": float(np.percentile(rounds, 50))},
            **{"p95": float(np.percentile(rounds, 95)), "rounds": [statistics.median(turn) for turn in rounds]},
            **{"seconds": rounds, **dataclasses.asdict(sizes[split_factor])},
        }
        for (split_factor, batch_size, way), rounds in seconds.items()
    ]


def _traced(model: keras.Model, view_shape: Sequence[int]) -> Callable:
    function = lambda images: model(images, training=False)  # noqa: E731 Keras's own call has no signature to read
    return tf.function(function, input_signature=_signature(view_shape), autograph=False)


def _signature(view_shape: Sequence[int]) -> list[tf.TensorSpec]:
    return [tf.TensorSpec([None, *view_shape], tf.float32)]  # as exported: one graph for all batch sizes


def _fetched(function: Callable) -> Answer:
    return lambda images: function(images).numpy()


def _each(branches: Sequence[Callable], apply: Callable) -> Answer:
    """Branches called by Python: `map`, or a pool's, which has a thread a branch."""
    return lambda images: np.stack(list(apply(lambda branch: branch(images).numpy(), branches)), axis=1)


def _seconds(answer: Answer, images: tf.Tensor, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        start = time.perf_counter()
        answer(images)
        found.append(time.perf_counter() - start)
    return found


def _alike(one: Record, other: Record, *keys: str) -> bool:
    return all(one[key] == other[key] for key in keys)


def _fastest(records: Sequence[Record], kind: Sequence[str]) -> Record:
    return min((record for record in records if record["way"] in kind), key=lambda record: record["p50"])


def _ratio(one: Record, other: Record) -> float:
    """The median over rounds, in which both had their turn: a machine is not the same from minute to minute."""
    return statistics.median(a / b for a, b in zip(one["rounds"], other["rounds"], strict=True))


HEAD = ("", "S", "batch", "threads", "p50 ms", "p95 ms", "of large", "of sequence", "parameters M", "multiply-adds M")
FASTEST = ("the fastest of each", "S", "batch", "large", "ms", "in sequence", "ms", "side by side", "ms")
FASTEST += ("of sequence", "of large")


def _row(record: Record) -> tuple[str, ...]:
    """Multiply-adds are of one image."""
    return (
        f"{record['backbone']}, {record['way']}",
        *map(str, (record["split_factor"], record["batch_size"], record["threads"])),
        *(f"{1e3 * record[key]:.1f}" for key in ("p50", "p95")),
        f"{record['of_large']:.2f}",
        "" if record["of_sequence"] is None else f"{record['of_sequence']:.2f}",
        *(f"{record[key] / 1e6:.2f}" for key in ("parameters", "multiply_adds")),
    )


def _fastest_row(comparison: Record) -> tuple[str, ...]:
    cells = [comparison["backbone"], str(comparison["split_factor"]), str(comparison["batch_size"])]
    for kind in ("large", "in_sequence", "side_by_side"):
        found = comparison[kind]
        way = "" if found["way"] == LARGE else f"{found['way'].partition(', ')[2]}, "
        cells += [way + found["threads"], f"{1e3 * found['p50']:.1f}"]
    return (*cells, f"{comparison['of_sequence']:.2f}", f"{comparison['of_large']:.2f}")
