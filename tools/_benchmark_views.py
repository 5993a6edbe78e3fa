"""`divco-benchmark views`: making training views, beside Pillow and keras-cv, over threads and over S."""

import dataclasses
import functools
import io
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from divco_tf.data.datasets import get_dataset
from divco_tf.data.decoding import decode
from divco_tf.data.image_ops.random_numbers import view_keys
from divco_tf.data.pipeline import ViewPipeline, union
from divco_tf.data.policies import POLICIES, ViewPolicy
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import ArraySource, Source, open_source
from divco_tf.data.views import ViewMaker
from divco_tf.tools._benchmark_step import machine
from divco_tf.tools._pillow_views import PillowViews

BATCH_SIZE, SPLIT_FACTOR = 128, 4
THREADS, SPLITS = (1, 2, 8), (1, 2, 4, 8)
_ERASED = POLICIES["cifar10_no_autoaugment"]
ROWS = {
    "crop + flip + erase": _ERASED,
    "AutoAugment CIFAR-10 + erase": POLICIES["cifar10"],
    "RandAugment m9 + erase": dataclasses.replace(_ERASED, augment="rand-m9-mstd0.5"),
    "TrivialAugment + erase": dataclasses.replace(_ERASED, augment="trivial_augment"),
}
KERAS_CV = "RandAugment m9 + erase"  # the row that keras-cv has a layer for
JPEG_SIZE, IMAGE_SIZE, JPEGS = (500, 375), 224, 24

System = Callable[[], Any]


