"""Operations on grey levels and colours, as Pillow (13.0) computes them: uint8 [H, W, 3] `image` into `view`.

Arithmetic is float32 where Pillow's is, and where whole numbers stay below 2^24: numba makes vector instructions of it,
which it does not of 64-bit integers.
"""

import numpy as np

from divco_tf.data.views.kernels.random_numbers import inlined, kernel

# Pillow's grey level of a colour: ITU-R 601-2, 16 bits after the point. The sum stays below 2^24.
_RED, _GREEN, _BLUE, _HALF = np.float32(19595), np.float32(38470), np.float32(7471), np.float32(32768)
_FROM_16_BITS = np.float32(2.0**-16)
_0, _05, _5, _13TH, _255 = (np.float32(number) for number in (0, 0.5, 5, 1 / 13, 255))


@inlined
def blended(degenerate, value, factor):
    """Pillow's blend of two grey levels (float32), clipped and rounded down: uint8."""
    mixed = min(max(degenerate + factor * (value - degenerate), _0), _255)
    return np.uint8(np.int32(mixed))


@inlined
def _grey(red, green, blue):
    level = (np.float32(red) * _RED + np.float32(green) * _GREEN + np.float32(blue) * _BLUE + _HALF) * _FROM_16_BITS
    return np.float32(np.int32(level))


@kernel
def posterize(image, view, bits):
    """Keeps the highest `bits` of eight; 0 leaves black."""
    mask = np.uint8(255 & ~((1 << (8 - bits)) - 1))
    source, target = image.reshape(image.size), view.reshape(view.size)
    for i in range(source.size):
        target[i] = source[i] & mask


@kernel
def solarize(image, view, threshold):
    """Inverts what is not below `threshold`, 0..256."""
    limit = np.float32(threshold)
    source, target = image.reshape(image.size), view.reshape(view.size)
    for i in range(source.size):
        level = source[i]
        target[i] = level if np.float32(level) < limit else np.uint8(255) - level


@kernel
def solarize_add(image, view, amount):
    """Adds `amount` to levels below 128, up to 255."""
    added = np.float32(amount)
    source, target = image.reshape(image.size), view.reshape(view.size)
    for i in range(source.size):
        level = np.float32(source[i])
        target[i] = np.uint8(np.int32(min(level + added, _255) if level < np.float32(128) else level))


@kernel
def color(image, view, factor):
    """Away from (factor > 1) or towards (below 1) the grey image."""
    factor = np.float32(factor)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            red, green, blue = image[y, x, 0], image[y, x, 1], image[y, x, 2]
            grey = _grey(red, green, blue)
            view[y, x, 0] = blended(grey, np.float32(red), factor)
            view[y, x, 1] = blended(grey, np.float32(green), factor)
            view[y, x, 2] = blended(grey, np.float32(blue), factor)


@kernel
def blend_with(image, view, level, factor):
    """Away from or towards one grey level: brightness is that from 0."""
    level, factor = np.float32(level), np.float32(factor)
    source, target = image.reshape(image.size), view.reshape(view.size)
    for i in range(source.size):
        target[i] = blended(level, np.float32(source[i]), factor)


@kernel
def contrast(image, view, factor):
    """Away from or towards the image's mean grey level, rounded."""
    total = 0
    for y in range(image.shape[0]):
        row = _0  # whole numbers below 2^24: exact for rows of up to 65,793 pixels
        for x in range(image.shape[1]):
            row += _grey(image[y, x, 0], image[y, x, 1], image[y, x, 2])
        total += np.int64(row)
    mean = np.int64(total / (image.shape[0] * image.shape[1]) + 0.5)
    blend_with(image, view, mean, factor)


@kernel
def copy(image, view):
    """All bytes of an image."""
    source, target = image.reshape(image.size), view.reshape(view.size)
    for i in range(source.size):
        target[i] = source[i]


@kernel
def sharpness(image, view, factor):
    """Away from or towards the smoothed image; the border, where the 3x3 filter does not fit, is copied."""
    copy(image, view)
    height, width = image.shape[0], 3 * image.shape[1]
    factor = np.float32(factor)
    source, target = image.reshape(height, width), view.reshape(height, width)
    for y in range(1, height - 1):
        above, row, below, out = source[y - 1], source[y], source[y + 1], target[y, 3:]
        for i in range(width - 6):  # indices that are never negative: numba makes vector instructions of these only
            around = np.float32(above[i]) + np.float32(above[i + 3]) + np.float32(above[i + 6])
            around += np.float32(below[i]) + np.float32(below[i + 3]) + np.float32(below[i + 6])
            level = np.float32(row[i + 3])
            around += np.float32(row[i]) + np.float32(row[i + 6]) + _5 * level
            smooth = np.float32(np.int32(around * _13TH + _05))
            out[i] = blended(smooth, level, factor)


@inlined
def _histogram(image, counts):
    counts[:] = 0
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for channel in range(3):
                counts[channel, image[y, x, channel]] += 1


@inlined
def _look_up(image, view, table):
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for channel in range(3):
                view[y, x, channel] = table[channel, image[y, x, channel]]


@kernel
def auto_contrast(image, view, counts, table):
    """Stretches each channel to 0..255. `counts` int64 [3, 256] and `table` uint8 [3, 256] are scratch."""
    _histogram(image, counts)
    for channel in range(3):
        low, high = 0, 255
        while low < 255 and counts[channel, low] == 0:
            low += 1
        while high > 0 and counts[channel, high] == 0:
            high -= 1
        for level in range(256):
            table[channel, level] = level
        if high > low:
            scale = 255.0 / (high - low)
            offset = -low * scale
            for level in range(256):
                table[channel, level] = np.uint8(min(max(np.int64(level * scale + offset), 0), 255))
    _look_up(image, view, table)


@kernel
def equalize(image, view, counts, table):
    """Flattens each channel's histogram; scratch as in `auto_contrast`."""
    _histogram(image, counts)
    pixels = image.shape[0] * image.shape[1]
    for channel in range(3):
        last = 255
        while counts[channel, last] == 0:
            last -= 1
        step = (pixels - counts[channel, last]) // 255
        total = step // 2
        for level in range(256):
            table[channel, level] = level
            if step > 0:
                table[channel, level] = np.uint8(min(total // step, 255))
            total += counts[channel, level]
    _look_up(image, view, table)
