"""Reads whole sources once, and tells what is wrong with them, and what is unusual."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable

import numpy as np

from divco_tf.data.decoding import ImageInfo, image_info
from divco_tf.data.sources.base import BadImage, Source
from divco_tf.data.sources.encoded import EncodedSource
from divco_tf.errors import shown

_AT_ONCE = 1024  # images that are handed out to threads together


@dataclasses.dataclass
class Findings:
    """What was found.

    Attributes:
      images: how many there are.
      problems: a line for each image that cannot be read.
      rotated: names of images that EXIF asks viewers to rotate; they are taken as they are stored.
      animated: names of images of several frames, of which the first counts.
      formats: images by file format; of encoded ones only.
      sizes: the smallest and the largest number of pixels, as (height, width); of encoded ones only.
      by_class: images by the name of their class.
    """

    images: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    rotated: list[str] = dataclasses.field(default_factory=list)
    animated: list[str] = dataclasses.field(default_factory=list)
    formats: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    sizes: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    by_class: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def lines(self) -> list[str]:
        """For a human, problems first."""
        told = [*sorted(self.problems), f"{self.images} images, of which {len(self.problems)} cannot be read"]
        if self.formats:
            told.append(", ".join(f"{count} {name}" for name, count in self.formats.most_common()))
        if self.sizes:
            small, large = (min(self.sizes, key=_pixels), max(self.sizes, key=_pixels))
            told.append(f"from {small[1]} x {small[0]} to {large[1]} x {large[0]} pixels")
        if self.rotated:
            told.append(f"{len(self.rotated)} have an EXIF rotation, which is not applied: {_some(self.rotated)}")
        if self.animated:
            told.append(f"{len(self.animated)} are animated; their first frame counts: {_some(self.animated)}")
        ranked = self.by_class.most_common()
        if ranked:
            (most, many), (least, few) = ranked[0], ranked[-1]
            told.append(f"{len(ranked)} classes, from {few} images ({shown(least)}) to {many} ({shown(most)})")
        return told


def check(*sources: Source, threads: int = 8, report: Callable[[str], None] = print) -> Findings:
    """Reads every image of the sources, in parallel.

    Args:
      sources: of the images.
      threads: that read and decode.
      report: called with a line of progress every few seconds.

    Returns:
      The findings.
    """
    findings, shown_at, done = Findings(images=sum(map(len, sources))), time.monotonic(), 0
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for source in sources:
            for start in range(0, len(source), _AT_ONCE):
                indices = range(start, min(start + _AT_ONCE, len(source)))
                for one in pool.map(functools.partial(_look_at, source), indices):
                    _add(findings, one)
                done += len(indices)
                if time.monotonic() - shown_at > 5:
                    shown_at = time.monotonic()
                    report(f"{done} of {findings.images} images, {len(findings.problems)} bad")
    return findings


def tell_unusual(source: Source, *, report: Callable[[str], None], sample: int = 256) -> None:
    """Reports, from the headers of a sample, that images are rotated by EXIF or animated; nothing where none is.

    Args:
      source: of the images; only encoded ones have such headers.
      report: called with a line for each of the two.
      sample: images that are looked at, evenly spaced; bad ones are passed over.
    """
    if not isinstance(source, EncodedSource):
        return
    indices = np.unique(np.linspace(0, len(source) - 1, min(sample, len(source))).astype(int)).tolist()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        headers = zip(indices, pool.map(functools.partial(_header, source), indices), strict=True)
        found = [(source.name_of(index), info) for index, info in headers if info is not None]
    rotated = [name for name, info in found if info.rotated]
    animated = [name for name, info in found if info.frames > 1]
    looked_at = f"of {len(indices)} images that were looked at"
    if rotated:
        report(f"{len(rotated)} {looked_at} have an EXIF rotation, which is not applied: {_some(rotated, 1)}")
    if animated:
        report(f"{len(animated)} {looked_at} are animated; their first frame counts: {_some(animated, 1)}")


def _header(source: EncodedSource, index: int) -> ImageInfo | None:
    try:
        return image_info(source.encoded(index))
    except ValueError:  # a bad image is told of when it is needed
        return None


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What came of one image: its problem, or the rest."""

    name: str
    problem: str | None = None
    class_name: str = ""
    info: ImageInfo | None = None


def _look_at(source: Source, index: int) -> _Seen:
    """Reads an image once, and decodes it."""
    name, info = source.name_of(index), None
    try:
        data = source.encoded(index)
        if isinstance(source, EncodedSource) and not source.same_size:
            source.decoded(index, data)
        else:
            source.read_stored(index)
        if data is not None:
            with contextlib.suppress(ValueError):  # a header that no decoder minds
                info = image_info(data)
        label = int(source.labels_of(np.array([index]))[0])
    except BadImage as error:
        return _Seen(name, problem=str(error))
    return _Seen(name, class_name=source.class_names[label], info=info)


def _add(findings: Findings, seen: _Seen) -> None:
    if seen.problem is not None:
        findings.problems.append(seen.problem)
        return
    findings.by_class[seen.class_name] += 1
    if seen.info is not None:
        findings.formats[seen.info.format] += 1
        findings.sizes.append((seen.info.height, seen.info.width))
        findings.rotated += [seen.name] * seen.info.rotated
        findings.animated += [seen.name] * (seen.info.frames > 1)


def _some(names: list[str], count: int = 5) -> str:
    """The first names, in order, and how many more there are."""
    more = f" and {len(names) - count:,} more" if len(names) > count else ""
    return ", ".join(sorted(names)[:count]) + more


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]
