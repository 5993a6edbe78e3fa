"""Counter-based random numbers, and how kernels are compiled.

A number is a hash of a view's key and a counter, the key a hash of (seed, step, position in the global batch, branch).
So a view depends on nothing but these, and a kernel may run in any thread. The hash is the finaliser of splitmix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

import functools
import pathlib
from collections.abc import Callable

import numba
import numpy as np

from divco_tf import compat

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1, _FACTOR_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_11, _27, _30, _31, _1 = (np.uint64(number) for number in (11, 27, 30, 31, 1))
_VIEWS = np.uint64(0x7669657773)  # "views": sets these draws apart from the model's


def kernel(function: Callable) -> Callable:
    """`numba.njit` without the GIL, compiled at the first call and cached on disk where a folder can be written."""
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found neither __pycache__ nor the user's cache folder writable
        return numba.njit(nogil=True)(function)
    # Kernels call kernels of other files, whose changes numba (0.68) does not notice: it stamps a function's cache with
    # its own file's time and size only.
    compat.stamp_cache(compiled, _stamp())
    return compiled


@functools.cache
def _stamp() -> tuple[tuple[str, float, int], ...]:
    files = sorted(pathlib.Path(__file__).parent.glob("*.py"))
    return tuple((file.name, file.stat().st_mtime, file.stat().st_size) for file in files)


@kernel
def fold(key, counter):
    """A new key from a key and a counter, all uint64."""
    bits = key + (counter + _1) * _GOLDEN
    bits = (bits ^ (bits >> _30)) * _FACTOR_1
    bits = (bits ^ (bits >> _27)) * _FACTOR_2
    return bits ^ (bits >> _31)


@kernel
def uniform(key, counter):
    """A float64 in [0, 1), of 53 bits, from a key and a counter (uint64)."""
    return np.float64(fold(key, counter) >> _11) * 2.0**-53


@kernel
def below(key, counter, limit):
    """An int64 in [0, limit), from a key and a counter (uint64)."""
    return np.int64(uniform(key, counter) * limit)


@kernel
def _fill_keys(seed, step, keys):
    batch = fold(fold(fold(np.uint64(0), _VIEWS), seed), step)
    for position in range(keys.shape[0]):
        example = fold(batch, np.uint64(position))
        for branch in range(keys.shape[1]):
            keys[position, branch] = fold(example, np.uint64(branch))


def view_keys(*, seed: int, step: int, batch_size: int, split_factor: int) -> np.ndarray:
    """The keys of a batch's views, uint64 [B, S]: a hash of (seed, step, position in the global batch, branch)."""
    keys = np.empty((batch_size, split_factor), np.uint64)
    _fill_keys(np.uint64(seed % 2**64), np.uint64(step), keys)
    return keys
