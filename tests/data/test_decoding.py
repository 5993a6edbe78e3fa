"""Decoding: exactly Pillow's pixels, of the whole image or of a part; and what is no image."""

import io
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from divco_tf.data.decoding import PREFIX_BYTES, ImageInfo, decode, image_info, is_image
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.errors import InputError
from tests.data.images import encoded, photograph

PHOTOGRAPH = photograph(90, 67)
OTHER = photograph(90, 67, seed=1)
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (67, 90), np.uint8))


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(NOISE)
    return image


def patched(data: bytes, *, sampling: int | None = None, size: tuple[int, int] | None = None, adobe: int | None = None):
    """A JPEG file with another sampling of its first component, size (height, width), or Adobe's colour transform."""
    changed, position = bytearray(data), 2
    while (marker := changed[position + 1]) != 0xDA:  # start of scan
        if marker in (0xC0, 0xC2):
            if sampling:
                changed[position + 11] = sampling
            if size:
                changed[position + 5 : position + 9] = b"".join(side.to_bytes(2, "big") for side in size)
        if marker == 0xEE and adobe is not None:
            changed[position + 15] = adobe
        position += 2 + int.from_bytes(changed[position + 2 : position + 4], "big")
    return bytes(changed)


def jpegs() -> dict[str, bytes]:
    """A JPEG file of each kind that is met.

    Pillow writes neither 4:4:0 nor 4:1:1: a header is changed so that its blocks make up an image of another shape.
    """
    files = {}
    for suffix, progressive in (("", False), (" progressive", True)):
        options = {"quality": 90, "progressive": progressive}
        for sampling in ("4:4:4", "4:2:2", "4:2:0"):
            files[sampling + suffix] = encoded(PHOTOGRAPH, "JPEG", subsampling=sampling, **options)
        even = photograph(96, 64)
        halves = encoded(even, "JPEG", subsampling="4:2:2", **options)
        files["4:4:0" + suffix] = patched(halves, sampling=0x12, size=(128, 48))
        quarters = encoded(even, "JPEG", subsampling="4:2:0", **options)
        files["4:1:1" + suffix] = patched(quarters, sampling=0x41, size=(32, 192))
        files["grey" + suffix] = encoded(PHOTOGRAPH.convert("L"), "JPEG", **options)
        files["RGB" + suffix] = encoded(PHOTOGRAPH, "JPEG", keep_rgb=True, **options)
        files["CMYK" + suffix] = encoded(PHOTOGRAPH.convert("CMYK"), "JPEG", **options)
        files["YCCK" + suffix] = patched(files["CMYK" + suffix], adobe=2)
    files["data behind the end"] = files["4:2:0"] + bytes(9)
    files["restart markers"] = encoded(PHOTOGRAPH, "JPEG", restart_marker_blocks=3)
    files["several pictures (MPO)"] = encoded(PHOTOGRAPH, "MPO", save_all=True, append_images=[OTHER])
    return files


JPEGS = jpegs()
OTHER_FILES = {
    "PNG RGB": encoded(PHOTOGRAPH, "PNG"),
    "PNG grey": encoded(PHOTOGRAPH.convert("L"), "PNG"),
    "PNG grey and alpha": encoded(with_alpha(PHOTOGRAPH.convert("L")), "PNG"),
    "PNG of one bit": encoded(PHOTOGRAPH.convert("1"), "PNG"),
    "PNG RGBA": encoded(with_alpha(PHOTOGRAPH), "PNG"),
    "PNG palette": encoded(PHOTOGRAPH.quantize(50), "PNG"),
    "PNG palette of 16": encoded(PHOTOGRAPH.quantize(16), "PNG"),
    "PNG palette, a transparent colour": encoded(PHOTOGRAPH.quantize(50), "PNG", transparency=3),
    "PNG palette, transparent colours": encoded(PHOTOGRAPH.quantize(50), "PNG", transparency=bytes(range(50))),
    "PNG RGB, a transparent colour": encoded(PHOTOGRAPH, "PNG", transparency=PHOTOGRAPH.getpixel((0, 0))),
    "PNG animated": encoded(PHOTOGRAPH, "PNG", save_all=True, append_images=[OTHER]),
    "GIF": encoded(PHOTOGRAPH, "GIF"),
    "GIF animated": encoded(PHOTOGRAPH, "GIF", save_all=True, append_images=[OTHER, PHOTOGRAPH]),
    "GIF, a transparent colour": encoded(PHOTOGRAPH.quantize(50), "GIF", transparency=3),
    "WEBP": encoded(PHOTOGRAPH, "WEBP"),
    "WEBP lossless": encoded(PHOTOGRAPH, "WEBP", lossless=True),
    "WEBP with alpha": encoded(with_alpha(PHOTOGRAPH), "WEBP"),
    "WEBP lossless with alpha": encoded(with_alpha(PHOTOGRAPH), "WEBP", lossless=True, exact=True),
    "WEBP animated": encoded(PHOTOGRAPH, "WEBP", save_all=True, append_images=[OTHER, PHOTOGRAPH]),
    "BMP": encoded(PHOTOGRAPH, "BMP"),
    "BMP palette": encoded(PHOTOGRAPH.quantize(50), "BMP"),
}
FILES = JPEGS | OTHER_FILES


