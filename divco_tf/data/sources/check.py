"""Reads a whole source once, and tells what is wrong with it, and what is unusual."""

import collections
import concurrent.futures
import dataclasses
import functools
import time
from collections.abc import Callable

import numpy as np

from divco_tf.data.decoding import ImageInfo, image_info
from divco_tf.data.sources.base import BadImage, Source
from divco_tf.data.sources.encoded import EncodedSource

_AT_ONCE = 1024  # images that are handed out to threads together


@dataclasses.dataclass
class Findings:
    """What was found.

    Attributes:
      images: how many there are.
      problems: a line for each image that cannot be read.
      rotated: images that EXIF asks viewers to rotate; they are taken as they are stored.
      animated: images of several frames, of which the first counts.
      formats: images by file format; of encoded ones only.
      sizes: the smallest and the largest number of pixels, as (height, width); of encoded ones only.
      by_class: images by the name of their class.
    """

    images: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    rotated: int = 0
    animated: int = 0
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
            told.append(f"{self.rotated} have an EXIF rotation, which is not applied")
        if self.animated:
            told.append(f"{self.animated} are animated; their first frame counts")
        ranked = self.by_class.most_common()
        if ranked:
            (most, many), (least, few) = ranked[0], ranked[-1]
            told.append(f"{len(ranked)} classes, from {few} images ({least}) to {many} ({most})")
        return told


def check(source: Source, *, threads: int = 8, report: Callable[[str], None] = print) -> Findings:
    """Reads every image of a source, in parallel.

    Args:
      source: of the images.
      threads: that read and decode.
      report: called with a line of progress every few seconds.

    Returns:
      The findings.
    """
    findings, shown = Findings(images=len(source)), time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(source), _AT_ONCE):
            indices = range(start, min(start + _AT_ONCE, len(source)))
            for one in pool.map(functools.partial(_look_at, source), indices):
                _add(findings, *one)
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                report(f"{indices.stop} of {len(source)} images, {len(findings.problems)} bad")
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
        found = [info for info in pool.map(functools.partial(_header, source), indices) if info is not None]
    rotated, animated = sum(info.rotated for info in found), sum(info.frames > 1 for info in found)
    looked_at = f"of {len(indices)} images that were looked at"
    if rotated:
        report(f"{rotated} {looked_at} have an EXIF rotation, which is not applied")
    if animated:
        report(f"{animated} {looked_at} are animated; their first frame counts")


def _header(source: EncodedSource, index: int) -> ImageInfo | None:
    try:
        return image_info(source.encoded(index))
    except ValueError:  # a bad image is told of when it is needed
        return None


def _look_at(source: Source, index: int) -> tuple[str | None, ImageInfo | None, str | None]:
    """Its problem, or what its header tells and its class."""
    try:
        data = source.encoded(index) if isinstance(source, EncodedSource) else None
        source.read_stored(index)
        label = int(source.labels_of(np.array([index]))[0])
    except BadImage as error:
        return str(error), None, None
    return None, None if data is None else image_info(data), source.class_names[label]


def _add(findings: Findings, problem: str | None, info: ImageInfo | None, class_name: str | None) -> None:
    if problem is not None:
        findings.problems.append(problem)
        return
    findings.by_class[class_name] += 1
    if info is not None:
        findings.formats[info.format] += 1
        findings.sizes.append((info.height, info.width))
        findings.rotated += info.rotated
        findings.animated += info.frames > 1


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]
