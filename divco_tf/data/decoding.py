"""Encoded images to pixels, for training: JPEG, PNG, WebP, GIF and BMP, whole or only the part that is wanted.

TensorFlow decodes JPEG and PNG: as exactly as Pillow, faster, and strict about an end that is missing. Pillow decodes
the rest. Of an animation the first frame counts, transparency is dropped, of 16 bits a channel the high byte is kept,
and EXIF rotation is not applied. `decoding_ops.decode`, of evaluation and export, gives the same pixels; what it cannot
read is refused here too. Only a JPEG whose lack of an end is hidden by an end marker is told here alone.
"""

import dataclasses
import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image

from divco_tf.errors import InputError

Box = tuple[int, int, int, int]
"""A part of an image in pixels: top, left, height, width."""

PREFIX_BYTES = 12
"""`is_image` needs no more than so many of an image's first bytes."""

_NO_HEADER = "the header of its {} data is truncated or corrupt"
_TOO_MANY = "its header promises more than {} pixels"
_BMP_READ = (0, 3)  # plain, and with masks
_PNG = b"\x89PNG\r\n\x1a\n"
_END_OF_JPEG = b"\xff\xd9"
_SCAN = 0xDA
_SEQUENTIAL = (0xC0, 0xC1)
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_NO_SEGMENT = {0x00, 0x01, 0xFF, *range(0xD0, 0xD9)}
# Bytes that decode to something, and each marker at which a decoder may wait to go on.
_FOREIGN = b"".join(bytes(range(7, 252, 5)) + marker for marker in (b"", *(bytes([0xFF, 0xD0 + n]) for n in range(8))))
_NOTHING = {(128, 128, 128), (64, 64, 64), (63, 63, 63)}  # what is missing looks like in RGB or grey, CMYK, and YCCK
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
    file_format = _known_format(data)
    if file_format in _INFO:
        return _INFO[file_format](data)
    image = _open(data, file_format)
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception:  # cut within a frame behind the first one, which is all that counts
        frames = 2
    return ImageInfo(file_format, image.height, image.width, _is_rotated(image.info.get("exif")), frames)


def _jpeg_info(data: bytes) -> ImageInfo:
    """What a JPEG's header says. Of the pictures that phones append to one, in other sizes, nothing is told."""
    height, width, exif = 0, 0, None
    for marker, content, _ in _segments(data):
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", content.ljust(5), 1)
        elif marker == 0xE1 and content.startswith(b"Exif\0\0") and exif is None:
            exif = content
    _check_size("JPEG", height, width)
    return ImageInfo("JPEG", height, width, _is_rotated(exif), frames=1)


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """A JPEG's segments up to the head of its first scan: their markers and contents, and where they end."""
    position = 2
    while (position := data.find(b"\xff", position)) >= 0:
        marker = data[position + 1] if position + 1 < len(data) else 0xD9
        if marker == 0xD9:
            return
        position += 1
        if marker in _NO_SEGMENT:
            continue
        end = position + 1 + int.from_bytes(data[position + 1 : position + 3], "big")
        yield marker, data[position + 3 : end], end
        if marker == _SCAN:
            return
        position = max(end, position + 1)


def _png_info(data: bytes) -> ImageInfo:
    """What a PNG's header says."""
    header = data[12:29]
    width, height = (int.from_bytes(header[start : start + 4], "big") for start in (4, 8))
    is_whole = header[:4] == b"IHDR" and zlib.crc32(header).to_bytes(4, "big") == data[29:33]
    _check_size("PNG", height * is_whole, width)
    position, frames, exif = 33, 1, None
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            break
        content = slice(position + 8, position + 8 + length)
        if kind == b"acTL":
            frames = int.from_bytes(data[content][:4], "big")
        elif kind == b"eXIf":
            exif = data[content]
        position += 12 + length
    return ImageInfo("PNG", height, width, _is_rotated(exif), frames)


# Viewers, and TensorFlow, pass over texts and profiles that are damaged, or larger than they like; Pillow does not.
_INFO = {"JPEG": _jpeg_info, "PNG": _png_info}


def _check_size(file_format: str, height: int, width: int) -> None:
    if not height * width:
        raise ValueError(_NO_HEADER.format(file_format))
    if height * width > 2 * Image.MAX_IMAGE_PIXELS:
        raise ValueError(_TOO_MANY.format(2 * Image.MAX_IMAGE_PIXELS))