def part(pixels: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    top, left, height, width = box
    return pixels[top : top + height, left : left + width]


@pytest.mark.parametrize("kind", FILES)
def test_pixels_are_pillows_and_those_of_evaluation(kind):
    pixels = decode(FILES[kind])
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.flags.writeable
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(FILES[kind])).convert("RGB")))
    np.testing.assert_array_equal(pixels, Preprocessing.decode(FILES[kind]))


@settings(deadline=None, max_examples=400)
@given(data=st.data())
def test_a_part_is_that_part_of_the_whole(data):
    encoded_image = FILES[data.draw(st.sampled_from([*JPEGS] * 3 + [*OTHER_FILES]))]
    whole = decode(encoded_image)
    height, width, _ = whole.shape
    # Borders of blocks and of their groups, and single pixels, are drawn more often.
    ends = [st.sampled_from(range(0, side + 1, 8)) | st.integers(0, side) for side in (height, width)]
    top, bottom = sorted((data.draw(ends[0]), data.draw(ends[0])))
    left, right = sorted((data.draw(ends[1]), data.draw(ends[1])))
    top, left = min(top, height - 1), min(left, width - 1)
    box = (top, left, max(1, bottom - top), max(1, right - left))
    seen = []
    pixels = decode(encoded_image, lambda *size: seen.append(size) or box)
    assert seen == [(height, width)] and pixels.flags.c_contiguous and pixels.flags.writeable
    np.testing.assert_array_equal(pixels, part(whole, box))


@pytest.mark.parametrize("channels", [1, 3])
def test_of_16_bits_the_high_byte_is_kept(channels):
    deep = np.random.default_rng(0).integers(0, 2**16, (9, 7, channels), np.uint16)
    data = tf.io.encode_png(deep).numpy()
    np.testing.assert_array_equal(decode(data), np.broadcast_to(deep >> 8, (9, 7, 3)))
    np.testing.assert_array_equal(decode(data), Preprocessing.decode(data))


@pytest.mark.parametrize("kind", FILES)
def test_the_header_tells_format_size_and_frames(kind):
    height, width, _ = decode(FILES[kind]).shape
    frames = {"PNG animated": 2, "GIF animated": 3, "WEBP animated": 3}.get(kind, 1)
    file_format = kind.split()[0].rstrip(",") if kind in OTHER_FILES else "JPEG"
    assert image_info(FILES[kind]) == ImageInfo(file_format, height, width, rotated=False, frames=frames)
    assert is_image(FILES[kind][:PREFIX_BYTES])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("orientation", "rotated"), [(1, False), (6, True), (8, True), (0, False), (77, False)])
def test_rotation_is_told_and_not_applied(file_format, orientation, rotated):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(PHOTOGRAPH, file_format, exif=exif)
    assert image_info(data).rotated == rotated
    np.testing.assert_array_equal(decode(data), decode(encoded(PHOTOGRAPH, file_format)))


