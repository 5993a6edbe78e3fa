"""Opens a split of a dataset by its name, or all that a run reads."""

import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from divco_tf import files
from divco_tf.data.datasets import ALL, SPLITS, Dataset, get_dataset
from divco_tf.data.sources.base import ArraySource, Source
from divco_tf.data.sources.folder import open_folder
from divco_tf.data.sources.prepared import has_prepared, open_prepared, stretched
from divco_tf.data.sources.request import Report, Request, memory_budget_of, silent
from divco_tf.data.sources.splits import in_split
from divco_tf.errors import InputError, shown
from divco_tf.registry import did_you_mean

ON_ERROR = ("raise", "skip")


def open_source(
    dataset: str,
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    held_out: float = 0.0,
    image_size: int | None = None,
    on_error: str = "raise",
    memory_budget: int | None = None,
    index_dir: str | None = None,
    report: Report = silent,
    listings: dict[pathlib.Path, Any] | None = None,
) -> Source:
    """Opens a split of a dataset.

    Args:
      dataset: a name of `datasets.DATASETS`.
      split: "train", "held_out" or "test"; "all": every image of a folder of classes that has no splits.
      data_dir: where the data is: the folder that TensorFlow Datasets prepared it in (as TFRecord or ArrayRecord), or
        the user's folder of images; for ImageNet either. Digits need none.
      held_out: the share of the training images, in [0, 1), that is kept from training and makes up "held_out". Of a
        folder with validation/ and test/ beside train/ that is validation/, whatever the share.
      image_size: pixels a side; the dataset's own unless given.
      on_error: "raise" refuses bad images as soon as they are noticed; "skip" leaves them to reading, which raises
        `BadImage`: what reads may then go on with another one.
      memory_budget: bytes of memory that decoded images of one size (CIFAR, SVHN) may take; what does not fit is read
        when it is needed. By default a quarter of what is free. Nothing but time depends on it.
      index_dir: a folder of the user's that keeps where the records of TFRecord files begin, for the next run.
      report: receives a line on what was decided.
      listings: of folders: splits that are opened with the same ones list none twice.

    Raises:
      InputError: no such dataset, split or data; the data is not as it should be.
    """
    facts = get_dataset(dataset)
    _check_split(split, held_out, facts)
    size = facts.image_size if image_size is None else image_size
    if size < 1:
        raise InputError(f"An image size in pixels. Received: {size}; {facts.image_size} would work.")
    check_on_error(on_error)
    reads = data_dir is not None and facts.reader != "digits"
    request = Request(
        split=split,
        held_out=held_out,
        data_dir=files.local_path(data_dir, "data_dir") if reads else None,
        image_size=size,
        on_error=on_error,
        memory_budget=memory_budget_of(memory_budget),
        index_dir=index_dir,
        report=report,
        listings={} if listings is None else listings,
    )
    if facts.reader == "digits":
        return _open_digits(facts, request)
    if facts.reader == "tfds" or (split != ALL and has_prepared(facts, request.data_dir)):
        return open_prepared(facts, request)
    return open_folder(facts, request)


def open_splits(
    dataset: str,
    *,
    held_out: float = 0.0,
    on_error: str = "raise",
    writes: Mapping[str, str | os.PathLike[str]] | None = None,
    test: bool = True,
    **how: Any,
) -> Iterator[tuple[str, Source]]:
    """Opens all that a run reads, one by one, so that a fault of any is told before the first step.

    Args:
      dataset, held_out: as `open_source`'s.
      on_error: of training images; evaluation counts all others, so bad ones are refused.
      writes: what the run writes, by its name: "model_dir", "cache_dir". It may not lie among the data.
      test: False leaves the test images alone.
      how: what else `open_source` takes.

    Yields:
      A split's name and its source: "train", "held_out" where images are held out, "test" unless that is left alone.
      One image of each has been decoded; of training images only if bad ones are refused.

    Raises:
      InputError: as `open_source`, or a class name could not be exported.
    """
    listings: dict[pathlib.Path, Any] = {}
    for split in ("train", *["held_out"] * bool(held_out), *["test"] * test):
        raises = "raise" if split != "train" else on_error
        source = open_source(dataset, split, held_out=held_out, on_error=raises, listings=listings, **how)
        _check_class_names(source.class_names)
        for name, path in (writes or {}).items():
            if source.holds(files.local_path(path, name)):
                raise InputError(
                    f"{name} lies among the images, and would become a class of them. Received: {path}; a folder "
                    f"outside of {files.local_path(how['data_dir'], 'data_dir')} would work."
                )
        if not len(source):
            raise InputError(
                f"There are too few images for split {split}. Received: held_out={held_out}; another share would work."
            )
        yield split, source
        if raises == "raise":
            source.read_stored(0)
            source.labels_of(np.zeros([1], np.int64))


def _check_class_names(names: Sequence[str]) -> None:
    """Refuses class names that an export, which has them a line each in UTF-8, cannot hold.

    Raises:
      InputError: as said.
    """
    for name in names:
        if len(name.splitlines()) != 1 or re.search("[\ud800-\udfff]", name):
            raise InputError(
                f"A class has a name that is no line of UTF-8, so it could not be exported. Received: '{shown(name)}'; "
                "rename its folder."
            )


def check_on_error(on_error: str) -> None:
    """Refuses what is no way with bad images.

    Raises:
      InputError: as said.
    """
    if on_error not in ON_ERROR:
        raise InputError(f"Unknown way with bad images. Received: {on_error}; {' or '.join(ON_ERROR)} would work.")


def _check_split(split: str, held_out: float, facts: Dataset) -> None:
    if split == ALL and facts.reader != "folder":
        raise InputError(
            f"All images at once are those of a folder with a subfolder a class. Received: split=all of {facts.name}; "
            "split=test would work."
        )
    if split not in (*SPLITS, ALL):
        raise InputError(f"Unknown split. Received: {split}.{did_you_mean(split, (*SPLITS, ALL))}")
    if not 0 <= held_out < 1:
        raise InputError(f"The held-out share of the training images. Received: {held_out}; 0 <= share < 1 would work.")
    if split == "held_out" and held_out == 0:
        raise InputError(
            "No images are held out. Received: split=held_out with held_out=0; held_out=0.1 would set a tenth of the "
            "training images apart."
        )


def _open_digits(facts: Dataset, request: Request) -> ArraySource:
    """Scikit-learn's digits, embedded in the package: 1,797 images of 8x8 pixels, grey levels 0 to 16."""
    from sklearn.datasets import load_digits

    grey, labels = load_digits(return_X_y=True)
    keys = [str(index) for index in range(len(labels))]
    mine = in_split(keys, request.split, held_out=request.held_out, test_share=facts.test_share)
    grey = np.rint(grey[mine].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    images = stretched(np.repeat(grey, 3, axis=3), request.image_size)
    return ArraySource(images, labels[mine], facts.class_names, name=f"{facts.name} {request.split}")
