"""Affine transformations, as Pillow (13.0) samples them: uint8 [H, W, 3] `image` into `view`.

The pixel (x, y) of the view takes the image at (a x + b y + c, d x + e y + f), both measured at pixel centres; what
lies outside becomes the fill colour. Pillow's bicubic kernel has a = -1 here (in resizing it has -1/2).
"""

import math

import numpy as np

from divco_tf.data.views.kernels.photometry import copy
from divco_tf.data.views.kernels.random_numbers import inlined, kernel

NEAREST, BILINEAR, BICUBIC = range(3)
_START = np.int64(0)  # not a literal, which would be another type to numba
_0, _1, _2, _255, _TINY = (np.float32(number) for number in (0, 1, 2, 255, 1e-3))


@kernel
def turned(image, view, degrees):
    """Turns the image counter-clockwise by a multiple of 90 degrees: Pillow transposes these. False: by none."""
    height, width = image.shape[0], image.shape[1]
    degrees = degrees % 360.0
    if degrees == 0:
        copy(image, view)
        return True
    if not (degrees == 180 or (height == width and (degrees == 90 or degrees == 270))):
        return False
    for y in range(height):
        for x in range(width):
            source_y, source_x = height - 1 - y, width - 1 - x
            if degrees == 90:
                source_y, source_x = x, width - 1 - y
            elif degrees == 270:
                source_y, source_x = height - 1 - x, y
            for channel in range(3):
                view[y, x, channel] = image[source_y, source_x, channel]
    return True


@kernel
def rotation(degrees, height, width):
    """The affine transformation that turns an image counter-clockwise about its centre."""
    radians = -math.radians(degrees % 360.0)
    cosine, sine = np.rint(math.cos(radians) * 1e15) / 1e15, np.rint(math.sin(radians) * 1e15) / 1e15
    center_x, center_y = width / 2, height / 2
    c = -cosine * center_x - sine * center_y + center_x
    f = sine * center_x - cosine * center_y + center_y
    return cosine, sine, c, -sine, cosine, f


@inlined
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


@inlined
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


@inlined
def _weights(fraction, cubic):
    """Of the pixels -1, 0, 1 and 2 from the one before a place, float32."""
    t = np.float32(fraction)
    if not cubic:
        return _0, _1 - t, t, _0
    t2 = t * t
    t3 = t2 * t
    return _2 * t2 - t - t3, _1 - _2 * t2 + t3, t + t2 - t3, t3 - t2


@inlined
def _level(number):
    """Pillow rounds down what it has in float64; in float32 whole numbers may come out 1e-4 too small."""
    return np.uint8(np.int32(min(max(number + _TINY, _0), _255)))


@inlined
def _interpolate(image, view, a, b, c, d, e, f, cubic, fill):
    if a == 1 and d == 0:
        _interpolate_rows(image, view, b, c, e, f, cubic, fill)
    elif e == 1 and b == 0:  # the same with rows and columns exchanged: faster than columns by three times
        turned = np.empty((image.shape[1], image.shape[0], 3), np.uint8)
        turned_view = np.empty_like(turned)
        _transpose(image, turned)
        _interpolate_rows(turned, turned_view, d, f, a, c, cubic, fill)
        _transpose(turned_view, view)
    else:
        _interpolate_pixels(image, view, a, b, c, d, e, f, cubic, fill)


@kernel
def _transpose(image, view):
    for y in range(view.shape[0]):
        for x in range(view.shape[1]):
            for channel in range(3):
                view[y, x, channel] = image[x, y, channel]


@kernel
def _interpolate_rows(image, view, b, c, e, f, cubic, fill):
    """Where a = 1 and d = 0 (shears and moves), the weights of a whole row are the same: vector instructions."""
    height, width, _ = image.shape
    source, target = image.reshape(height, 3 * width), view.reshape(height, 3 * width)
    line = np.empty(3 * width, np.float32)  # the row, interpolated vertically
    for y in range(height):
        source_y = e * (y + 0.5) + f
        if not 0 <= source_y < height:
            _fill(target[y], _START, width, fill)
            continue
        top = np.int64(math.floor(source_y - 0.5))
        w0, w1, w2, w3 = _weights(source_y - 0.5 - top, cubic)
        row0, row1 = source[max(top - 1, 0)], source[max(top, 0)]
        row2, row3 = source[min(top + 1, height - 1)], source[min(top + 2, height - 1)]
        for i in range(line.size):
            level = w0 * np.float32(row0[i]) + w1 * np.float32(row1[i])
            line[i] = level + w2 * np.float32(row2[i]) + w3 * np.float32(row3[i])
        shift = b * (y + 0.5) + c
        whole = np.int64(math.floor(shift))
        weights = _weights(shift - whole, cubic)
        first = min(max(1 - whole, 0), width)  # of the columns whose four neighbours are all inside
        last = max(min(width - 2 - whole, width), first)
        _interpolate_ends(line, target[y], _START, first, shift, weights, fill)
        inner, out = line[3 * (first + whole - 1) :] if first < last else line, target[y, 3 * first : 3 * last]
        w0, w1, w2, w3 = weights
        for i in range(out.size):
            level = w0 * inner[i] + w1 * inner[i + 3] + w2 * inner[i + 6] + w3 * inner[i + 9]
            out[i] = _level(level)
        _interpolate_ends(line, target[y], last, width, shift, weights, fill)


@kernel
def _interpolate_ends(line, out, start, stop, shift, weights, fill):
    """The columns of a row that have neighbours beyond its ends, which repeat."""
    width = line.size // 3
    for x in range(start, stop):
        if not 0 <= x + 0.5 + shift < width:
            _fill(out, x, x + 1, fill)
            continue
        left = x + np.int64(math.floor(shift))
        for channel in range(3):
            level = _0
            for neighbour in range(4):
                column = min(max(left - 1 + neighbour, 0), width - 1)
                level += weights[neighbour] * line[3 * column + channel]
            out[3 * x + channel] = _level(level)


@inlined
def _fill(out, start, stop, fill):
    for x in range(start, stop):
        for channel in range(3):
            out[3 * x + channel] = fill[channel]


@kernel
def _interpolate_pixels(image, view, a, b, c, d, e, f, cubic, fill):
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
            wx, wy = _weights(source_x - left, cubic), _weights(source_y - top, cubic)
            x0, x1, x2, x3 = max(left - 1, 0), max(left, 0), min(left + 1, width - 1), min(left + 2, width - 1)
            row0, row1 = image[max(top - 1, 0)], image[max(top, 0)]
            row2, row3 = image[min(top + 1, height - 1)], image[min(top + 2, height - 1)]
            for channel in range(3):
                level = wy[0] * _across(row0, x0, x1, x2, x3, wx, channel)
                level += wy[1] * _across(row1, x0, x1, x2, x3, wx, channel)
                level += wy[2] * _across(row2, x0, x1, x2, x3, wx, channel)
                level += wy[3] * _across(row3, x0, x1, x2, x3, wx, channel)
                view[y, x, channel] = _level(level)


@inlined
def _across(row, x0, x1, x2, x3, weights, channel):
    level = weights[0] * np.float32(row[x0, channel]) + weights[1] * np.float32(row[x1, channel])
    return level + weights[2] * np.float32(row[x2, channel]) + weights[3] * np.float32(row[x3, channel])