def test_an_image_whose_exif_is_corrupt_counts_as_not_rotated():
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encoded(PHOTOGRAPH, "JPEG", exif=exif)
    for damaged in (data.replace(b"MM\0*", b"MM\0?"), data.replace(b"MM\0*\0\0\0\x08", b"MM\0*\0\0\0\x7f")):
        assert damaged != data and not image_info(damaged).rotated
        np.testing.assert_array_equal(decode(damaged), decode(data))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_damaged_header_is_read_or_refused_by_one_cause(data):
    damaged = bytearray(FILES[data.draw(st.sampled_from(list(FILES)))])
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(PREFIX_BYTES, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert image_info(bytes(damaged)).frames >= 1
    except ValueError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ["4:2:0", "4:2:0 progressive", "PNG RGB", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.02, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_never_a_part_of_an_image(kind, kept):
    data = FILES[kind][: int(kept * len(FILES[kind]))]
    cause = "it is empty" if not data else "truncated or corrupt|is no JPEG"
    with pytest.raises(ValueError, match=cause):
        decode(data)
    with pytest.raises(ValueError, match=cause):
        decode(data, lambda height, width: (0, 0, 1, 1))


@pytest.mark.parametrize("missing", [1, 2])
def test_a_jpeg_or_png_file_without_its_last_bytes_is_refused(missing):
    for kind in ("4:2:0", "4:2:0 progressive", "grey", "PNG RGB", "PNG grey"):
        with pytest.raises(ValueError, match="data is truncated or corrupt"):
            decode(FILES[kind][:-missing], lambda height, width: (0, 0, 1, 1))


LARGE = encoded(photograph(200, 150), "JPEG", quality=90)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("kept", [0.3, 0.5, 0.95])
def test_a_jpeg_that_lost_its_end_and_has_a_marker_for_it_is_refused(kind, kept, capfd):
    data = JPEGS[kind]
    assert decode(data).size and "Corrupt" not in capfd.readouterr().err  # a whole one is not called corrupt
    start, end = (data.index(marker) for marker in (b"\xff\xda", b"\xff\xd9"))
    cut = data[: start + int(kept * (end - start))] + b"\xff\xd9"
    for cut_data in (cut, cut + bytes(7)):
        with pytest.raises(ValueError, match="JPEG data is truncated or corrupt"):
            decode(cut_data)


def test_a_part_that_lies_before_the_lost_end_is_decoded_and_one_behind_it_is_refused():
    cut = LARGE[: len(LARGE) // 2] + b"\xff\xd9"
    box = (2, 3, 30, 80)
    np.testing.assert_array_equal(decode(cut, lambda *_: box), part(decode(LARGE), box))
    for behind in ((100, 0, 50, 50), (10, 20, 140, 180)):
        with pytest.raises(ValueError, match="it ends before its image does"):
            decode(cut, lambda *_, box=behind: box)


@pytest.mark.parametrize("colour", [(128, 128, 128), (64, 64, 64)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_an_image_that_ends_in_grey_lacks_nothing(mode, colour):
    image = PHOTOGRAPH.copy()
    image.paste(colour, (40, 30, 90, 67))
    data = encoded(image.convert(mode), "JPEG", quality=95)
    np.testing.assert_array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def chunk(kind: bytes, content: bytes, *, damaged: bool = False) -> bytes:
    """A chunk of a PNG file, perhaps with a wrong checksum."""
    checksum = zlib.crc32(kind + content) ^ damaged
    return len(content).to_bytes(4, "big") + kind + content + checksum.to_bytes(4, "big")


MEGABYTES = zlib.compress(bytes(3 * 2**20))
PNG_CHUNKS = {
    "large zTXt": chunk(b"zTXt", b"key\0\0" + MEGABYTES),
    "large iTXt": chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + MEGABYTES),
    "large iCCP": chunk(b"iCCP", b"scanner\0\0" + MEGABYTES),
    "large tEXt": chunk(b"tEXt", b"key\0" + b"x" * 2**21),
    "66 MB of texts": b"".join(chunk(b"zTXt", b"key%d\0\0" % number + MEGABYTES) for number in range(22)),
    "many texts": b"".join(chunk(b"tEXt", b"key%d\0x" % number) for number in range(1500)),
    "tEXt, wrong checksum": chunk(b"tEXt", b"key\0text", damaged=True),
    "iCCP, wrong checksum": chunk(b"iCCP", b"scanner\0\0" + MEGABYTES, damaged=True),
    "zTXt, damaged": chunk(b"zTXt", b"key\0\0text"),
    "pHYs, too short": chunk(b"pHYs", b"x"),
    "unknown, wrong checksum": chunk(b"priV", b"x", damaged=True),
}


@pytest.mark.parametrize("kind", PNG_CHUNKS)
def test_what_lies_beside_the_pixels_of_a_png_file_does_not_matter(kind):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encoded(PHOTOGRAPH, "PNG", exif=exif)
    data = data[:33] + PNG_CHUNKS[kind] + data[33:]
    assert image_info(data) == ImageInfo("PNG", 67, 90, rotated=True, frames=1)
    np.testing.assert_array_equal(decode(data), np.asarray(PHOTOGRAPH))


def test_a_damaged_chunk_that_matters_is_refused():
    data = encoded(PHOTOGRAPH.quantize(16), "PNG")
    palette = data.index(b"PLTE") + 5
    for damaged in (data[:palette] + b"?" + data[palette + 1 :], data[:33] + chunk(b"ABCD", b"x") + data[33:]):
        with pytest.raises(ValueError, match="PNG data is truncated or corrupt"):
            decode(damaged)


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


@pytest.mark.parametrize(
    "segments",
    [
        b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([number, 60]) + bytes(60_000)) for number in range(1, 61)),
        segment(0xE2, b"ICC_PROFILE\0"),
        segment(0xE1, b"Exif\0\0garbage"),
        segment(0xE2, b"MPF\0garbage"),
        segment(0xEE, b"Adobe"),
        segment(0xE0, b"JFIF\0\1"),
        segment(0xFE, b"x" * 65_000) * 20,
        segment(0xE1, b"thumbnail" + LARGE),
        b"\xff" * 7,
    ],
    ids=["3 MB of profile", "profile", "EXIF", "MPF", "Adobe", "JFIF", "comments", "thumbnail", "fill bytes"],
)
def test_what_lies_beside_the_pixels_of_a_jpeg_file_does_not_matter(segments):
    data = encoded(PHOTOGRAPH, "JPEG")
    with_segments = data[:2] + segments + data[2:]
    assert image_info(with_segments) == ImageInfo("JPEG", 67, 90, rotated=False, frames=1)
    np.testing.assert_array_equal(decode(with_segments), decode(data))
    with pytest.raises(ValueError, match="truncated or corrupt"):
        decode(with_segments[:-100])


@pytest.mark.parametrize("data", [b"GIF", b"no image at all, only text", bytes(100), encoded(PHOTOGRAPH, "TIFF")])
def test_what_is_no_image_is_refused(data):
    assert not is_image(data[:PREFIX_BYTES])
    for reader in (decode, image_info):
        with pytest.raises(ValueError, match="it is no JPEG, PNG, WebP, GIF or BMP image"):
            reader(data)


def test_a_header_that_promises_too_many_pixels_is_refused_before_memory_is_taken():
    data = encoded(PHOTOGRAPH, "PNG")
    header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + data[24:29]
    data = data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]
    with pytest.raises(ValueError, match="its header promises more than 178956970 pixels"):
        decode(data)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_damaged_file_gives_a_whole_image_or_one_cause(data):
    damaged = bytearray(FILES[data.draw(st.sampled_from(list(FILES)))])
    for _ in range(data.draw(st.integers(1, 3))):
        # Behind the header: a changed size may be one of many megapixels.
        damaged[data.draw(st.integers(50, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 10**5)
        try:
            pixels = decode(bytes(damaged))
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            info = image_info(bytes(damaged))
            assert pixels.shape == (info.height, info.width, 3)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 68, 90), (-1, 0, 5, 5), (0, 86, 5, 5)])
