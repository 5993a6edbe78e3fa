"""Compiled kernels of random resized crops: where to crop, and Pillow's resizing of the crop.

Pillow 13 (src/libImaging/Resample.c) is the specification, in its fixed-point arithmetic. Both passes combine rows of
contiguous bytes, so that the inner loop is one of vector instructions: the pass over the height as the image lies, the
pass over the width after 64 rows were turned into columns. That makes it several times as fast as Pillow.
"""

import numpy as np

from divco_tf.data.views.kernels.random_numbers import below, inlined, kernel, uniform

BILINEAR, BICUBIC = 1, 2
"""Filters by their support in pixels of the target: a triangle, and Keys' cubic with a = -0.5."""

_BOX_ATTEMPTS = np.uint64(1024)  # the counter of the first; four counters an attempt
_ATTEMPTS = 10  # torchvision, RandomResizedCrop
_1, _2, _3, _4 = (np.uint64(number) for number in range(1, 5))

_PRECISION = 22  # bits behind the point: a sum needs 8 before it, one for overshoot and one for the sign
_ONE, _HALF = 1 << _PRECISION, 1 << (_PRECISION - 1)
_FIRST, _UPRIGHT = np.int64(0), np.bool_(False)  # no literals, which would be other types to numba
_LANES = 64  # rows that become columns together: three steps of four


@kernel
def draw_box(key, height, width, area_low, area_high, aspect_low, aspect_high):
    """The part of an image that a random resized crop takes: top, left, height, width (int64), as torchvision has it.

    Its share of the area is uniform in [area_low, area_high], its aspect, width to height, log-uniform in [aspect_low,
    aspect_high]; after ten attempts that stick out, it is the largest central part of an allowed aspect.
    """
    log_low, log_high = np.log(aspect_low), np.log(aspect_high)
    for attempt in range(_ATTEMPTS):
        counter = _BOX_ATTEMPTS + _4 * np.uint64(attempt)
        area = height * width * (area_low + (area_high - area_low) * uniform(key, counter))
        aspect = np.exp(log_low + (log_high - log_low) * uniform(key, counter + _1))
        box_height, box_width = np.int64(np.rint(np.sqrt(area / aspect))), np.int64(np.rint(np.sqrt(area * aspect)))
        if 0 < box_height <= height and 0 < box_width <= width:
            top = below(key, counter + _2, height - box_height + 1)
            left = below(key, counter + _3, width - box_width + 1)
            return top, left, box_height, box_width
    box_height, box_width = np.int64(height), np.int64(width)
    if width < aspect_low * height:
        box_height = max(1, np.int64(np.rint(width / aspect_low)))
    elif width > aspect_high * height:
        box_width = max(1, np.int64(np.rint(height * aspect_high)))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


@kernel
def resize(image, box, mirror, support, view):
    """Resizes a part of `image` to `view` (written) and mirrors it if `mirror`: both uint8 [H, W, 3], of any sizes.

    `box` is (top, left, height, width) in pixels, and inside of the image; nothing outside of it is looked at, as if it
    had been cut out first. `support` is `BICUBIC` or `BILINEAR`; both are antialiased.
    """
    resize_and_cut(image, box, mirror, support, view.shape[:2], (_FIRST, _FIRST), view)


@inlined
def resize_and_cut(image, box, mirror, support, sides, corner, view):
    """The same to `sides` (height, width), of which `view` takes what lies from `corner` (top, left) on.

    No more is computed than that, nor more memory taken: a strip of 1 x 3000 pixels, its shorter side resized to 257,
    would be 257 x 771,000.
    """
    top, left, height, width = box
    view_height, view_width, _ = view.shape
    rows = image.reshape(image.shape[0], 3 * image.shape[1])
    resized = view.reshape(view_height, 3 * view_width)
    first_row, band_height, down = _coefficients(height, sides[0], corner[0], view_height, support, _UPRIGHT)
    first_column, band_width, across = _coefficients(width, sides[1], corner[1], view_width, support, mirror)
    top, left = top + first_row, 3 * (left + first_column)
    # The cheaper pass first, by Pillow's rule: rounding in between makes it matter.
    if height - sides[0] > max(0, 2 * (width - sides[1])):
        narrow = np.empty((view_height, 3 * band_width), np.uint8)
        _combine_rows(rows, top, left, down, narrow)
        _resize_width(narrow, _FIRST, _FIRST, across, resized)
    else:
        wide = np.empty((band_height, 3 * view_width), np.uint8)
        _resize_width(rows, top, left, across, wide)
        _combine_rows(wide, _FIRST, _FIRST, down, resized)


@kernel
def _coefficients(length, size, start, wanted, support, mirror):
    """What `wanted` of `size` pixels, from `start` on, are made of: a band of the `length` pixels that are resized.

    Returns the band's first pixel and its length; and, for each wanted pixel, the first of the band that it depends on,
    int64 [wanted], of how many, and their weights: int32 [wanted, n], 22 bits behind the point, and zero past a pixel's
    last.
    """
    scale = length / size
    stretch = max(scale, 1.0)
    reach = support * stretch
    first, count = np.empty(wanted, np.int64), np.empty(wanted, np.int64)
    weights = np.zeros((wanted, 2 * np.int64(np.ceil(reach)) + 2), np.int32)
    exact = np.empty(weights.shape[1])
    for target in range(wanted):
        position = size - 1 - start - target if mirror else start + target
        centre = (position + 0.5) * scale
        begin = max(0, np.int64(centre - reach + 0.5))
        taps = min(length, np.int64(centre + reach + 0.5)) - begin
        total = 0.0
        for tap in range(taps):
            exact[tap] = _filter((tap + begin - centre + 0.5) * (1.0 / stretch), support)
            total += exact[tap]
        first[target], count[target] = begin, taps
        for tap in range(taps):
            weight = exact[tap] / total
            weights[target, tap] = np.int32(weight * _ONE + (0.5 if weight >= 0 else -0.5))  # the cast truncates
    band = first.min()
    extent = (first + count).max() - band
    return band, extent, (first - band, count, weights)


