"""Affine transformations, as Pillow (13.0) samples them: uint8 [H, W, 3] `image` into `view`.

The pixel (x, y) of the view takes the image at (a x + b y + c, d x + e y + f), both measured at pixel centres; what
lies outside becomes the fill colour. Pillow's bicubic kernel has a = -1 here (in resizing it has -1/2).
"""

import math

import numpy as np

from divco_tf.data.image_ops.photometry import copy
from divco_tf.data.image_ops.random_numbers import kernel

NEAREST, BILINEAR, BICUBIC = range(3)
_0, _1, _2, _255 = (np.float32(number) for number in (0, 1, 2, 255))
_TINY = np.float32(2.0**-12)


@kernel
def rotate(image, view, degrees, resampling, fill):
    """Turns the image counter-clockwise about its centre; `fill` is uint8 [3]."""
    height, width = image.shape[0], image.shape[1]
    degrees = degrees % 360.0
    if degrees == 0:
        copy(image, view)
        return
    if degrees == 180 or (height == width and (degrees == 90 or degrees == 270)):  # Pillow transposes these
        for y in range(height):
            for x in range(width):
                if degrees == 180:
                    view[y, x] = image[height - 1 - y, width - 1 - x]
                elif degrees == 90:
                    view[y, x] = image[x, width - 1 - y]
                else:
                    view[y, x] = image[height - 1 - x, y]
        return
    radians = -math.radians(degrees)
    cosine, sine = round(math.cos(radians), 15), round(math.sin(radians), 15)
    center_x, center_y = width / 2, height / 2
    c = -cosine * center_x - sine * center_y + center_x
    f = sine * center_x - cosine * center_y + center_y
    affine(image, view, cosine, sine, c, -sine, cosine, f, resampling, fill)


@kernel
def affine(image, view, a, b, c, d, e, f, resampling, fill):
    """Any affine transformation."""
    if resampling != NEAREST:
        _interpolate(image, view, a, b, c, d, e, f, resampling == BICUBIC, fill)
    elif b == 0 and d == 0:
        _nearest_scaled(image, view, a, c, e, f, fill)
    else:
        _nearest(image, view, a, b, c, d, e, f, fill)


@kernel
def _nearest_scaled(image, view, a, c, e, f, fill):
    height, width, _ = image.shape
    source_y = f + e * 0.5
    for y in range(height):
        inside = 0 <= source_y < height
        row = image[np.int64(source_y) if inside else 0]
        source_x = c + a * 0.5
        for x in range(width):
            if inside and 0 <= source_x < width:
                column = np.int64(source_x)
                for channel in range(3):
                    view[y, x, channel] = row[column, channel]
            else:
                for channel in range(3):
                    view[y, x, channel] = fill[channel]
            source_x += a
        source_y += e


@kernel
def _fixed(number):
    return np.int64(math.floor(number * 65536.0 + 0.5))


@kernel
def _nearest(image, view, a, b, c, d, e, f, fill):
    """In fixed point with 16 bits after the point, as Pillow: another rounding would choose other pixels."""
    height, width, _ = image.shape
    row_x, row_y = _fixed(c + a * 0.5 + b * 0.5), _fixed(f + d * 0.5 + e * 0.5)
    step_x, step_y = _fixed(a), _fixed(d)
    for y in range(height):
        fixed_x, fixed_y = row_x, row_y
        for x in range(width):
            source_x, source_y = fixed_x >> 16, fixed_y >> 16
            if 0 <= source_x < width and 0 <= source_y < height:
                for channel in range(3):
                    view[y, x, channel] = image[source_y, source_x, channel]
            else:
                for channel in range(3):
                    view[y, x, channel] = fill[channel]
            fixed_x += step_x
            fixed_y += step_y
        row_x += _fixed(b)
        row_y += _fixed(e)


@kernel
def _weights(fraction):
    """Bicubic, of the pixels -1, 0, 1 and 2 from the one before a place, float32."""
    t = np.float32(fraction)
    t2 = t * t
    t3 = t2 * t
    return _2 * t2 - t - t3, _1 - _2 * t2 + t3, t + t2 - t3, t3 - t2


@kernel
def _level(number):
    """Pillow rounds down what it has in float64; in float32 whole numbers may come out 1e-4 too small."""
    return np.uint8(np.int32(min(max(number + _TINY, _0), _255)))


@kernel
def _between(first, second, share):
    """In this form, which returns equal levels as they are, and float64: rounding down shows an error of one bit."""
    return first + (second - first) * share


@kernel
def _interpolate(image, view, a, b, c, d, e, f, cubic, fill):
    height, width, _ = image.shape
    for y in range(height):
        for x in range(width):
            source_x = a * (x + 0.5) + b * (y + 0.5) + c
            source_y = d * (x + 0.5) + e * (y + 0.5) + f
            if not (0 <= source_x < width and 0 <= source_y < height):
                for channel in range(3):
                    view[y, x, channel] = fill[channel]
                continue
            source_x -= 0.5
            source_y -= 0.5
            left, top = np.int64(math.floor(source_x)), np.int64(math.floor(source_y))
            part_x, part_y = source_x - left, source_y - top
            x0, x1, x2, x3 = max(left - 1, 0), max(left, 0), min(left + 1, width - 1), min(left + 2, width - 1)
            y0, y1, y2, y3 = max(top - 1, 0), max(top, 0), min(top + 1, height - 1), min(top + 2, height - 1)
            if not cubic:
                for channel in range(3):
                    above = _between(np.float64(image[y1, x1, channel]), np.float64(image[y1, x2, channel]), part_x)
                    below = _between(np.float64(image[y2, x1, channel]), np.float64(image[y2, x2, channel]), part_x)
                    view[y, x, channel] = np.uint8(np.int32(_between(above, below, part_y)))
                continue
            wx = _weights(part_x)
            if part_y == 0:  # shears and moves along a row
                for channel in range(3):
                    view[y, x, channel] = _level(_across(image[y1], x0, x1, x2, x3, wx, channel))
                continue
            wy = _weights(part_y)
            for channel in range(3):
                if part_x == 0:
                    level = wy[0] * np.float32(image[y0, x1, channel]) + wy[1] * np.float32(image[y1, x1, channel])
                    level += wy[2] * np.float32(image[y2, x1, channel]) + wy[3] * np.float32(image[y3, x1, channel])
                else:
                    level = wy[0] * _across(image[y0], x0, x1, x2, x3, wx, channel)
                    level += wy[1] * _across(image[y1], x0, x1, x2, x3, wx, channel)
                    level += wy[2] * _across(image[y2], x0, x1, x2, x3, wx, channel)
                    level += wy[3] * _across(image[y3], x0, x1, x2, x3, wx, channel)
                view[y, x, channel] = _level(level)


@kernel
def _across(row, x0, x1, x2, x3, weights, channel):
    level = weights[0] * np.float32(row[x0, channel]) + weights[1] * np.float32(row[x1, channel])
    return level + weights[2] * np.float32(row[x2, channel]) + weights[3] * np.float32(row[x3, channel])
