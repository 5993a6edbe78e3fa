"""What an export decodes is what training sees: every mode and format of Pillow's, and what Pillow does not write."""

import collections
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from divco_tf.data import decoding_ops
from divco_tf.data.decoding import decode
from tests.data.images import encoded, photograph
from tests.data.test_decoding import with_alpha

WIDTH, HEIGHT = 90, 67  # of the noise that `with_alpha` adds
PHOTOGRAPH, OTHER = photograph(WIDTH, HEIGHT), photograph(WIDTH, HEIGHT, seed=1)
RANDOM = np.random.default_rng(0)
in_a_graph = tf.function(decoding_ops.decode, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


def written() -> dict[str, bytes]:
    """Each of Pillow's modes in each format, where it writes that."""
    files = {}
    for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16"):
        image = with_alpha(PHOTOGRAPH) if "A" in mode and mode != "LAB" else PHOTOGRAPH
        image = image.quantize(30).convert("PA") if mode == "PA" else image.convert("L" if mode == "I;16" else mode)
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        for file_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
            try:
                files[f"{file_format} {mode}"] = encoded(image, file_format)
            except (OSError, ValueError):
                continue
    return files


def gif(canvas: tuple[int, int] = (WIDTH, HEIGHT), at: tuple[int, int] = (0, 0), **options) -> bytes:
    """A GIF whose frame lies at (left, top) of a canvas (width, height) of another size."""
    data = bytearray(encoded(PHOTOGRAPH.quantize(16), "GIF", **options))
    frame = data.index(b"\x2c\0\0\0\0", 13 + 48)
    data[6:10], data[frame + 1 : frame + 5] = struct.pack("<HH", *canvas), struct.pack("<HH", *at)
    return bytes(data)


def with_table(kept: int, *, local: bool = False) -> bytes:
    """A GIF of 64 colours of which the table lists `kept` (a power of 2, or 0)."""
    data, flags = encoded(PHOTOGRAPH.quantize(64), "GIF"), kept.bit_length() - 2
    table, rest = data[13 : 13 + 3 * kept], data[13 + 3 * 64 :]
    frame = rest.index(b"\x2c")
    header = data[:10] + bytes([0x80 + flags if kept and not local else 0]) + data[11:13]
    if not local:
        return header + table + rest
    return header + rest[: frame + 9] + bytes([0x80 + flags]) + table + rest[frame + 10 :]


def bmp(bits: int, *, palette: int = 0, masks: tuple[int, ...] = (), core: bool = False, height: int = 20) -> bytes:
    """A BMP of noise, 33 wide, with the headers that Pillow does not write."""
    width, entry = 33, 3 if core else 4
    body = RANDOM.bytes((width * bits + 31) // 32 * 4 * abs(height))
    table = RANDOM.bytes(palette * entry) + struct.pack(f"<{len(masks)}I", *masks)
    if core:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        sizes = (len(body), 0, 0, palette, 0)
        header = struct.pack("<IiiHHI5I", 40, width, height, 1, bits, 3 if masks else 0, *sizes)
    start = 14 + len(header) + len(table)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + table + body


def webp(*, frame: tuple[int, int, int, int], **options) -> bytes:
    """An animation whose first frame is smaller than its canvas."""
    image = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    left, top, width, height = frame
    image.paste(with_alpha(PHOTOGRAPH).resize((width, height)), (left, top))
    return encoded(image, "WEBP", save_all=True, append_images=[OTHER, image], **options)


FILES = written() | {
    "GIF, a small frame": gif((100, 90)),
    "GIF, a small frame with a place": gif((100, 90), (7, 9)),
    "GIF, a small frame with a transparent colour": gif((100, 90), (7, 9), transparency=5),
    "GIF, a small frame, interlaced": gif((95, 70), (3, 2), interlace=1),
    "GIF, a frame beyond its canvas": gif((30, 20), (7, 9)),
    "GIF, a transparent colour": gif(transparency=3),
    "GIF, transparency": encoded(with_alpha(PHOTOGRAPH), "GIF"),
    "GIF, a long comment": gif(comment=b"x" * 3000),
    "GIF, animated, disposal": encoded(
        PHOTOGRAPH, "GIF", save_all=True, append_images=[OTHER], loop=0, transparency=2, disposal=2
    ),
    "GIF, a table of its frame": with_table(64, local=True),
    "GIF, no table": with_table(0),
    "GIF, colours beyond its table": with_table(8),
    "WEBP, animated": encoded(PHOTOGRAPH, "WEBP", save_all=True, append_images=[OTHER]),
    "WEBP, animated, lossless": encoded(PHOTOGRAPH, "WEBP", save_all=True, append_images=[OTHER], lossless=True),
    "WEBP, animated, alpha": encoded(with_alpha(PHOTOGRAPH), "WEBP", save_all=True, append_images=[OTHER]),
    "WEBP, animated, a small frame": webp(frame=(12, 6, 31, 22), minimize_size=True),
    "WEBP, animated, a small frame, lossless": webp(frame=(12, 6, 30, 21), lossless=True),
    "WEBP, metadata": encoded(PHOTOGRAPH, "WEBP", exif=b"Exif\0\0" + bytes(101), icc_profile=bytes(2**20 + 1)),
    "WEBP, alpha, metadata": encoded(with_alpha(PHOTOGRAPH), "WEBP", icc_profile=bytes(101), xmp=b"x" * 99),
    "BMP, from the top": bmp(24, height=-20),
    "BMP, 16 bits": bmp(16),
    "BMP, 16 bits, 5-6-5": bmp(16, masks=(0xF800, 0x7E0, 0x1F)),
    "BMP, 16 bits, 5-5-5": bmp(16, masks=(0x7C00, 0x3E0, 0x1F)),
    "BMP, 32 bits": bmp(32),
    "BMP, 32 bits, masks": bmp(32, masks=(0xFF0000, 0xFF00, 0xFF)),
    "BMP, 32 bits, other masks": bmp(32, masks=(0xFF000000, 0xFF0000, 0xFF00)),
    "BMP, 24 bits, OS/2": bmp(24, core=True),
    **{f"BMP, {bits} bits": bmp(bits, palette=2**bits) for bits in (1, 4, 8)},
    **{f"BMP, {bits} bits, OS/2": bmp(bits, palette=2**bits, core=True) for bits in (1, 4, 8)},
    **{f"BMP, {bits} bits, colours beyond its table": bmp(bits, palette=9) for bits in (4, 8)},
}


def test_pillow_wrote_each_format():
    counts = collections.Counter(name.split()[0] for name in FILES if "," not in name)
    assert counts == {"JPEG": 6, "PNG": 7, "WEBP": 15, "GIF": 9, "BMP": 5}


@pytest.mark.parametrize("kind", FILES)
def test_a_graph_decodes_what_training_sees(kind):
    np.testing.assert_array_equal(in_a_graph(FILES[kind]), decode(FILES[kind]))


def test_what_frames_leave_of_their_canvas_has_the_colour_that_pillow_gives_it():
    pixels = in_a_graph(FILES["GIF, a small frame with a place"]).numpy()
    np.testing.assert_array_equal(pixels[9:76, 7:97], np.asarray(PHOTOGRAPH.quantize(16).convert("RGB")))
    assert (np.delete(pixels.reshape(-1, 3), np.arange(9 * 100, 76 * 100), axis=0) == pixels[0, 0]).all()


@pytest.mark.parametrize(
    "data", [b"", b"BM", b"GIF89a", b"RIFF    WEBP", b"no image", bmp(8)[:200], gif()[:-2], FILES["WEBP RGB"][:-9]]
)
def test_what_is_no_whole_image_is_refused_in_both(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        in_a_graph(data)
    with pytest.raises(ValueError, match="it is|truncated or corrupt"):
        decode(data)


def test_a_compressed_bmp_is_refused_in_both():
    data = bytearray(bmp(8, palette=256))
    data[30] = 1
    with pytest.raises(ValueError, match="it is a BMP image that is compressed, which an export would not read"):
        decode(bytes(data))
    with pytest.raises(tf.errors.InvalidArgumentError, match="A BMP image that is compressed is not decoded"):
        in_a_graph(bytes(data))


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_damaged_file_that_training_reads_is_the_same_in_a_graph(data):
    kinds = [kind for kind in FILES if kind.startswith(("GIF", "WEBP", "BMP"))]
    damaged = bytearray(FILES[data.draw(st.sampled_from(kinds))])
    for _ in range(data.draw(st.integers(0, 3))):
        damaged[data.draw(st.integers(50, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(damaged[: data.draw(st.just(len(damaged)) | st.integers(1, len(damaged)))])
    try:
        expected = decode(damaged)
    except ValueError:
        expected = None
    try:
        pixels = in_a_graph(damaged).numpy()
    except tf.errors.OpError:
        assert expected is None
    else:
        assert expected is None or np.array_equal(pixels, expected)


def test_animations_do_not_wait_for_all_frames():
    """Of a file that is cut behind the first frame, the frame is there: nothing behind it was looked at."""
    data = FILES["GIF, animated, disposal"]
    behind = data.index(b"\0\x21\xf9", 800) + 1
    np.testing.assert_array_equal(in_a_graph(data[:behind]), decode(data))
    assert io.BytesIO(data).getbuffer().nbytes > behind
