"""Tables of operations, drawn and applied: what `augmentations.Augmentation` describes, as arrays.

A table is float64 [sub-policies, steps, COLUMNS]. What is drawn for a view is a list of records, float64 [n, RECORD]:
code of the operation, argument, resampling, and red, green and blue of the fill colour.
"""

import math

import numpy as np

from divco_tf.data.views.kernels import geometry, photometry
from divco_tf.data.views.kernels.random_numbers import below, fold, inlined, kernel, uniform
from divco_tf.data.views.operations import BUILT_IN

# Columns of a table. A code below 0 is no step: sub-policies differ in length.
CODE, PROBABILITY, LOW, HIGH, TOP, LEVEL, STD, SIGNED, OFFSET, ROUNDING, RESAMPLINGS, RED, GREEN, BLUE = range(14)
COLUMNS = 14
RECORD = 6
UNIFORM_LEVEL = -1.0  # in LEVEL: each whole level from 0 to the top

# Counters of a view's draws: of an augmentation, its rounds, and their steps.
_AUGMENT = np.uint64(0x617567)  # "aug": sets these draws apart from those of cropping and erasing
_OWN = np.uint64(0x6F776E)  # "own": the keys of the user's operations
_CHOICE, _STEP = np.uint64(0), np.uint64(8)
_APPLY, _NORMAL, _ANGLE, _SIGN, _RESAMPLING = (np.uint64(counter) for counter in range(5))

_IDENTITY, _SHEAR_X, _SHEAR_Y, _TRANSLATE_X, _TRANSLATE_Y, _PIXELS_X, _PIXELS_Y, _ROTATE = range(8)
_COLOR, _CONTRAST, _BRIGHTNESS, _SHARPNESS, _POSTERIZE, _SOLARIZE, _SOLARIZE_ADD = range(8, 15)
_AUTO_CONTRAST, _EQUALIZE, _INVERT = range(15, 18)
_BLACK = np.int64(0)
assert BUILT_IN[_SHEAR_X] == "shear_x" and BUILT_IN[_COLOR] == "color" and BUILT_IN[_INVERT] == "invert"


@inlined
def draw_argument(key, step):
    """The argument of a step (float64 [COLUMNS]) from the step's key."""
    level = step[LEVEL]
    if level == UNIFORM_LEVEL:
        level = np.float64(below(key, _NORMAL, np.int64(step[TOP]) + 1))
    elif step[STD] == math.inf:  # timm's way to say so
        level *= uniform(key, _NORMAL)
    elif step[STD] > 0:  # Box and Muller's normal number
        radius = math.sqrt(-2 * math.log(1 - uniform(key, _NORMAL)))
        level += step[STD] * radius * math.cos(2 * math.pi * uniform(key, _ANGLE))
        level = min(max(level, 0.0), step[TOP])
    argument = step[LOW] + (step[HIGH] - step[LOW]) * level / step[TOP]
    if step[ROUNDING] == 1:
        argument = math.floor(argument)
    elif step[ROUNDING] == 2:
        argument = math.ceil(argument)
    elif step[ROUNDING] == 3:
        argument = np.rint(argument)
    if step[SIGNED] and uniform(key, _SIGN) < 0.5:
        argument = -argument
    return step[OFFSET] + argument


@kernel
def draw_steps(key, place, table, draws, records):
    """Draws what augmentation number `place` of a policy does to a view; returns how many `records` were written."""
    key = fold(fold(key, _AUGMENT), np.uint64(place))
    count = 0
    for draw in range(draws):
        round_key = fold(key, np.uint64(draw))
        sub_policy = table[below(round_key, _CHOICE, table.shape[0])]
        for number in range(sub_policy.shape[0]):
            step = sub_policy[number]
            step_key = fold(round_key, _STEP + np.uint64(number))
            if step[CODE] < 0 or uniform(step_key, _APPLY) >= step[PROBABILITY]:
                continue
            step_key = fold(step_key, _STEP)
            records[count, 0] = step[CODE]
            records[count, 1] = draw_argument(step_key, step)
            records[count, 2] = _draw_resampling(step_key, np.int64(step[RESAMPLINGS]))
            for channel in range(3):
                records[count, 3 + channel] = step[RED + channel]
            count += 1
    return count


@kernel
def own_key(key, place, number):
    """The key of a user's operation, record `number` of augmentation `place`.

    It has 63 bits: a number of 64 reaches a numba function as either of two types.
    """
    return np.int64(fold(fold(fold(key, _OWN), np.uint64(place)), np.uint64(number)) >> np.uint64(1))


@inlined
def _draw_resampling(key, chosen_from):
    """One of the resamplings whose bits are set."""
    count = (chosen_from & 1) + (chosen_from >> 1 & 1) + (chosen_from >> 2 & 1)
    place = below(key, _RESAMPLING, count)
    for resampling in range(3):
        if chosen_from >> resampling & 1:
            if place == 0:
                return resampling
            place -= 1
    return 0


@inlined
def apply_step(record, image, view, counts, table):
    """Applies a record to `image`, uint8 [H, W, 3], and writes `view`; scratch as in `photometry.equalize`."""
    code, argument, resampling = np.int64(record[0]), record[1], np.int64(record[2])
    if code < _COLOR:
        fill = np.uint8(record[3]), np.uint8(record[4]), np.uint8(record[5])
        _transform(code, argument, resampling, fill, image, view)
    elif code == _COLOR:
        photometry.color(image, view, argument)
    elif code == _CONTRAST:
        photometry.contrast(image, view, argument)
    elif code == _BRIGHTNESS:
        photometry.blend_with(image, view, _BLACK, argument)
    elif code == _SHARPNESS:
        photometry.sharpness(image, view, argument)
    elif code == _POSTERIZE:
        photometry.posterize(image, view, np.int64(argument))
    elif code == _SOLARIZE_ADD:
        photometry.solarize_add(image, view, argument)
    elif code == _AUTO_CONTRAST:
        photometry.auto_contrast(image, view, counts, table)
    elif code == _EQUALIZE:
        photometry.equalize(image, view, counts, table)
    else:  # to invert is to solarize all levels
        photometry.solarize(image, view, argument if code == _SOLARIZE else 0.0)


@inlined
def _transform(code, argument, resampling, fill, image, view):
    if code == _IDENTITY or (code == _ROTATE and geometry.turned(image, view, argument)):
        if code == _IDENTITY:
            photometry.copy(image, view)
        return
    b = c = d = f = 0.0
    a = e = 1.0
    if code == _SHEAR_X:
        b = argument
    elif code == _SHEAR_Y:
        d = argument
    elif code == _TRANSLATE_X:
        c = argument * image.shape[1]
    elif code == _TRANSLATE_Y:
        f = argument * image.shape[0]
    elif code == _PIXELS_X:
        c = argument
    elif code == _PIXELS_Y:
        f = argument
    else:
        a, b, c, d, e, f = geometry.rotation(argument, image.shape[0], image.shape[1])
    geometry.affine(image, view, a, b, c, d, e, f, resampling, fill)
