"""Encoded images to pixels, as TensorFlow operations: what evaluation in TensorFlow and an export do.

The pixels are those of `decoding.decode`, which training sees. JPEG and PNG are decoded by one operation. Of WebP and
GIF files the first frame is taken out and decoded as a still image, put on its canvas: `tf.io.decode_image` makes
transparent colours of a GIF black, loses the place of a frame that is smaller than the canvas, and an animated WebP
file corrupts its memory (TensorFlow 2.21). It reads no BMP file with a palette, so these are taken apart here.

Only operations that old servers know are used: a graph that names another does not load there at all.
"""

import tensorflow as tf

_BYTES = [bytes([value]) for value in range(256)]
_OTHERS = (r"GIF8\C*", r"RIFF\C{4}WEBP", r"BM\C*")  # what they begin with
_GREY = b"".join(byte * 3 for byte in _BYTES)


def decode(data: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, WebP, GIF or BMP image.

    Args:
      data: string scalar.

    Returns:
      uint8 [H, W, 3] RGB; transparency is dropped.

    Raises:
      tf.errors.InvalidArgumentError: it is no image, or it is truncated or corrupt. That is noticed less often than in
        training: of a GIF or JPEG with damaged pixels, but with its end, what can be read is returned.
    """
    with tf.device("CPU:0"):
        prefix = tf.strings.substr(data, 0, 12)
        is_other = tf.strings.regex_full_match(prefix, "|".join(_OTHERS))
        return tf.cond(is_other, lambda: _decode_other(data, prefix), lambda: decode_jpeg_or_png(data))


# A function of its own, for a branch that is not taken still costs time for each of its operations: together as much as
# a small image's decoding.
@tf.function(autograph=False, experimental_attributes={"_noinline": True})
def _decode_other(data: tf.Tensor, prefix: tf.Tensor) -> tf.Tensor:
    """A GIF, WebP or BMP image."""
    matches = [tf.strings.regex_full_match(prefix, pattern) for pattern in _OTHERS]
    decoded = [lambda decoder=decoder: decoder(data) for decoder in (_gif, _webp, _bmp)]
    return tf.switch_case(tf.argmax(tf.cast(matches, tf.int32), output_type=tf.int32), decoded)


def decode_jpeg_or_png(data: tf.Tensor) -> tf.Tensor:
    """The same for JPEG and PNG alone.

    TensorFlow's default JPEG decoding differs from Pillow's by up to 4 grey levels, the accurate one by none.
    """
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")


def _gif(data: tf.Tensor) -> tf.Tensor:
    """The first frame, in a file of its own without the block that says which colour is transparent."""
    raw = tf.io.decode_raw(data, tf.uint8)
    all_colours = _table_length(_number(raw, 10, 1))

    def step(position: tf.Tensor, outside: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def extension() -> tuple[tf.Tensor, tf.Tensor]:
            control = tf.logical_and(tf.equal(raw[position + 1], 0xF9), tf.equal(raw[position + 3] % 2, 1))
            transparent = tf.where(control, tf.cast(raw[position + 6], tf.int32), outside)
            return _behind_blocks(raw, position + 2), transparent

        return tf.cond(tf.equal(raw[position], 0x21), extension, lambda: (position + 1, outside))

    # Pillow fills what the frame leaves of the canvas with the transparent colour, or the first.
    start = (13 + all_colours, tf.constant(0))
    frame, outside = tf.while_loop(lambda position, outside: tf.not_equal(raw[position], 0x2C), step, start)
    flags = _number(raw, frame + 9, 1)
    own_colours = _table_length(flags)
    has_own = own_colours > 0
    length = tf.where(has_own, own_colours, all_colours)
    colours = tf.strings.substr(data, tf.where(has_own, frame + 10, 13), length)
    # Behind the last colour Pillow has black, but goes on where the table is a ramp of greys, or none.
    is_grey = tf.equal(colours, tf.strings.substr(_GREY, 0, length))
    colours += tf.strings.substr(tf.where(is_grey, _GREY, bytes(768)), length, 768 - length)
    size = tf.strings.substr(data, frame + 5, 4)
    interlaced = tf.gather([b"\0", b"\x40"], flags // 64 % 2)
    start = frame + 10 + own_colours
    blocks = tf.strings.substr(data, start, _behind_blocks(raw, start + 1) - start)
    parts = [b"GIF89a", size, b"\xf7\0\0", colours, b"\x2c\0\0\0\0", size, interlaced, blocks, b"\x3b"]
    pixels = tf.io.decode_image(tf.strings.join(parts), channels=3, expand_animations=False)
    canvas = (_number(raw, 8, 2), _number(raw, 6, 2))
    corner = (_number(raw, frame + 3, 2), _number(raw, frame + 1, 2))
    return _placed(pixels, corner, canvas, tf.io.decode_raw(colours, tf.uint8)[3 * outside : 3 * outside + 3])


def _table_length(flags: tf.Tensor) -> tf.Tensor:
    """The bytes of a GIF's colour table."""
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)


