"""What a thin image costs, beside a usual one: memory and seconds of each path that an image takes.

    python -m tests.data.thin_images [HEIGHTxWIDTH ...]

Each figure is of a process of its own that has done the same with a usual image before. No test: it measures.
"""

import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

USUAL, THIN = (300, 400), ((1, 3000), (3000, 1), (1, 20_000), (2, 60_000), (60_000, 2))
LIMIT = 8 * 2**30  # bytes of address space: less than the whole of a thin image would be


def folder_of(height: int, width: int) -> pathlib.Path:
    """An image folder of two classes, of two images each."""
    root = pathlib.Path(tempfile.mkdtemp())
    for split in ("train", "validation"):
        for number, name in enumerate(("cat", "dog") * 2):
            (root / split / name).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def open_folder(root: pathlib.Path):
    """The source that trainings of an image folder read, and its preprocessing."""
    from divco_tf.data.datasets import get_dataset
    from divco_tf.data.preprocessing import Preprocessing
    from divco_tf.data.sources import open_source

    source = open_source("image_folder", "train", data_dir=str(root))
    return source, Preprocessing.for_dataset(get_dataset("image_folder"))


def pipeline_of(root: pathlib.Path, **policy):
    """Views of four images at once."""
    from divco_tf.data.pipeline import ViewPipeline
    from divco_tf.data.views.policies import ViewPolicy

    source, preprocessing = open_folder(root)
    return ViewPipeline(source, batch_size=4, split_factor=2, policy=ViewPolicy(**policy), preprocessing=preprocessing)


def training_crops(root: pathlib.Path) -> None:
    """A batch of random resized crops."""
    from divco_tf.data.views.policies import ResizedCrop

    pipeline_of(root, pad=0, resized_crop=ResizedCrop()).views_at(0)


def training_whole(root: pathlib.Path) -> None:
    """A batch of views of the image that evaluation sees, which a contact sheet and a cache take, too."""
    pipeline_of(root, pad=4).views_at(0)


def evaluation(root: pathlib.Path) -> None:
    """A run's images before the network."""
    from divco_tf.data.pipeline import evaluation_dataset

    source, preprocessing = open_folder(root)
    for _ in evaluation_dataset(source, batch_size=4, preprocess=preprocessing, threads=1):
        pass


def check(root: pathlib.Path) -> None:
    """`divco-views --check`."""
    from divco_tf.data.sources.check import check

    assert not check(open_folder(root)[0], report=lambda line: None).problems


def serving(root: pathlib.Path) -> None:
    """A request of four images to an export."""
    import tensorflow as tf

    from divco_tf.models.branch_stack import build
    from divco_tf.serving.export import export_stack

    if not hasattr(serving, "answer"):
        stack = build("wide_resnet10_2", copies=2, num_classes=2, input_shape=(224, 224, 3))
        preprocessing = open_folder(root)[1]
        folder = export_stack(
            stack, preprocessing=preprocessing, class_names=("cat", "dog"), export_dir=tempfile.mkdtemp()
        )
        serving.model = tf.saved_model.load(str(folder))
        serving.answer = serving.model.signatures["serving_default"]
    serving.answer(image_bytes=tf.constant([path.read_bytes() for path in sorted(root.rglob("train/*/*.png"))]))


PATHS = {path.__name__: path for path in (training_crops, training_whole, evaluation, check, serving)}


def measured(path: Callable[[pathlib.Path], None], shape: tuple[int, int]) -> str:
    """MiB beyond what the process had, and seconds."""
    usual, root = folder_of(*USUAL), folder_of(*shape)
    path(usual)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest memory counts from now on
    before, start = memory("VmRSS"), time.perf_counter()
    resource.setrlimit(resource.RLIMIT_AS, (int(memory("VmSize")) * 2**20 + LIMIT,) * 2)
    path(root)
    return f"{memory('VmHWM') - before:.0f} MiB, {time.perf_counter() - start:.2f} s"


def memory(name: str) -> float:
    """A figure of this process in MiB."""
    (line,) = [line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


def main(shapes: list[str]) -> None:
    """Prints a table, a row a size."""
    print("| pixels | " + " | ".join(PATHS) + " |\n" + "|---" * (len(PATHS) + 1) + "|")
    for shape in shapes or ["{}x{}".format(*size) for size in (USUAL, *THIN)]:
        row = []
        for name in PATHS:
            command = [sys.executable, "-m", "tests.data.thin_images", name, shape]
            ended = subprocess.run(
                command, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True
            )
            row.append(ended.stdout.strip() if ended.returncode == 0 else "out of memory")
        print(f"| {shape.replace('x', ' x ')} | " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in PATHS:
        print(measured(PATHS[sys.argv[1]], tuple(map(int, sys.argv[2].split("x")))))
    else:
        main(sys.argv[1:])
