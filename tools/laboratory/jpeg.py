"""Rows of `divco-benchmark views` for views of 224 pixels that are cut out of JPEG files of 500 x 375."""

import functools
import io
import random

import numpy as np
from PIL import Image

from divco_tf.data.branch_views import union
from divco_tf.data.datasets import get_dataset
from divco_tf.data.decoding import decode
from divco_tf.data.pipeline import ViewPipeline
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import Choose, Source
from divco_tf.data.views.policies import POLICIES
from divco_tf.tools.laboratory.pillow_views import PillowViews

SIZE, FILES, SPLIT_FACTORS = (500, 375), 24, (1, 2)


class JPEGs(Source):
    """JPEG files in memory."""

    def __init__(self, files: list[bytes], image_size: int) -> None:
        self.files, self.image_size = files, image_size
        self.labels, self.class_names = np.zeros(len(files), np.int64), ("all",)

    def read(self, index: int) -> np.ndarray:
        """Not what is timed: views are cut out of what is stored."""
        raise NotImplementedError

    def read_region(self, index: int, choose: Choose | None = None) -> np.ndarray:
        """The part that `choose` names."""
        return decode(self.files[index], choose)


def systems(split_factor: int, files: list[bytes]) -> dict:
    """A batch of S views a file by each system, functions of the step; ours first, and its decoding alone."""
    facts, policy = get_dataset("imagenet"), POLICIES["resized_crop"]
    pipeline = ViewPipeline(
        JPEGs(files, facts.image_size),
        batch_size=len(files),
        split_factor=split_factor,
        policy=policy,
        preprocessing=Preprocessing.for_dataset(facts),
    )
    theirs = PillowViews(policy, mean=facts.mean, std=facts.std, image_size=facts.image_size)

    def decoded(step: int) -> None:
        for index, keys in zip(pipeline.indices_at(step), pipeline.keys_at(step), strict=True):
            decode(files[index], lambda height, width, keys=keys: union(pipeline.boxes(keys, height, width)))

    def pillow(step: int) -> None:
        generator = random.Random(step)
        for data in files:
            image = _opened(data)
            for _ in range(split_factor):
                theirs(image, generator)

    return {
        "divco_tf": lambda step: pipeline.unmixed_at(step, range(len(files))),
        "divco_tf, decoding alone": decoded,
        "Pillow": pillow,
        "Pillow, decoding alone": lambda step: [_opened(data) for data in files],
    }


def photographs(count: int = FILES) -> list[bytes]:
    """Parts of scikit-learn's two photographs, as JPEG files."""
    files = []
    for seed in range(count):
        generator, image = random.Random(seed), Image.fromarray(_stored()[seed % 2])
        width, height = generator.randint(300, 600), generator.randint(250, 400)
        left, top = generator.randint(0, image.width - width), generator.randint(0, image.height - height)
        part = image.resize(SIZE, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        data = io.BytesIO()
        part.save(data, "JPEG", quality=90)
        files.append(data.getvalue())
    return files


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


@functools.cache
def _stored() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return load_sample_images().images