@pytest.mark.parametrize("kind", ["4:2:0", "PNG RGB", "WEBP"])
def test_a_part_outside_of_the_image_is_refused(kind, box):
    with pytest.raises(InputError, match=r"Received: \(.*\) of 67x90; \(0, 0, 67, 90\) would work"):
        decode(FILES[kind], lambda height, width: box)


def test_parts_are_decoded_in_threads_of_tf_data():
    files = [FILES["4:2:0"], FILES["PNG RGB"], FILES["WEBP"]] * 20

    def load(index):
        return decode(files[index], lambda height, width: (5, 7, 20, 30))

    images = tf.data.Dataset.range(len(files)).map(
        lambda index: tf.numpy_function(load, [index], tf.uint8, stateful=False), num_parallel_calls=4
    )
    assert all(image.shape == (20, 30, 3) for image in images)


def test_a_photograph_of_20_megapixels_is_decoded_in_part():
    large = Image.linear_gradient("L").resize((5472, 3648))
    data = encoded(Image.merge("RGB", [large, large.transpose(Image.Transpose.FLIP_LEFT_RIGHT), large]), "JPEG")
    whole = decode(data)
    assert whole.shape == (3648, 5472, 3)
    np.testing.assert_array_equal(decode(data, lambda *_: (1001, 2003, 700, 900)), part(whole, (1001, 2003, 700, 900)))
