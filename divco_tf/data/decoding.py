"""Encoded images to pixels, for training: JPEG, PNG, WebP, GIF and BMP, whole or only the part that is wanted.

TensorFlow decodes JPEG and PNG: as exactly as Pillow, faster, and strict about an end that is missing. Pillow reads
their headers, and decodes the rest. Of an animation the first frame counts, transparency is dropped, of 16 bits a
channel the high byte is kept, and EXIF rotation is not applied. `Preprocessing.decode`, of evaluation and export,
gives the same for JPEG, PNG and opaque GIF files of one frame; transparent colours of a GIF are black there, and it
reads neither WebP, nor BMP, nor an animated GIF.
"""

import dataclasses
import io
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image

from divco_tf.errors import InputError

Box = tuple[int, int, int, int]
"""A part of an image in pixels: top, left, height, width."""

PREFIX_BYTES = 12
"""`is_image` needs no more than so many of an image's first bytes."""

_END_OF_JPEG = b"\xff\xd9"
# libjpeg interpolates subsampled colour from the columns beside it, and takes the edge of what it decodes for the
# image's. Rows above and below it always has.
_MARGIN = 2


@dataclasses.dataclass(frozen=True)
class ImageInfo:
    """What the header of an encoded image says."""

    format: str  # "JPEG", "PNG", "WEBP", "GIF" or "BMP"
    height: int
    width: int
    rotated: bool  # EXIF asks viewers to rotate or mirror it
    frames: int  # more than 1 in an animation


def is_image(prefix: bytes) -> bool:
    """Whether data that begins with `prefix` (`PREFIX_BYTES` of it) is in a format that `decode` reads."""
    return _format(prefix) is not None


def image_info(data: bytes) -> ImageInfo:
    """Reads the header of an encoded image; nothing is decoded.

    Raises:
      ValueError: it is no image, or its header is corrupt. The message is the cause, without the file's name.
    """
    image, file_format = _open(data), _format(data)
    try:
        frames = 1 if file_format == "JPEG" else getattr(image, "n_frames", 1)  # phones append other sizes to a JPEG
    except Exception as error:  # whatever Pillow and its plugins stumble over
        raise ValueError(f"the header of its {file_format} data is truncated or corrupt") from error
    return ImageInfo(file_format, image.height, image.width, rotated=_is_rotated(image), frames=frames)


def _is_rotated(image: Image.Image) -> bool:
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif") or b"")  # `getexif` would decode a PNG file to look for more behind its pixels
        return exif.get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # viewers, too, show an image whose EXIF is corrupt as it lies
        return False


def decode(data: bytes, choose: Callable[[int, int], Box] | None = None) -> np.ndarray:
    """Decodes an image, or a part of it.

    Safe in threads of tf.data: no tf.function is called, which would wait for that very pool's threads. It takes twice
    the memory of the wanted part: measured on 20 megapixels 116 MiB for the whole, 8 MiB for a part of 4 MiB (63 MiB
    if the JPEG is progressive).

    Args:
      data: an encoded image, of at most `2 * PIL.Image.MAX_IMAGE_PIXELS` pixels (179 million).
      choose: names the part that is wanted, given the image's height and width; all of it by default. The result equals
        that part of the whole image, and costs less where a JPEG's rows and columns can be left out.

    Returns:
      uint8 [h, w, 3] RGB, C-contiguous and writable.

    Raises:
      ValueError: it is no image, or it is truncated or corrupt: never is a part of an image returned for the whole. The
        message is the cause, without the file's name.
      InputError: `choose` named a part that is empty or outside of the image.
    """
    image = _open(data)
    height, width = image.height, image.width
    box = (0, 0, height, width) if choose is None else choose(height, width)
    check_box(box, height, width)
    file_format = _format(data)
    try:
        if file_format == "JPEG":
            return _decode_jpeg(data, box, height, width)
        if file_format == "PNG":
            with tf.device("CPU:0"):
                pixels = memoryview(tf.io.decode_png(data, channels=3))
        else:
            pixels = image.convert("RGB")
    except Exception as error:  # whatever Pillow and its plugins stumble over
        raise ValueError(f"{file_format} data is truncated or corrupt") from error
    return _part(pixels, box)


def _decode_jpeg(data: bytes, box: Box, height: int, width: int) -> np.ndarray:
    """A part of a JPEG image, whose size is `height` and `width`."""
    # The exact transform: TensorFlow's default one differs from Pillow's by up to 4 grey levels.
    options = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
    top, left, box_height, box_width = box
    start, stop = max(0, left - _MARGIN), min(width, left + box_width + _MARGIN)
    if 2 * (stop - start) > width:  # leaving out a few columns costs more than it saves: up to 1.2 times the whole
        start, stop = 0, width
    with tf.device("CPU:0"):
        # A missing end goes unnoticed where the wanted rows come before it; data behind the end is rare.
        if (box_height, stop - start) == (height, width) or not data.endswith(_END_OF_JPEG):
            return _part(memoryview(tf.io.decode_jpeg(data, **options)), box)
        pixels = tf.io.decode_and_crop_jpeg(data, [top, start, box_height, stop - start], **options)
        return _part(memoryview(pixels), (0, left - start, box_height, box_width))


def _part(pixels: memoryview | Image.Image, box: Box) -> np.ndarray:
    """A copy of a part of an image: what owns the pixels may be read-only."""
    top, left, height, width = box
    return np.array(np.asarray(pixels)[top : top + height, left : left + width], order="C")


def check_box(box: Box, height: int, width: int) -> None:
    """Refuses, by an `InputError`, a part that is empty or outside of an image of `height` and `width`."""
    top, left, box_height, box_width = box
    inside = 0 <= top < top + box_height <= height and 0 <= left < left + box_width <= width
    if not inside:
        raise InputError(
            f"A part (top, left, height, width) of an image. Received: {box} of {height}x{width}; (0, 0, {height}, "
            f"{width}) would work."
        )


def _format(data: bytes) -> str | None:
    """The format that the first bytes tell, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return "BMP" if data.startswith(b"BM") else None


def _open(data: bytes) -> Image.Image:
    """The image by its header, not decoded yet."""
    if not data:
        raise ValueError("it is empty")
    file_format = _format(data)
    if file_format is None:
        raise ValueError("it is no JPEG, PNG, WebP, GIF or BMP image")
    try:
        return Image.open(io.BytesIO(data), formats=(file_format,))
    except Image.DecompressionBombError as error:
        raise ValueError(f"its header promises more than {2 * Image.MAX_IMAGE_PIXELS} pixels") from error
    except Exception as error:  # whatever Pillow and its plugins stumble over
        raise ValueError(f"the header of its {file_format} data is truncated or corrupt") from error
