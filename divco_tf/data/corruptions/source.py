"""A source whose images are corrupted as they are read."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from divco_tf.data.corruptions.corrupt import SMALLEST, check_corruption, corrupt
from divco_tf.data.sources.base import Source
from divco_tf.data.sources.checked import read_batch, read_image
from divco_tf.errors import InputError


class CorruptedSource(Source):
    """The images of a source as evaluation sees them, corrupted: `evaluation_dataset` takes it like any other.

    Corruption comes after resizing, as in ImageNet-C: `preprocess=preprocessing.normalise` leaves it at that, while a
    whole `Preprocessing` that crops would enlarge the corrupted images once more.

    Args:
      source: of the clean images.
      family: a name of `CORRUPTIONS`.
      severity: 1 to 5.
      seed: see `corrupt`; an image's index is that in the source.

    Raises:
      InputError: there is no such corruption, or the images are smaller than 8 pixels a side.
    """

    same_size = True

    def __init__(self, source: Source, *, family: str, severity: int, seed: int = 0) -> None:
        check_corruption(family, severity, seed)
        if source.image_size < SMALLEST:
            raise InputError(
                f"Images are too small to be corrupted. Received: image_size={source.image_size}; {SMALLEST} or more "
                "would work."
            )
        self.source = source
        self.family, self.severity, self.seed = family, severity, seed
        self.class_names, self.image_size = source.class_names, source.image_size
        self.notes = (*source.notes, f"corrupted by {family}, severity {severity}, seed {seed}")

    @property
    def labels(self) -> np.ndarray:
        """Of the clean images, int64 [N]."""
        return self.source.labels

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> np.ndarray:
        """The corrupted image at `index`, uint8 [image_size, image_size, 3]."""
        return self._corrupted(read_image(self.source, index)[None], np.array([index]))[0]

    def read_batch(self, indices: np.ndarray) -> np.ndarray:
        """The corrupted images at `indices`, uint8 [n, image_size, image_size, 3]."""
        return self._corrupted(read_batch(self.source, indices), indices)

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """The labels of the images at `indices`, int64 [n]."""
        return self.source.labels_of(indices)

    def name_of(self, index: int) -> str:
        """The clean image's name."""
        return self.source.name_of(index)

    def ordered_as(self, class_names: Sequence[str], *, some: bool = False) -> "CorruptedSource":
        """The same images, labelled by their classes' places in `class_names`."""
        source = self.source.ordered_as(class_names, some=some)
        return CorruptedSource(source, family=self.family, severity=self.severity, seed=self.seed)

    def holds(self, path: pathlib.Path) -> bool:
        """Whether what is written at `path` would become a part of the data."""
        return self.source.holds(path)

    def fingerprint(self) -> Mapping[str, Any]:
        """The clean images', and which corruption."""
        corruption = {"family": self.family, "severity": self.severity, "seed": self.seed}
        return {**self.source.fingerprint(), "corruption": corruption}

    def _corrupted(self, images: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return corrupt(images, family=self.family, severity=self.severity, seed=self.seed, indices=indices)