def run(*, data_dir: str | None, rounds: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Times all rows; see the module `benchmark`.

    Args:
      data_dir: of a prepared CIFAR-10; None: parts of two photographs.
      rounds: in which every system takes its turn.
      report: is told how it goes on.

    Returns:
      head and rows of the table, and what JSON holds: command, machine, settings, systems by row and name.
    """
    source = open_source("cifar10", "train", data_dir=data_dir) if data_dir else photographs()
    systems: dict[str, dict[str, list[float]]] = {}
    for name, policy in ROWS.items():
        systems[name] = _timed(_small(name, policy, source), rounds, report, name)
    for split_factor in (1, 2):
        name = f"224 pixels from JPEG, S={split_factor}"
        systems[name] = _timed(_large(split_factor), rounds, report, name)
    report(f"a new process: {_start_up():.2f} s until the first batch, with kernels from the cache")
    threads = _threads(source, rounds, report)
    splits = _splits(source, rounds, report)
    return {
        "head": ("", "system", "us a view, one core", "of ours", "fastest us"),
        "rows": [*_view_rows(systems), *_batch_rows("tf.data", threads), *_batch_rows("S", splits)],
        "command": " ".join(["divco-benchmark", *sys.argv[1:]]),
        "machine": machine(),
        "settings": {
            "images": "CIFAR-10" if data_dir else "parts of photographs",
            "batch_size": BATCH_SIZE,
            "split_factor": SPLIT_FACTOR,
            "rounds": rounds,
            "ms_a_branch": 1e3 * _slope(splits),
        },
        "systems": {**systems, "threads": threads, "splits": splits},
    }


def photographs() -> ArraySource:
    """Parts of two photographs, of 32 pixels."""
    images = np.stack([np.asarray(_photograph(32, 32, seed)) for seed in range(1024)])
    return ArraySource(images, np.arange(len(images)) % 10, [str(label) for label in range(10)])


def _photograph(width: int, height: int, seed: int) -> Image.Image:
    """A part of one of scikit-learn's two photographs."""
    generator = np.random.default_rng(seed)
    image = Image.fromarray(_stored_photographs()[seed % 2])
    part = int(generator.integers(300, 600)), int(generator.integers(250, 400))
    left, top = (int(generator.integers(0, whole - size)) for whole, size in zip(image.size, part, strict=True))
    return image.resize((width, height), Image.Resampling.BICUBIC, (left, top, left + part[0], top + part[1]))


@functools.cache
def _stored_photographs() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def _timed(
    systems: dict[str, tuple[System, int]], rounds: int, report: Callable[[str], None], case: str
) -> dict[str, list[float]]:
    """Seconds a view, a round each, of systems that make so many views a call."""
    times: dict[str, list[float]] = {name: [] for name in systems}
    for make, _ in systems.values():
        make()  # kernels are compiled then
    for _ in range(rounds):
        for name, (make, views) in systems.items():
            start, calls = time.perf_counter(), 0
            while calls == 0 or time.perf_counter() - start < 0.2:
                make()
                calls += 1
            times[name].append((time.perf_counter() - start) / (calls * views))
    report(f"{case}: " + ", ".join(f"{name} {1e6 * min(seconds):.1f} us" for name, seconds in times.items()))
    return times


def _small(name: str, policy: ViewPolicy, source: Source) -> dict[str, tuple[System, int]]:
    facts = get_dataset("cifar10")
    images = source.read_batch(np.arange(BATCH_SIZE))
    pillow, views = [Image.fromarray(image) for image in images], BATCH_SIZE * SPLIT_FACTOR
    ours = ViewMaker(policy, mean=facts.mean, std=facts.std)
    theirs = PillowViews(policy, mean=facts.mean, std=facts.std)
    steps, generator = iter(range(2**40)), random.Random(0)

    def our_views(maker: ViewMaker) -> np.ndarray:
        keys = view_keys(seed=0, step=next(steps), batch_size=BATCH_SIZE, split_factor=SPLIT_FACTOR)
        return maker(images, keys)

    systems = {
        "ours": (lambda: our_views(ours), views),
        "Pillow": (lambda: [[theirs(image, generator) for _ in range(SPLIT_FACTOR)] for image in pillow], views),
    }
    if name == KERAS_CV:
        systems["keras-cv, the RandAugment alone"] = (_keras_cv(np.repeat(images, SPLIT_FACTOR, axis=0)), views)
    return systems


def _keras_cv(images: np.ndarray) -> System:
    """In a tf.function, which is a hundred times as fast as eager."""
    import keras_cv

    layer = keras_cv.layers.RandAugment(value_range=(0, 255), augmentations_per_image=2)
    function, batch = tf.function(lambda images: layer(images, training=True)), tf.constant(images)
    return lambda: function(batch).numpy()


def _large(split_factor: int) -> dict[str, tuple[System, int]]:
    """Random resized crops of 224 pixels from JPEG files of 500 x 375 in memory."""
    facts, policy = get_dataset("imagenet"), POLICIES["resized_crop"]
    files = []
    for seed in range(JPEGS):
        data = io.BytesIO()
        _photograph(*JPEG_SIZE, seed).save(data, "JPEG", quality=90)
        files.append(data.getvalue())
    preprocessing = Preprocessing.for_dataset(facts)
    theirs = PillowViews(policy, mean=facts.mean, std=facts.std, image_size=IMAGE_SIZE)
    pipeline = ViewPipeline(
        _Encoded(files), batch_size=JPEGS, split_factor=split_factor, policy=policy, preprocessing=preprocessing
    )
    steps, generator = iter(range(2**40)), random.Random(0)

    def pillow() -> None:
        for data in files:
            image = Image.open(io.BytesIO(data)).convert("RGB")
            for _ in range(split_factor):
                theirs(image, generator)

    views = JPEGS * split_factor
    return {
        "ours": (lambda: pipeline.unmixed_at(next(steps), range(JPEGS)), views),
        "ours, decoding alone": (lambda: _decode_parts(pipeline, next(steps)), views),
        "Pillow": (pillow, views),
        "Pillow, decoding alone": (lambda: [Image.open(io.BytesIO(data)).convert("RGB") for data in files], views),
    }


class _Encoded(Source):
    """JPEG files in memory."""

    image_size = IMAGE_SIZE

    def __init__(self, files: list[bytes]) -> None:
        self.files, self.labels, self.class_names = files, np.zeros(len(files), np.int64), ("a",)

    def read(self, index: int) -> np.ndarray:
        raise NotImplementedError  # views are cut out of what is stored

    def read_region(self, index: int, choose: Any = None) -> np.ndarray:
        return decode(self.files[index], choose)


def _decode_parts(pipeline: ViewPipeline, step: int) -> None:
    """Decodes what the views of a step need, and makes none."""
    for index, keys in zip(pipeline.indices_at(step), pipeline.keys_at(step), strict=True):
        pipeline.source.read_region(
            int(index), lambda height, width, keys=keys: union(pipeline.boxes(keys, height, width))
        )


def _start_up() -> float:
    """Seconds that a new process takes from a pipeline to its first batch, TensorFlow being there already."""
    code = """
import time
import numpy as np
import tensorflow as tf
import divco_tf
from divco_tf.data.policies import POLICIES
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


def _pipeline(source: Source, split_factor: int) -> ViewPipeline:
    preprocessing = Preprocessing.for_dataset(get_dataset("cifar10"))
    return ViewPipeline(
        source,
        batch_size=BATCH_SIZE,
        split_factor=split_factor,
        policy=POLICIES["cifar10"],
        preprocessing=preprocessing,
    )


def _threads(source: Source, rounds: int, report: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds a batch through tf.data, wall time."""
    pipeline, times = _pipeline(source, SPLIT_FACTOR), {}
    for _ in range(rounds):
        for threads in THREADS:
            batches = iter(pipeline.dataset(0, 120, threads=threads))
            for _ in range(20):
                next(batches)
            start = time.perf_counter()
            for _ in range(80):
                next(batches)
            times.setdefault(f"{threads} threads", []).append((time.perf_counter() - start) / 80)
            del batches
    _told(report, "a batch through tf.data", times)
    return times


def _splits(source: Source, rounds: int, report: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds a batch for each S, one thread."""
    pipelines, times = {split: _pipeline(source, split) for split in SPLITS}, {}
    for index in range(rounds):
        for split, pipeline in pipelines.items():
            start = time.perf_counter()
            for step in range(20):
                pipeline.views_at(20 * index + step)
            times.setdefault(f"S = {split}", []).append((time.perf_counter() - start) / 20)
    _told(report, "a batch by S", times)
    return times


def _told(report: Callable[[str], None], case: str, times: dict[str, list[float]]) -> None:
    report(f"{case}: " + ", ".join(f"{name} {1e3 * min(seconds):.2f} ms" for name, seconds in times.items()))


def _slope(splits: dict[str, list[float]]) -> float:
    """Seconds a branch adds to a batch: of the line through the medians."""
    medians = [statistics.median(seconds) for seconds in splits.values()]
    return float(np.polyfit(SPLITS, medians, 1)[0])


def _view_rows(systems: dict[str, dict[str, list[float]]]) -> Iterable[tuple[str, ...]]:
    for case, times in systems.items():
        for name, seconds in times.items():
            ratio = statistics.median(a / b for a, b in zip(seconds, times["ours"], strict=True))
            yield (case, name, f"{1e6 * statistics.median(seconds):.1f}", f"{ratio:.2f}", f"{1e6 * min(seconds):.1f}")


def _batch_rows(kind: str, times: dict[str, list[float]]) -> Iterable[tuple[str, ...]]:
    """Batches of AutoAugment CIFAR-10, as a view's time of one batch's wall time."""
    first = next(iter(times.values()))
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, first, strict=True))
        yield (
            f"a batch of AutoAugment CIFAR-10, {kind}",
            name,
            f"{1e3 * statistics.median(seconds):.2f} ms a batch",
            f"{ratio:.2f} of the first",
            f"{1e3 * min(seconds):.2f} ms",
        )