def _is_rotated(data: bytes | None) -> bool:
    exif = Image.Exif()
    try:
        exif.load(data or b"")
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
    file_format = _known_format(data)
    image = _INFO[file_format](data) if file_format in _INFO else _open(data, file_format)
    height, width = image.height, image.width
    box = (0, 0, height, width) if choose is None else choose(height, width)
    check_box(box, height, width)
    if file_format == "BMP" and image.info["compression"] not in _BMP_READ:
        raise ValueError("it is a BMP image that is compressed, which an export would not read")
    try:
        if file_format == "JPEG":
            pixels = _decode_jpeg(data, box, height, width)
        elif file_format == "PNG":
            with tf.device("CPU:0"):
                pixels = _part(memoryview(tf.io.decode_png(data, channels=3)), box)
        else:
            if file_format == "GIF":
                _check_blocks(data, image.tile[0].offset)
            pixels = _part(image.convert("RGB"), box)
    except Exception as error:  # whatever Pillow and its plugins stumble over
        raise ValueError(f"{file_format} data is truncated or corrupt") from error
    if file_format == "JPEG" and _is_cut(data, pixels, whole=pixels.shape[:2] == (height, width)):
        raise ValueError("JPEG data is truncated or corrupt: it ends before its image does")
    return pixels


def _check_blocks(data: bytes, position: int) -> None:
    """Refuses a GIF whose frame, a row of blocks with their lengths, has no end; Pillow takes one without 2 bytes."""
    while length := data[position]:
        position += 1 + length


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


def _is_cut(data: bytes, pixels: np.ndarray, *, whole: bool) -> bool:
    """Whether `pixels`, a part of a JPEG image or the `whole`, lack data, although they end as they should.

    The decoder goes on with zeros then, and says so on stderr alone. So data that do not belong there are put before
    the end: no decoder looks at them unless others are missing. That is a second decoding, by Pillow, which is silent;
    so it is done where the last pixel has the colour of zeros. In an image of several scans (a progressive one, mostly)
    anything may be missing, and only the whole is decoded again.
    """
    suspicious, position = _suspicious(data, tuple(pixels[-1, -1].tolist()), whole=whole)
    end = data.find(_END_OF_JPEG, position) if suspicious else -1
    if end < 0:
        return False
    try:
        images = [_open(one, "JPEG") for one in (data[:end] + _FOREIGN + _END_OF_JPEG, data)]
    except ValueError:  # Pillow dislikes the header
        return False
    try:
        with_more = np.asarray(images[0].convert("RGB"))
    except Exception:  # it reads on, and stumbles
        return True
    if whole and np.array_equal(with_more, pixels):  # or Pillow's library rounds otherwise than TensorFlow's
        return False
    return not np.array_equal(with_more, np.asarray(images[1].convert("RGB")))


def _suspicious(data: bytes, last_pixel: tuple[int, ...], *, whole: bool) -> tuple[bool, int]:
    """Whether a JPEG, or a part of it, may lack data, by its last pixel; and where the head of its first scan ends."""
    components = scanned = b""
    position = len(data)
    for marker, content, position in _segments(data):  # noqa: B007 - the last one's
        if marker in _JPEG_FRAMES:
            components = content[5:6] if marker in _SEQUENTIAL else b""
        elif marker == _SCAN:
            scanned = content[:1]
    return (last_pixel in _NOTHING if scanned == components else whole), position


def is_whole(data: bytes, last_pixel: tuple[int, ...]) -> bool:
    """Whether a JPEG or PNG file that TensorFlow has decoded, to this last pixel, is surely no truncated one.

    Where it is not, `decode` tells.
    """
    return data.startswith(_PNG) or not _suspicious(data, last_pixel, whole=True)[0]


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
    if data.startswith(_PNG):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return "BMP" if data.startswith(b"BM") else None


def _known_format(data: bytes) -> str:
    if not data:
        raise ValueError("it is empty")
    file_format = _format(data)
    if file_format is None:
        raise ValueError("it is no JPEG, PNG, WebP, GIF or BMP image")
    return file_format


def _open(data: bytes, file_format: str) -> Image.Image:
    """The image by its header, not decoded yet."""
    try:
        return Image.open(io.BytesIO(data), formats=(file_format,))
    except Image.DecompressionBombError as error:
        raise ValueError(_TOO_MANY.format(2 * Image.MAX_IMAGE_PIXELS)) from error
    except Exception as error:  # whatever Pillow and its plugins stumble over
        raise ValueError(_NO_HEADER.format(file_format)) from error
