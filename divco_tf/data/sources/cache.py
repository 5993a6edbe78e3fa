"""Decoded images that are kept: in memory where they fit into a budget, or on the disk if the user asks."""

import abc
import concurrent.futures
import hashlib
import json
import pathlib
import shutil
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from divco_tf import files
from divco_tf.data.decoding import image_info
from divco_tf.data.sources.base import BadImage, Choose, Source, region
from divco_tf.data.sources.derived_files import kept
from divco_tf.data.sources.encoded import EncodedSource
from divco_tf.data.sources.parallel import in_order
from divco_tf.data.sources.request import IO_THREADS, Report, in_bytes, memory_budget_of, silent
from divco_tf.errors import InputError

_SAMPLE = 256  # headers that tell how large stored images are
_OVERHEAD = 200  # bytes that an array takes beside its pixels


def cached(
    source: Source,
    *,
    stored: bool,
    memory_budget: int | None = None,
    cache_dir: str | None = None,
    threads: int | None = None,
    report: Report = silent,
) -> Source:
    """The same source, its decoded images kept where that is possible.

    Args:
      source: any; one that is in memory comes back as it is.
      stored: whether images are kept in the size they are stored in (for policies that cut a part out of them), or in
        the size that `read` returns.
      memory_budget: bytes; images that are all together larger are not kept in memory. By default a quarter of what is
        free.
      cache_dir: a folder for decoded images; the first run fills it, in one pass before it goes on, others find it. It
        takes the place of the memory. An image that cannot be read then is a `BadImage` whenever it is asked for.
      threads: of that pass, one a core by default.
      report: receives a line on what was decided, and the progress of that pass.

    Returns:
      A source of equal images. Nothing but time depends on whether they are kept.

    Raises:
      InputError: the budget is negative; the folder cannot be written, or its disk is too small.
    """
    budget = memory_budget_of(memory_budget)
    if not isinstance(source, EncodedSource):
        return source
    stored = stored and not source.same_size
    needed = _bytes_stored(source) if stored else 3 * source.image_size**2 * len(source)
    if cache_dir is not None:
        return _decoded_on_disk(source, files.local_path(cache_dir, "cache_dir"), needed, stored, threads, report)
    needed += _OVERHEAD * len(source)
    fits = needed <= budget
    kept_where = "kept in memory" if fits else "decoded whenever they are read"
    report(f"decoded images: {in_bytes(needed)} of a budget of {in_bytes(budget)}, {kept_where}")
    return MemoryCache(source, stored=stored, memory_budget=budget) if fits else source


class CachedSource(Source):
    """A source whose decoded images are kept somewhere, as stored or as `read` returns them."""

    def __init__(self, source: EncodedSource, *, stored: bool) -> None:
        self.source, self.stored = source, stored
        self.class_names, self.image_size, self.same_size = source.class_names, source.image_size, source.same_size

    def __len__(self) -> int:
        return len(self.source)

    @property
    def labels(self) -> np.ndarray:
        """All labels, int64 [N]."""
        return self.source.labels

    @abc.abstractmethod
    def image(self, index: int) -> np.ndarray:
        """The image that is kept, uint8 [h, w, 3]; not to be written into."""

    def read(self, index: int) -> np.ndarray:
        """The image at `index` as evaluation sees it, uint8 [image_size, image_size, 3]."""
        image = self.image(index)
        return self.source.resized(image) if self.stored else image

    def read_region(self, index: int, choose: Choose | None = None) -> np.ndarray:
        """A part of the image at `index` in the size it is stored in."""
        if self.stored or self.same_size:
            return region(self.image(index), choose)
        return self.source.read_region(index, choose)

    def encoded(self, index: int) -> bytes:
        """The encoded image at `index`."""
        return self.source.encoded(index)

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """The labels of the images at `indices`, int64 [n]."""
        return self.source.labels_of(indices)

    def name_of(self, index: int) -> str:
        """Which image that is, for messages."""
        return self.source.name_of(index)

    def fingerprint(self) -> Mapping[str, Any]:
        """That of the source."""
        return self.source.fingerprint()


class MemoryCache(CachedSource):
    """Keeps images in memory from when they are first read, and never more than `memory_budget` bytes of them."""

    def __init__(self, source: EncodedSource, *, stored: bool, memory_budget: int) -> None:
        super().__init__(source, stored=stored)
        self._images: list[np.ndarray | None] = [None] * len(source)
        self._left = memory_budget
        self._lock = threading.Lock()

    def image(self, index: int) -> np.ndarray:
        """The image, from memory if it is there."""
        image = self._images[index]
        if image is None:
            image = self.source.read_region(index) if self.stored else self.source.read(index)
            with self._lock:
                if self._images[index] is None and image.nbytes + _OVERHEAD <= self._left:
                    self._left -= image.nbytes + _OVERHEAD
                    self._images[index] = image
        return image


