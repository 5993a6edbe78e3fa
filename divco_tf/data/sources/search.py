"""Image files that a user names: one by one, or by the folders that they lie in."""

import dataclasses
import mimetypes
import os
import pathlib
from collections.abc import Iterable, Iterator

from divco_tf.data.sources.layout import leads_nowhere, leftover, listing
from divco_tf.data.sources.listing import why_no_image
from divco_tf.errors import InputError, shown


@dataclasses.dataclass(frozen=True)
class Found:
    """What lies there.

    Attributes:
      images: paths, a folder's in the order of their names; files that the user named are among them whatever they are.
      others: paths of a folder's files that are no images, by their names and by their first bytes.
    """

    images: tuple[str, ...]
    others: tuple[str, ...]


def find_images(paths: Iterable[str | os.PathLike[str]]) -> Found:
    """The image files that are named, and those in the folders that are, at any depth.

    In a folder a file is an image if it is called like one (photo.jpg, scan.tiff), whatever is in it: one that is
    damaged, or in a format that is not read, is not passed over in silence. Or if it begins like one. Hidden files and
    folders are left out, and what systems leave. Linked folders are followed, each real one once.

    Raises:
      InputError: a path is no file and no folder, a folder has no image, or cannot be listed.
    """
    images: list[str] = []
    others: list[str] = []
    for path in map(os.fspath, paths):
        if os.path.isfile(path):
            images.append(path)
            continue
        if not os.path.isdir(path):
            raise InputError(f"A path is no file and no folder. Received: {shown(path)}; an image file would work.")
        before = len(images)
        for file in _files(path):
            (images if _is_image(file) else others).append(file)
        if len(images) == before:
            raise InputError(
                f"No image lies in a folder, nor in those below it. Received: {shown(path)}; JPEG, PNG, WebP, GIF and "
                "BMP files are images."
            )
    return Found(tuple(images), tuple(others))


def _files(folder: str) -> Iterator[str]:
    waiting, seen = [folder], set()
    with listing(pathlib.Path(folder)):
        while waiting:
            folder = waiting.pop()
            if (real := os.path.realpath(folder)) in seen:
                continue
            seen.add(real)
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            hidden = {entry.name for entry in found if entry.name.startswith(".") or leftover(entry.name)}
            kept = [entry for entry in found if entry.name not in hidden and not leads_nowhere(entry)]
            yield from (entry.path for entry in kept if entry.is_file())
            waiting += reversed([entry.path for entry in kept if entry.is_dir()])


def _is_image(path: str) -> bool:
    kind, _ = mimetypes.guess_type(path)
    return (kind or "").startswith("image/") or why_no_image(path) is None
