"""Lists the image files of class folders, and tells what it leaves out."""

import os
import pathlib
from collections.abc import Iterable, Iterator

from divco_tf.data.decoding import PREFIX_BYTES, is_image
from divco_tf.data.sources.layout import (
    SPLIT_FOLDERS,
    WOULD_WORK,
    composed,
    leads_nowhere,
    leftover,
    listing,
    subfolders,
)
from divco_tf.data.sources.parallel import from_disk
from divco_tf.errors import InputError, shown

_LARGEST = 2**31 - 1  # bytes; TensorFlow's decoders take no more


class Listing:
    """The files of a folder's class folders, at any depth; hidden ones are left out.

    Linked folders are followed, each real one once a class, and circles are left out.

    Args:
      root: of the class folders.

    Attributes:
      paths: of the files, relative to `root`, with forward slashes, in the order of their composed names.
      class_names: composed, in the order of their code points.
      labels: of the files.

    Raises:
      InputError: it cannot be listed, has fewer than two classes, or a class without files.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.root, self._left_out, self._also = root, {}, []
        folders = _class_folders(root)
        self.class_names = tuple(folders)
        found: list[tuple[str, int]] = []
        with listing(root):
            _check_links(root, folders.values())
            for label, folder in enumerate(folders.values()):
                paths = list(self._files(folder))
                self._check_class(folder, paths)
                found += ((path, label) for path in paths)
        found.sort(key=lambda file: (composed(file[0]), file[0]))
        self.paths, self.labels = [path for path, _ in found], [label for _, label in found]
        self._good: set[str] = set()
        self._note_same_subfolders()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual, and what is left out, a line a kind of it."""
        return (*self._also, *self._told_left_out())

    def _told_left_out(self) -> Iterator[str]:
        return (
            f"left out: {what}, {_named(self.root / min(paths))}{f' and {len(paths) - 1:,} more' * (len(paths) > 1)}"
            for what, paths in sorted(self._left_out.items())
        )

    def refuse_no_images(self, paths: Iterable[str]) -> None:
        """Refuses files that are no images, by their first bytes: cheap, and the same whatever they are called.

        Raises:
          InputError: as said; the first of them is named.
        """
        unknown = [path for path in paths if path not in self._good]
        for path, cause in zip(
            unknown, from_disk(lambda path: why_no_image(f"{self.root}/{path}"), unknown), strict=True
        ):
            if cause:
                raise InputError(
                    f"A file {cause.removeprefix('it ')}. Received: {shown(self.root / path)}; remove or convert it."
                )
        self._good.update(unknown)

    def _files(self, class_folder: str) -> Iterator[str]:
        """The files of a class.

        Real subfolders come before linked ones, so that what is there twice has the same name on every machine.
        """
        folders, links, seen = [(class_folder, os.path.realpath(self.root / class_folder))], [], set()
        while folders or links:
            folder, real = folders.pop() if folders else links.pop(0)
            if real in seen:
                self._leave_out("linked folders that are listed already, or lead in a circle", folder)
                continue
            seen.add(real)
            with os.scandir(self.root / folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    path = f"{folder}/{entry.name}"
                    if entry.name.startswith("."):
                        self._leave_out("hidden files and folders", path)
                    elif leads_nowhere(entry):
                        self._leave_out("links that lead nowhere", path)
                    elif entry.is_dir() and leftover(entry.name):
                        self._leave_out("folders that a system has left there", path)
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append((path, f"{real}/{entry.name}"))
                    elif entry.is_dir():
                        target = os.path.realpath(entry.path)
                        # What lies above would bring in other classes, and this folder again.
                        links.append((path, real if f"{real}/".startswith(os.path.join(target, "")) else target))
                    elif entry.is_file():
                        yield path
                    else:  # opening a pipe would wait for ever
                        self._leave_out("pipes, sockets and devices", path)

    def _check_class(self, folder: str, paths: list[str]) -> None:
        if not paths:
            lost = sum(path.startswith(f"{folder}/") for path in self._left_out.get("links that lead nowhere", ()))
            told = f", where {lost} links lead nowhere" if lost else ""
            raise InputError(
                f"A class has no images. Received: {shown(self.root / folder)}{told}; image files in it would work."
            )
        inside = {path.split("/", 2)[1].lower() for path in paths if path.count("/") > 1}
        splits = [split for split, words in SPLIT_FOLDERS.items() if inside & set(words)]
        if "train" in splits and len(splits) > 1:
            raise InputError(
                f"Splits lie within a class, and would be mixed. Received: {shown(self.root / folder)}, with "
                f"{' and '.join(sorted(inside))}; {WOULD_WORK}."
            )

    def _note_same_subfolders(self) -> None:
        """fold1/ and fold2/ with the same subfolders are more likely parts of the data than classes."""
        inside: dict[int, set[str]] = {}
        for path, label in zip(self.paths, self.labels, strict=True):
            inside.setdefault(label, set()).add(path.split("/", 2)[1] if path.count("/") > 1 else "")
        one = inside[0]
        if len(one) > 1 and "" not in one and all(names == one for names in inside.values()):
            told = ", ".join(sorted(one)[:3]) + ", ..." * (len(one) > 3)
            self._also.append(
                f"all of the classes {shown(self.class_names[0])} to {shown(self.class_names[-1])} have the same "
                f"subfolders ({shown(told)}): if those are the classes, another data_dir is needed"
            )

    def _leave_out(self, what: str, path: str) -> None:
        self._left_out.setdefault(what, []).append(path)


def why_no_image(path: str) -> str | None:
    """Why a file is none, by its first bytes; None where they begin an image."""
    try:
        with open(path, "rb", buffering=0) as file:
            return why_no_bytes(os.path.basename(path), file.read(PREFIX_BYTES), os.fstat(file.fileno()).st_size)
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def image_bytes(path: str | os.PathLike[str]) -> bytes:
    """What an image file holds; of what is no image, however large, only the first bytes are read.

    Raises:
      ValueError: it cannot be read, or is no image. The message is the cause, without the file's name.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            cause = why_no_bytes(os.path.basename(path), file.read(PREFIX_BYTES), os.fstat(file.fileno()).st_size)
            if cause is None:
                file.seek(0)
                return file.readall()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    raise ValueError(cause)


def why_no_bytes(name: str, prefix: bytes, size: int) -> str | None:
    """The same of a file that is called `name`, begins with `prefix` and has `size` bytes."""
    if not prefix:
        return "it is empty"
    if not is_image(prefix):
        known = leftover(name)
        return f"it is {known}, no image" if known else "it is no JPEG, PNG, WebP, GIF or BMP image"
    return f"it is too large for an image, {size:,} bytes" if size > _LARGEST else None


def _class_folders(root: pathlib.Path) -> dict[str, str]:
    folders = subfolders(root)
    if len(folders) < 2:
        what = f"only one class, {shown(next(iter(folders)))}" if folders else "no classes"
        raise InputError(f"The folder of images has {what}. Received: {shown(root)}; {WOULD_WORK} would work.")
    return folders


def _check_links(root: pathlib.Path, folders: Iterable[str]) -> None:
    """Refuses class folders that are one, or hold each other, by links: an image would have two labels."""
    seen, above = {}, os.path.realpath(root)
    for folder in folders:
        real = os.path.realpath(root / folder)
        other = "the folder that it lies in" if f"{above}/".startswith(os.path.join(real, "")) else seen.get(real)
        if other:
            raise InputError(
                f"A class folder is a link to another one. Received: {shown(root / folder)}, which is {shown(other)}; "
                "remove the link."
            )
        seen[real] = folder


def _named(path: pathlib.Path) -> str:
    known = leftover(path.name)
    return f"{shown(path)} ({known})" if known else shown(path)
