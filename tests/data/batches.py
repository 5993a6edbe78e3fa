"""Pipelines of views, and their batches, for tests."""

import numpy as np

from divco_tf.data.pipeline import ViewPipeline
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import ArraySource, open_source
from divco_tf.data.views.policies import POLICIES, ResizedCrop, ViewPolicy

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


def numbered(count: int, size: int = 8) -> ArraySource:
    """Images whose pixels spell their index, of three classes."""
    indices = np.arange(count)
    pixels = np.stack([indices % 256, indices // 256, indices % 7], axis=1).astype(np.uint8)
    images = np.broadcast_to(pixels[:, None, None, :], (count, size, size, 3)).copy()
    return ArraySource(images, indices % 3, ("a", "b", "c"))


def pipeline(source=None, **changes) -> ViewPipeline:
    source = source or numbered(40)
    settings = {
        "batch_size": 8,
        "split_factor": 3,
        "seed": 5,
        "policy": POLICIES["svhn_no_autoaugment"],
        "preprocessing": Preprocessing(image_size=source.image_size, mean=MEAN, std=STD),
        "mixup_alpha": 0.2,
    }
    return ViewPipeline(source, **settings | changes)


def stream(folder, **changes) -> ViewPipeline:
    source = open_source(
        "image_folder", "train", data_dir=str(folder), image_size=12, on_error=changes.get("on_error", "raise")
    )
    settings = {"batch_size": 4, "mixup_alpha": 0.0, "policy": ViewPolicy(pad=0, resized_crop=ResizedCrop())}
    return pipeline(source, **settings | changes)


def batches(stream: ViewPipeline, start: int, stop: int, threads: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(stream.dataset(start, stop, threads=threads).as_numpy_iterator())


def assert_same(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for array, expected in zip(one, other, strict=True):
            np.testing.assert_array_equal(array, expected)