def _behind_blocks(raw: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Where a GIF goes on behind a row of blocks, each with its length before it, the last empty."""
    (last,) = tf.while_loop(
        lambda position: raw[position] > 0,
        lambda position: (position + 1 + tf.cast(raw[position], tf.int32),),
        (position,),
    )
    return last + 1


def _webp(data: tf.Tensor) -> tf.Tensor:
    """The first frame's bitstream, in a file of its own without the other chunks."""
    raw = tf.io.decode_raw(data, tf.uint8)

    def kind(position: tf.Tensor, *names: bytes) -> tf.Tensor:
        return tf.reduce_any(tf.equal(_number(raw, position, 4), [int.from_bytes(name, "little") for name in names]))

    def step(position: tf.Tensor, frame: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        length, enters = _number(raw, position + 4, 4), kind(position, b"ANMF")
        return tf.where(enters, position + 24, position + 8 + length + length % 2), tf.where(enters, position, frame)

    def before_pixels(position: tf.Tensor, frame: tf.Tensor) -> tf.Tensor:
        return tf.logical_not(kind(position, b"VP8 ", b"VP8L"))

    promised = 8 + _number(raw, 4, 4)
    tf.debugging.Assert(promised <= tf.size(raw), ["WebP data is truncated, bytes:", tf.size(raw), "of", promised])
    position, frame = tf.while_loop(before_pixels, step, (tf.constant(12), tf.constant(0)))
    length = _number(raw, position + 4, 4)
    chunk = tf.strings.substr(data, position, 8 + length + length % 2)
    size = tf.bitwise.right_shift(4 + tf.strings.length(chunk), [0, 8, 16, 24]) % 256
    still = tf.strings.join([b"RIFF", tf.strings.reduce_join(tf.gather(_BYTES, size)), b"WEBP", chunk])
    pixels = tf.io.decode_image(still, channels=0, expand_animations=False)[..., :3]  # with alpha, 3 would be refused

    def on_canvas() -> tf.Tensor:
        canvas = (_number(raw, 27, 3) + 1, _number(raw, 24, 3) + 1)
        return _placed(pixels, (2 * _number(raw, frame + 11, 3), 2 * _number(raw, frame + 8, 3)), canvas, 0)

    return tf.ensure_shape(tf.cond(frame > 0, on_canvas, lambda: pixels), [None, None, 3])


def _bmp(data: tf.Tensor) -> tf.Tensor:
    """Not compressed, of 1, 4, 8, 16, 24 or 32 bits a pixel."""
    raw = tf.io.decode_raw(data, tf.uint8)
    header = _number(raw, 14, 4)
    width, height, bits, compression, colours, entry = _bmp_header(raw, header)
    tf.debugging.Assert(
        tf.reduce_any(tf.equal(compression, [0, 3])), ["A BMP image that is compressed is not decoded."]
    )
    table = 14 + header
    colours = tf.where(tf.equal(colours, 0), tf.bitwise.left_shift(1, tf.minimum(bits, 8)), colours)
    start = _number(raw, 10, 4)
    has_table = bits <= 8
    start += tf.where(tf.logical_and(has_table, tf.equal(start, table)), entry * colours, 0)  # as Pillow mends it
    stride = (width * bits + 31) // 32 * 4
    filling = tf.zeros(stride - (width * bits + 7) // 8, tf.uint8)  # of the last row, which some leave out
    rows = tf.reshape(tf.concat([raw[start:], filling], axis=0)[: stride * tf.abs(height)], [tf.abs(height), stride])
    rows = tf.cond(height < 0, lambda: rows, lambda: tf.reverse(rows, [0]))  # a negative height begins at the top

    def from_table() -> tf.Tensor:
        shifts = tf.cast(tf.range(8 - bits, -1, -bits), tf.uint8)
        places = tf.bitwise.right_shift(rows[..., tf.newaxis], shifts)
        places = tf.bitwise.bitwise_and(places, tf.cast(tf.bitwise.left_shift(1, bits) - 1, tf.uint8))
        listed = tf.reshape(raw[table : table + entry * colours], [colours, entry])[:, 2::-1]
        listed = tf.pad(listed, [[0, tf.maximum(256 - colours, 0)], [0, 0]])  # black, as in Pillow
        places = tf.reshape(places, [tf.shape(rows)[0], -1])[:, :width]
        return tf.gather(listed, tf.cast(places, tf.int32))

    def from_bytes() -> tf.Tensor:
        return tf.reshape(rows[:, : 3 * width], [-1, width, 3])[..., ::-1]

    def from_fields() -> tf.Tensor:
        usual = tf.where(tf.equal(bits, 16), [0x7C00, 0x3E0, 0x1F], [0xFF0000, 0xFF00, 0xFF])
        masks = tf.cond(
            tf.equal(compression, 3),
            lambda: [_number(raw, at, 4, tf.int64) for at in (54, 58, 62)],
            lambda: tf.unstack(tf.cast(usual, tf.int64)),
        )
        size = bits // 8
        return _fields(tf.reshape(rows[:, : size * width], [-1, width, size]), size, masks)

    return tf.case([(has_table, from_table), (tf.equal(bits, 24), from_bytes)], default=from_fields)


def _bmp_header(raw: tf.Tensor, length: tf.Tensor) -> list[tf.Tensor]:
    """Of a BMP file: width, height, bits a pixel, compression, colours in the table, bytes of each.

    OS/2's header has 12 bytes, all others what Windows's begins with.
    """
    return tf.cond(
        tf.equal(length, 12),
        lambda: [*(_number(raw, at, 2) for at in (18, 20, 24)), 0, 0, 3],
        lambda: [*(_number(raw, at, size) for at, size in ((18, 4), (22, 4), (28, 2), (30, 4), (46, 4))), 4],
    )


def _fields(pixels: tf.Tensor, size: tf.Tensor, masks: list[tf.Tensor]) -> tf.Tensor:
    """Pixels of `size` bytes [H, W, size] to the channels that the masks cut out of them, stretched to 0..255."""
    places = tf.bitwise.left_shift(tf.constant(1, tf.int64), 8 * tf.range(tf.cast(size, tf.int64)))
    numbers = tf.reduce_sum(tf.cast(pixels, tf.int64) * places, axis=-1)
    channels = []
    for mask in masks:
        unit = tf.bitwise.bitwise_and(mask, -mask)
        channels.append(tf.bitwise.bitwise_and(numbers, mask) // unit * 255 // (mask // unit))
    return tf.cast(tf.stack(channels, axis=-1), tf.uint8)


def _number(raw: tf.Tensor, position: tf.Tensor | int, length: int, dtype: tf.DType = tf.int32) -> tf.Tensor:
    """A number of `length` bytes, the lowest first."""
    values = tf.cast(tf.gather(raw, position + tf.range(length)), dtype)
    return tf.reduce_sum(tf.bitwise.left_shift(values, tf.cast(8 * tf.range(length), dtype)))


def _placed(pixels: tf.Tensor, corner: tuple, canvas: tuple, colour: tf.Tensor | int) -> tf.Tensor:
    """A frame from `corner` (top, left) on, on a canvas (height, width) of one colour, which grows as Pillow's does."""
    rest = [
        tf.maximum(side - at - length, 0)
        for side, at, length in zip(canvas, corner, tf.unstack(tf.shape(pixels)[:2]), strict=True)
    ]
    colour = tf.cast(colour, tf.uint8)
    # Differences of bytes come back when the colour is added: both wrap around.
    return tf.pad(pixels - colour, [[corner[0], rest[0]], [corner[1], rest[1]], [0, 0]]) + colour