@kernel
def _filter(x, support):
    x = abs(x)
    if x >= support:
        return 0.0
    if support == BILINEAR:
        return 1.0 - x
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5


@kernel
def _combine_rows(source, top, left, coefficients, target):
    """Fills each row of `target` with a weighted sum of `source`'s rows, from column `left` on; rows count from `top`.

    Both are uint8 [rows, columns].
    """
    first, count, weights = coefficients
    columns, last = target.shape[1], source.shape[0] - 1
    sums = np.empty(columns, np.int32)
    for y in range(target.shape[0]):
        for x in range(columns):
            sums[x] = _HALF
        for tap in range(0, count[y], 2):  # two at a time: the sums are read and written half as often
            row = top + first[y] + tap
            one, other = source[row][left : left + columns], source[min(row + 1, last)][left : left + columns]
            weight_one, weight_other = weights[y, tap], weights[y, tap + 1]
            for x in range(columns):
                sums[x] += np.int32(one[x]) * weight_one + np.int32(other[x]) * weight_other
        row_out = target[y]
        for x in range(columns):
            row_out[x] = min(max(sums[x] >> _PRECISION, 0), 255)


@kernel
def _resize_width(source, top, left, coefficients, target):
    """Fills `target`, uint8 [h, 3 * new width], from `source` [H, 3 * W], from row `top` and column `left` on."""
    height, columns = target.shape
    width = (coefficients[0] + coefficients[1]).max()
    turned = np.empty((width, 3 * _LANES), np.uint8)
    resized = np.empty((columns // 3, 3 * _LANES), np.uint8)
    beyond = np.empty(columns, np.uint8)
    scratch = np.empty(2 * _LANES * 3 * max(width, columns // 3), np.uint8)
    for start in range(0, height, _LANES):
        _rows_to_columns(source, top + start, top + height - 1, left, turned, scratch)
        _combine_rows(turned, _FIRST, _FIRST, coefficients, resized)
        _columns_to_rows(resized, start, target, beyond, scratch)


@kernel
def _rows_to_columns(source, start, last, left, turned, scratch):
    """Turns 64 rows of `source`, from `start` on (`last` again if there are fewer), to columns: [W, 3 * 64]."""
    length = 3 * turned.shape[0]
    fours = scratch[: 64 * length].reshape(16, 4 * length)
    sixteens = scratch[64 * length : 128 * length].reshape(4, 16 * length)
    for k in range(16):
        row = start + 4 * k
        _interleave(
            source[min(row, last)][left : left + length],
            source[min(row + 1, last)][left : left + length],
            source[min(row + 2, last)][left : left + length],
            source[min(row + 3, last)][left : left + length],
            fours[k],
        )
    for k in range(4):
        four = fours[4 * k : 4 * k + 4].reshape(-1).view(np.uint32).reshape(4, length)
        _interleave(four[0], four[1], four[2], four[3], sixteens[k].view(np.uint32))
    sixteen = sixteens.reshape(-1).view(np.complex128).reshape(4, length)  # the type of 16 bytes
    _interleave(sixteen[0], sixteen[1], sixteen[2], sixteen[3], turned.reshape(-1).view(np.complex128))


@kernel
def _columns_to_rows(turned, start, target, beyond, scratch):
    """The way back, to rows of `target` from `start` on; `beyond` takes what lies below its end."""
    length, height = 3 * turned.shape[0], target.shape[0]
    fours = scratch[: 64 * length].reshape(16, 4 * length)
    sixteens = scratch[64 * length : 128 * length].reshape(4, 16 * length)
    sixteen = sixteens.reshape(-1).view(np.complex128).reshape(4, length)
    _part(turned.reshape(-1).view(np.complex128), sixteen[0], sixteen[1], sixteen[2], sixteen[3])
    for k in range(4):
        four = fours[4 * k : 4 * k + 4].reshape(-1).view(np.uint32).reshape(4, length)
        _part(sixteens[k].view(np.uint32), four[0], four[1], four[2], four[3])
    for k in range(16):
        row = start + 4 * k
        _part(
            fours[k],
            target[row] if row < height else beyond,
            target[row + 1] if row + 1 < height else beyond,
            target[row + 2] if row + 2 < height else beyond,
            target[row + 3] if row + 3 < height else beyond,
        )


@kernel
def _interleave(one, two, three, four, whole):
    """`one[0]`, `two[0]`, `three[0]`, `four[0]`, `one[1]`, ...: a loop that LLVM has vector instructions for."""
    for x in range(one.shape[0]):
        whole[4 * x], whole[4 * x + 1], whole[4 * x + 2], whole[4 * x + 3] = one[x], two[x], three[x], four[x]


@kernel
def _part(whole, one, two, three, four):
    """The inverse of `_interleave`."""
    for x in range(one.shape[0]):
        one[x], two[x], three[x], four[x] = whole[4 * x], whole[4 * x + 1], whole[4 * x + 2], whole[4 * x + 3]
