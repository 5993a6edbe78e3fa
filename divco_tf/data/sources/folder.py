"""Folders of image files, a class a subfolder."""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from divco_tf.data.datasets import ALL, Dataset
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources.encoded import EncodedSource
from divco_tf.data.sources.fingerprints import FILES, file_parts
from divco_tf.data.sources.layout import WOULD_WORK, Layout, composed, find_layout
from divco_tf.data.sources.listing import Listing, image_bytes
from divco_tf.data.sources.parallel import from_disk
from divco_tf.data.sources.request import Request
from divco_tf.data.sources.splits import in_split
from divco_tf.errors import InputError, shown


class ImageFolder(EncodedSource):
    """Image files of any size, decoded when they are read.

    Args:
      root: the folder that `paths` are relative to.
      paths: of the files, with forward slashes.
      labels: integers [N].
      class_names: a name a class.
      preprocessing: brings an image to the size that evaluation, and training if it asks for it, sees.
      notes: what there is to say of the folder, a line each.
    """

    def __init__(
        self,
        root: pathlib.Path,
        paths: Iterable[str],
        labels: Iterable[int],
        class_names: Iterable[str],
        preprocessing: Preprocessing,
        *,
        notes: Iterable[str] = (),
    ) -> None:
        super().__init__(preprocessing)
        self.root, self.paths, self.notes = root, tuple(paths), tuple(notes)
        self.labels, self.class_names = np.asarray(list(labels), np.int64), tuple(class_names)

    def encoded(self, index: int) -> bytes:
        """The bytes of the file at `index`; of what is no image, however large, only the first are read."""
        try:
            return image_bytes(self.root / self.paths[index])
        except ValueError as error:
            raise self.bad(index, str(error)) from error

    def name_of(self, index: int) -> str:
        """The file's path, as it can be printed."""
        return shown(self.root / self.paths[index])

    def ordered_as(self, class_names: Sequence[str], *, some: bool = False) -> "ImageFolder":
        """The same images for a run of 0.1.0, which sorted class names as the file system spelt them.

        With `some` for any run that knows their classes, among others.
        """
        numbers = {composed(name): number for number, name in enumerate(class_names)}
        if not set(self.class_names) <= set(numbers) or not (some or len(numbers) == self.num_classes):
            return self
        labels = [numbers[self.class_names[label]] for label in self.labels]
        return ImageFolder(self.root, self.paths, labels, numbers, self.preprocessing, notes=self.notes)

    def only(self, indices: np.ndarray) -> "ImageFolder":
        """The files at `indices`."""
        paths = [self.paths[index] for index in indices]
        return ImageFolder(
            self.root, paths, self.labels[indices], self.class_names, self.preprocessing, notes=self.notes
        )

    def holds(self, path: pathlib.Path) -> bool:
        """Whether what is written at `path` would lie among the class folders, or in one that is linked there."""
        classes = {path.split("/", 1)[0] for path in self.paths}
        return any(_inside(path, folder) for folder in (self.root, *(self.root / name for name in classes)))

    def fingerprint(self) -> Mapping[str, Any]:
        """That of all sources, and of names, sizes and a sample of contents."""
        return {**super().fingerprint(), FILES: file_parts(self.root, self.paths)}

    def stamp(self) -> str:
        """A digest of all paths, sizes and times of change; a file that is gone counts as such."""

        def facts(path: str) -> str:
            try:
                status = os.stat(self.root / path)
            except OSError:
                return f"{path} gone\n"
            return f"{path} {status.st_size} {status.st_mtime_ns}\n"

        digest = hashlib.blake2b(digest_size=16)
        for line in from_disk(facts, self.paths):
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def open_folder(facts: Dataset, request: Request) -> ImageFolder:
    """A folder with a subfolder a class, or with splits that have them.

    Without splits, a share of the images is set apart as "test", by a hash of their paths. Of train/, "held_out" is a
    share too, unless validation/ and test/ are both there: then it is validation/.
    """
    if request.data_dir is None:
        raise InputError(f"{facts.name} needs a data_dir. Received: none; {WOULD_WORK} would work.")
    root = request.data_dir
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise InputError(f"The folder of images {what}. Received: {root}; {WOULD_WORK} would work.")
    layout = find_layout(root, tested_on=facts.test_splits)
    if request.split == ALL and layout.train != root:
        raise InputError(
            f"The folder of images has splits, so all images at once are none. Received: split=all of {shown(root)}; "
            f"data_dir={shown(layout.test or layout.validation or layout.train)} would work."
        )
    train = _listing(layout.train, request)
    known = {name: number for number, name in enumerate(train.class_names)}
    whole, notes = _whole(layout, request)
    listed = train if whole is None else _listing(whole, request)
    paths, labels = np.array(listed.paths, object), np.array(listed.labels)
    if whole is None:
        flat = layout.validation is None and layout.test is None
        share = facts.test_share if flat else 0.0
        if request.split != ALL:
            mine = in_split(listed.paths, request.split, held_out=_share(layout, request), test_share=share)
            paths, labels = paths[mine], labels[mine]
    else:
        _check_classes(listed, train)
    if request.on_error == "raise":  # of training images all that lie beside them, too: they are to be read as well
        listed.refuse_no_images(listed.paths if request.split == "train" else paths)
    labels = [known[listed.class_names[label]] for label in labels]
    _check_enough(labels, train.class_names, request, listed.root)
    preprocessing = Preprocessing.for_dataset(facts, request.image_size)
    notes = (*layout.notes, *notes, *listed.notes)
    return ImageFolder(listed.root, paths, labels, train.class_names, preprocessing, notes=notes)