class DiskCache(CachedSource):
    """Images that lie decoded in a folder that `cached` has filled, mapped into memory."""

    def __init__(self, source: EncodedSource, folder: pathlib.Path, *, stored: bool) -> None:
        super().__init__(source, stored=stored)
        self._shapes = np.load(folder / "shapes.npy")
        sizes = 3 * self._shapes.astype(np.int64).prod(axis=1)
        self._starts = np.cumsum(sizes) - sizes
        self._causes = json.loads((folder / "bad.json").read_text())
        path = folder / "pixels.bin"
        if path.stat().st_size != sizes.sum():  # reading behind its end would kill the process
            raise InputError(f"The decoded images are not whole. Received: {path}; remove {folder}.")
        self._pixels = np.memmap(path, np.uint8, "r") if sizes.sum() else np.empty(0, np.uint8)

    def image(self, index: int) -> np.ndarray:
        """The image, a view of the file."""
        if str(index) in self._causes:
            raise self.source.bad(index, self._causes[str(index)])
        height, width = self._shapes[index].tolist()
        start = int(self._starts[index])
        return np.asarray(self._pixels[start : start + 3 * height * width]).reshape(height, width, 3)


def _bytes_stored(source: EncodedSource) -> int:
    """About how many bytes all images take once they are decoded, from the headers of some."""

    def size(index: int) -> int | None:
        try:
            info = image_info(source.encoded(index))
        except ValueError:  # also a BadImage: whoever reads it will say so
            return None
        return 3 * info.height * info.width

    sample = np.linspace(0, len(source) - 1, min(_SAMPLE, len(source))).astype(int)
    with concurrent.futures.ThreadPoolExecutor(IO_THREADS) as pool:
        known = [found for found in pool.map(size, sample.tolist()) if found is not None]
    return round(len(source) * float(np.mean(known))) if known else 0


def _decoded_on_disk(
    source: EncodedSource, cache_dir: pathlib.Path, needed: int, stored: bool, threads: int | None, report: Report
) -> DiskCache:
    """All images decoded, in a folder of `cache_dir`."""
    record = {
        "format": 1,
        "images": len(source),
        "size": "stored" if stored else [source.image_size, source.preprocessing.resize],
        "data": source.stamp(),
    }
    # The names come in, so that splits and data sets have a folder each; it is filled anew when their files change.
    key = json.dumps([source.name_of(0), len(source), record["size"]])
    path = cache_dir / f"decoded-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"

    def build(folder: pathlib.Path) -> None:
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise InputError(
                f"The disk is too small for the decoded images, about {in_bytes(needed)}. Received: {cache_dir}, with "
                f"{in_bytes(free)} free; another cache_dir, or none, would work."
            )
        _write_decoded(source, folder, stored, threads, report)

    report(f"decoded images: about {in_bytes(needed)} in {path}")
    return kept(path, record, build, load=lambda made: DiskCache(source, made, stored=stored), report=report)


def _write_decoded(
    source: EncodedSource, folder: pathlib.Path, stored: bool, threads: int | None, report: Report
) -> None:
    """Writes pixels.bin (all pixels in a row), shapes.npy (int32 [N, 2]) and bad.json (index to cause)."""

    def read(index: int) -> np.ndarray | BadImage:
        try:
            return source.read_region(index) if stored else source.read(index)
        except BadImage as error:
            return error

    shapes, causes = np.zeros((len(source), 2), np.int32), {}
    try:
        with open(folder / "pixels.bin", "wb") as file:
            images = in_order(read, len(source), threads=threads, what="decoded", report=report)
            for index, image in enumerate(images):
                if isinstance(image, BadImage):
                    causes[index] = image.cause
                else:
                    file.write(np.ascontiguousarray(image))
                    shapes[index] = image.shape[:2]
        np.save(folder / "shapes.npy", shapes)
        (folder / "bad.json").write_text(json.dumps(causes))
    except OSError as error:
        raise InputError(
            f"The decoded images cannot be written ({error.strerror}). Received: {folder.parent}; another cache_dir, "
            "or none, would work."
        ) from error
    if causes:
        report(f"{len(causes):,} images cannot be read, {source.name_of(min(causes))} first")
