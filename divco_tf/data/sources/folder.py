"""Folders of image files, a class a subfolder."""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from divco_tf.data.datasets import Dataset
from divco_tf.data.decoding import PREFIX_BYTES, is_image
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources.encoded import EncodedSource
from divco_tf.data.sources.progress import from_disk
from divco_tf.data.sources.request import Request
from divco_tf.data.sources.splits import in_split
from divco_tf.errors import InputError

_LAYOUT = "a folder with a subfolder of images for each class, or with train/ and validation/ that have them"


class ImageFolder(EncodedSource):
    """Image files of any size, decoded when they are read.

    Args:
      root: the folder that `paths` are relative to.
      paths: of the files, with forward slashes.
      labels: integers [N].
      class_names: a name a class.
      preprocessing: brings an image to the size that evaluation, and training if it asks for it, sees.
    """

    def __init__(
        self,
        root: pathlib.Path,
        paths: Iterable[str],
        labels: Iterable[int],
        class_names: Iterable[str],
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__(preprocessing)
        self.root, self.paths = root, tuple(paths)
        self.labels, self.class_names = np.asarray(list(labels), np.int64), tuple(class_names)

    def encoded(self, index: int) -> bytes:
        """The bytes of the file at `index`."""
        try:
            return (self.root / self.paths[index]).read_bytes()
        except OSError as error:
            raise self.bad(index, error.strerror or str(error)) from error

    def name_of(self, index: int) -> str:
        """The file's path."""
        return str(self.root / self.paths[index])

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
    """A folder with a subfolder a class, or with train/ and validation/ that have them.

    Without validation/, a share of the images is set apart as "test", by a hash of their paths.
    """
    if request.data_dir is None:
        raise InputError(f"{facts.name} needs a data_dir. Received: none; {_LAYOUT} would work.")
    root = pathlib.Path(request.data_dir).expanduser()
    if not root.is_dir():
        raise InputError(f"The folder of images does not exist. Received: {request.data_dir}; {_LAYOUT} would work.")
    split, held_out = request.split, request.held_out
    parted = (root / "train").is_dir() and (root / "validation").is_dir()
    train = root / "train" if parted else root
    class_names = _class_names(train)
    if parted and split == "test":
        root, test_share = root / "validation", 1.0
        surplus = sorted(set(_class_names(root)) - set(class_names))
        if surplus:
            raise InputError(
                f"A class of validation/ is not in train/. Received: {root / surplus[0]}; train/ has "
                f"{len(class_names)} classes, {class_names[0]} to {class_names[-1]}."
            )
    else:
        root, test_share = train, 0.0 if parted else facts.test_share
    paths = _image_paths(root, may_skip=request.on_error == "skip")
    mine = in_split(paths, split, held_out=held_out, test_share=test_share)
    paths = [path for path, chosen in zip(paths, mine, strict=True) if chosen]
    numbers = {name: number for number, name in enumerate(class_names)}
    labels = [numbers[path.split("/", 1)[0]] for path in paths]
    absent = sorted(set(range(len(class_names))) - set(labels)) if split == "train" else []
    if absent or not paths:
        raise InputError(
            f"Too few images for split {split}{f' of class {class_names[absent[0]]}' if absent else ''}. Received: "
            f"{len(paths)} from {root}, held_out={held_out}; more images, or a smaller held_out, would work."
        )
    return ImageFolder(root, paths, labels, class_names, Preprocessing.for_dataset(facts, request.image_size))


def _class_names(folder: pathlib.Path) -> tuple[str, ...]:
    """The subfolders' names in the order of their code points, which no locale changes."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        what = f"only one class, {names[0]}" if names else "no classes"
        raise InputError(f"The folder of images has {what}. Received: {folder}; {_LAYOUT} would work.")
    return tuple(names)


def _image_paths(root: pathlib.Path, *, may_skip: bool) -> list[str]:
    """The files in the subfolders of `root`, at any depth, relative to it and sorted; hidden ones are left out.

    Files that are no images are refused, unless they `may_skip` to the reader, who then finds out.
    """
    paths = []
    try:
        for name in _class_names(root):
            found = list(_files(str(root / name), name))
            if not found:
                raise InputError(f"A class has no images. Received: {root / name}; image files in it would work.")
            paths += found
    except OSError as error:
        raise InputError(
            f"The folder of images cannot be listed ({error.strerror}). Received: {error.filename or root}; a folder "
            "that can be read, and is not changed meanwhile, would work."
        ) from error
    if not may_skip:
        for path, cause in zip(paths, from_disk(lambda path: _why_no_image(f"{root}/{path}"), paths), strict=True):
            if cause:
                raise InputError(f"A file {cause}. Received: {root / path}; remove or convert it.")
    return sorted(paths)


def _files(folder: str, name: str) -> Iterator[str]:
    """The files of a folder that is called `name` from the root, at any depth."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):  # links may run in circles
                yield from _files(entry.path, f"{name}/{entry.name}")
            elif entry.is_file():  # no broken link
                yield f"{name}/{entry.name}"


def _why_no_image(path: str) -> str | None:
    """Reads a file's first bytes only: cheap, and the same whatever the file is called."""
    try:
        with open(path, "rb", buffering=0) as file:
            prefix = file.read(PREFIX_BYTES)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not prefix:
        return "is empty"
    return None if is_image(prefix) else "is no JPEG, PNG, WebP, GIF or BMP image"