def _listing(root: pathlib.Path, request: Request) -> Listing:
    """The files of the class folders in `root`; once for all splits that are opened together."""
    if root not in request.listings:
        request.listings[root] = Listing(root)
    return request.listings[root]


def _whole(layout: Layout, request: Request) -> tuple[pathlib.Path | None, list[str]]:
    """The folder that is all of the split, None where it is a share of train/; and what there is to say of that."""
    reported = layout.test or layout.validation
    if reported is None or layout.test is None or layout.validation is None:
        return (reported if request.split == "test" else None), []
    name = shown(layout.validation.name)
    if request.held_out:
        told = f"{name}/ is what is held out, whatever its share of the images (held_out={request.held_out})"
    else:
        told = f"{name}/ is not used, since nothing is held out; held_out=0.1, say, would choose weights by it"
    return {"train": None, "held_out": layout.validation, "test": layout.test}[request.split], [told]


def _inside(path: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether `path` lies in a folder, and in no hidden one there, which the listing leaves out."""
    parts = os.path.relpath(os.path.realpath(path), os.path.realpath(folder)).split("/")
    return parts == ["."] or not any(part.startswith(".") for part in parts)


def _share(layout: Layout, request: Request) -> float:
    """The share of train/ that is held out."""
    return 0.0 if layout.validation and layout.test else request.held_out


def _check_classes(listed: Listing, train: Listing) -> None:
    surplus = sorted(set(listed.class_names) - set(train.class_names))
    if surplus:
        raise InputError(
            f"A class of {shown(listed.root.name)}/ is not in {shown(train.root.name)}/. Received: "
            f"{shown(listed.root / surplus[0])}; {shown(train.root.name)}/ has {len(train.class_names)} classes, "
            f"{shown(train.class_names[0])} to {shown(train.class_names[-1])}."
        )


def _check_enough(labels: list[int], class_names: tuple[str, ...], request: Request, root: pathlib.Path) -> None:
    absent = sorted(set(range(len(class_names))) - set(labels)) if request.split == "train" else []
    if absent or not labels:
        of_class = f" of class {shown(class_names[absent[0]])}" if absent else ""
        raise InputError(
            f"Too few images for split {request.split}{of_class}. Received: {len(labels)} from {shown(root)}, "
            f"held_out={request.held_out}; more images, or a smaller held_out, would work."
        )
