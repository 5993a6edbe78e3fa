"""`divco-benchmark views`: what a view costs, beside Pillow and keras-cv; through tf.data; and what S costs."""

import dataclasses
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from divco_tf import compat
from divco_tf.data.datasets import get_dataset
from divco_tf.data.pipeline import ViewPipeline
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import ArraySource, Source, open_source
from divco_tf.data.views.kernels.random_numbers import view_keys
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.policies import get_policy
from divco_tf.tools.laboratory import jpeg
from divco_tf.tools.laboratory.pillow_views import PillowViews

OURS, PILLOW = "divco_tf", "Pillow"
CIFAR10 = get_dataset("cifar10")
SMALL_POLICIES = {
    "crop, flip, erase": "cifar10_no_autoaugment",
    "AutoAugment CIFAR-10, erase": "cifar10",
    "RandAugment, erase": "cifar10_no_autoaugment+rand-m9-mstd0.5",
}
THREADS = (1, 2, 8)
SPLIT_FACTORS = (1, 2, 4, 8)
MADE_UP = 1024  # photographs

Batch = Callable[[int], Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One policy, and who makes a batch of its views: a function of the step each, ours first."""

    name: str
    views: int  # a batch
    systems: Mapping[str, Batch]


def run(
    *,
    report: Callable[[str], None],
    data_dir: str | None = None,
    batch_size: int = 128,
    split_factor: int = 4,
    rounds: int = 5,
    steps: int = 10,
) -> dict[str, Any]:
    """Times views, batches by threads, and batches by S; see the module `benchmark`.

    Args:
      data_dir: prepared CIFAR-10; photographs are made up without it.
      batch_size: B.
      split_factor: S, of all tables but the last.
      rounds: in which every system takes its turn.
      steps: batches a turn.
      report: is told how it goes on.

    Returns:
      tables, a head and rows each; and what JSON holds: settings, systems.
    """
    source = open_source("cifar10", "test", data_dir=data_dir) if data_dir else made_up()
    sizes = {"batch_size": batch_size, "split_factor": split_factor}
    rows = [*small_rows(source, **sizes), *large_rows()]
    views = time_rows(rows, rounds=rounds, steps=steps, report=report)
    start_up = _start_up()
    report(f"a new process, kernels from the cache: {start_up:.2f} s to the first batch")
    by_threads = _time_threads(_pipeline(source, **sizes), rounds, report)
    by_split_factor = _time_split_factors(source, batch_size, rounds, steps, report)
    images = f"{'CIFAR-10' if data_dir else 'made-up photographs'}, batch {batch_size}"
    return {
        "tables": [
            ((f"{images}, S={split_factor}", "", "us a view and core", "of ours"), _view_table(views)),
            *_batch_tables(images, split_factor, by_threads, by_split_factor),
        ],
        "settings": {**sizes, "images": images, "rounds": rounds, "steps": steps},
        "systems": {"start_up": start_up, "views": views, "threads": by_threads, "split factors": by_split_factor},
    }


def small_rows(source: Source, *, batch_size: int, split_factor: int) -> list[Row]:
    """Views of images in memory: ours, Pillow's, and keras-cv's where it has the policy."""
    images = source.read_batch(np.arange(batch_size))
    rows = []
    for name, policy in SMALL_POLICIES.items():
        systems = {
            OURS: _ours(policy, images, split_factor),
            PILLOW: _pillow(policy, images, split_factor),
        }
        if "rand" in policy:
            systems |= _keras_cv(images, split_factor)
        rows.append(Row(name, batch_size * split_factor, systems))
    return rows


def large_rows() -> list[Row]:
    """Random resized crops from JPEG files, decoding included, for a few S."""
    files = jpeg.photographs()
    return [
        Row(f"224 pixels from JPEG, S={split}", split * len(files), jpeg.systems(split, files))
        for split in jpeg.SPLIT_FACTORS
    ]


def time_rows(
    rows: Sequence[Row], *, rounds: int, steps: int, report: Callable[[str], None]
) -> dict[str, dict[str, dict]]:
    """Seconds of processor time a view, by row and system, turn about.

    It is the time of all of the process's threads: what a view costs a core. Ours and Pillow's take one thread.
    """
    timed: dict[str, dict[str, dict]] = {}
    for row in rows:
        for batch in row.systems.values():
            batch(0)  # compiles, traces
        timed[row.name] = {name: {"rounds": []} for name in row.systems}
        for index in range(rounds):
            for name, batch in row.systems.items():
                start = time.process_time()
                for step in range(index * steps, (index + 1) * steps):
                    batch(step)
                timed[row.name][name]["rounds"].append((time.process_time() - start) / (steps * row.views))
        ours = next(iter(timed[row.name].values()))["rounds"]
        for system in timed[row.name].values():
            system["median"] = statistics.median(system["rounds"])
            pairs = zip(system["rounds"], ours, strict=True)
            system["of_ours"] = statistics.median(theirs / mine for theirs, mine in pairs)
        told = ", ".join(f"{name} {1e6 * system['median']:.1f} us" for name, system in timed[row.name].items())
        report(f"{row.name}: {told}")
    return timed


def _ours(policy: str, images: np.ndarray, split_factor: int) -> Batch:
    maker = ViewMaker(get_policy(policy), mean=CIFAR10.mean, std=CIFAR10.std)
    sizes = {"batch_size": len(images), "split_factor": split_factor}
    return lambda step: maker(images, view_keys(seed=0, step=step, **sizes))


def _pillow(policy: str, images: np.ndarray, split_factor: int) -> Batch:
    maker = PillowViews(get_policy(policy), mean=CIFAR10.mean, std=CIFAR10.std)

    def batch(step: int) -> np.ndarray:
        generator = random.Random(step)
        views = np.empty((len(images), split_factor, *images.shape[1:]), np.float32)
        for array, of_image in zip(images, views, strict=True):
            image = Image.fromarray(array)
            for view in of_image:
                view[:] = maker(image, generator)
        return views

    return batch


def _keras_cv(images: np.ndarray, split_factor: int) -> dict[str, Batch]:
    """RandAugment alone, without cropping, normalisation and erasing: eagerly or traced, whichever is the faster."""
    try:
        library = compat.keras_cv()
    except ImportError:
        return {}
    layer = library.layers.RandAugment((0, 255), magnitude=0.9, magnitude_stddev=0.05, rate=0.5)
    views = tf.constant(np.repeat(images, split_factor, axis=0))
    ways = {"eager": layer, "tf.function": tf.function(layer)}
    times = {}
    for name, way in ways.items():
        way(views[:16])
        start = time.process_time()
        way(views[:16])
        times[name] = time.process_time() - start
    fastest = min(times, key=times.__getitem__)
    return {f"keras-cv, RandAugment alone, {fastest}": lambda step: ways[fastest](views).numpy()}


def _pipeline(source: Source, *, batch_size: int, split_factor: int) -> ViewPipeline:
    preprocessing = Preprocessing(image_size=source.image_size, mean=CIFAR10.mean, std=CIFAR10.std)
    sizes = {"batch_size": batch_size, "split_factor": split_factor}
    return ViewPipeline(source, policy=get_policy("cifar10"), preprocessing=preprocessing, **sizes)


def _time_threads(pipeline: ViewPipeline, rounds: int, report: Callable[[str], None]) -> dict[str, dict]:
    """Seconds a batch through tf.data, by number of threads.

    Threads fetch batches in waves, so whole waves of the widest are counted, and two before them are not.
    """
    waves, before = 8, 2 * max(THREADS)
    last = before + waves * max(THREADS)
    timed: dict[str, dict] = {str(threads): {"rounds": []} for threads in THREADS}
    for _ in range(rounds):
        for threads in THREADS:
            for step, _ in enumerate(pipeline.dataset(0, last, threads=threads), start=1):
                if step == before:
                    start = time.perf_counter()
            timed[str(threads)]["rounds"].append((time.perf_counter() - start) / (last - before))
    _add_medians(timed)
    report("threads: " + ", ".join(f"{name} {1e3 * row['median']:.1f} ms" for name, row in timed.items()))
    return timed


def _time_split_factors(
    source: Source, batch_size: int, rounds: int, steps: int, report: Callable[[str], None]
) -> dict[str, Any]:
    """Seconds of processor time a batch, by S, and the line through them."""
    pipelines = {s: _pipeline(source, batch_size=batch_size, split_factor=s) for s in SPLIT_FACTORS}
    timed: dict[str, Any] = {str(s): {"rounds": []} for s in SPLIT_FACTORS}
    for index in range(rounds):
        for split_factor, pipeline in pipelines.items():
            start = time.process_time()
            for step in range(index * steps, (index + 1) * steps):
                pipeline.views_at(step)
            timed[str(split_factor)]["rounds"].append((time.process_time() - start) / steps)
    _add_medians(timed)
    slope, constant = np.polyfit(SPLIT_FACTORS, [timed[str(s)]["median"] for s in SPLIT_FACTORS], 1)
    timed["line"] = {"seconds_a_branch": float(slope), "seconds_at_0": float(constant)}
    report(f"S: {1e3 * slope:.2f} ms a branch")
    return timed


def _start_up() -> float:
    """Seconds that a new process takes from a pipeline to its first batch, TensorFlow being there already."""
    code = """
import time
import numpy as np
import tensorflow as tf
import divco_tf
from divco_tf.data.views.policies import POLICIES
tf.zeros([])
source = divco_tf.open_source("digits", "train", image_size=32)
preprocessing = divco_tf.Preprocessing.for_dataset(divco_tf.get_dataset("digits"), 32)
start = time.perf_counter()
pipeline = divco_tf.ViewPipeline(
    source, batch_size=128, split_factor=4, policy=POLICIES["cifar10"], preprocessing=preprocessing
)
next(iter(pipeline.dataset(0, 1)))
print(time.perf_counter() - start)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def _add_medians(timed: dict[str, dict]) -> None:
    first = next(iter(timed.values()))["rounds"]
    for row in timed.values():
        row["median"] = statistics.median(row["rounds"])
        row["of_first"] = statistics.median(a / b for a, b in zip(row["rounds"], first, strict=True))


def _view_table(timed: dict[str, dict[str, dict]]) -> list[tuple[str, ...]]:
    return [
        (row, name, f"{1e6 * system['median']:.1f}", f"{system['of_ours']:.1f}")
        for row, systems in timed.items()
        for name, system in systems.items()
    ]


def _batch_tables(images: str, split_factor: int, by_threads: dict, by_split_factor: dict) -> list[tuple]:
    def rows(timed: dict[str, dict], prefix: str) -> list[tuple[str, ...]]:
        return [
            (f"{prefix}{name}", f"{1e3 * row['median']:.2f}", f"{row['of_first']:.2f}")
            for name, row in timed.items()
            if "rounds" in row
        ]

    line = by_split_factor["line"]
    slope = ("a branch, by a line through them", f"{1e3 * line['seconds_a_branch']:.2f}", "")
    return [
        ((f"tf.data, {images}, S={split_factor}", "wall ms a batch", "of 1"), rows(by_threads, "threads ")),
        ((f"one core, {images}", "ms a batch", "of S=1"), [*rows(by_split_factor, "S="), slope]),
    ]


def made_up(count: int = MADE_UP) -> ArraySource:
    """Smooth areas with some noise, as photographs have them."""
    generator = np.random.default_rng(0)
    images = []
    for coarse in generator.integers(0, 256, (count, 4, 4, 3), np.uint8):
        smooth = np.asarray(Image.fromarray(coarse).resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
        images.append(np.clip(smooth + generator.integers(-10, 11, smooth.shape), 0, 255).astype(np.uint8))
    return ArraySource(np.stack(images), np.zeros(count, int), CIFAR10.class_names)
