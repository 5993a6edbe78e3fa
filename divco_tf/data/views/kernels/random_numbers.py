"""Counter-based random numbers, and how kernels are compiled.

A number is a hash of a view's key and a counter, the key a hash of (seed, step, position in the global batch, branch).
So a view depends on nothing but these, and a kernel may run in any thread. The hash is the finaliser of splitmix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014); `data.draws` has it in Python.
"""

import contextlib
import functools
import hashlib
import importlib.resources
import math
import time
from collections.abc import Callable, Iterator
from importlib.resources.abc import Traversable

import numba
import numpy as np

from divco_tf import compat

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_1, _FACTOR_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_11, _27, _30, _31, _32, _1 = (np.uint64(number) for number in (11, 27, 30, 31, 32, 1))
_VIEWS = np.uint64(0x7669657773)  # "views": sets these draws apart from the model's


def kernel(function: Callable, *, inline: str = "never") -> Callable:
    """`numba.njit` without the GIL, compiled at the first call and cached on disk where a folder can be written."""
    compiler = functools.partial(numba.njit, nogil=True, inline=inline)
    try:
        compiled = compiler(cache=True)(function)
    except RuntimeError:  # numba found neither __pycache__ nor the user's cache folder writable
        return compiler()(function)
    # Kernels call kernels of other files, whose changes numba (0.68) does not notice: it stamps a function's cache with
    # its own file's time and size only. Files of a reproducible build are equal in both, so the stamp is their content.
    folders = {__package__, function.__module__.rpartition(".")[0]}
    compat.stamp_cache(compiled, [stamp(importlib.resources.files(folder)) for folder in sorted(folders)])
    return compiled


inlined = functools.partial(kernel, inline="always")
"""A kernel whose body stands in those that call it; it is compiled by itself only where Python calls it.

A kernel costs compiling some 0.1 s, and again in each that it is linked into. So what is small, or stands between two
large ones, is inlined; but not all, since numba's own time grows with the square of a function's length.
"""


@contextlib.contextmanager
def compiling_told(report: Callable[[str], None]) -> Iterator[None]:
    """Says that kernels are compiled in this context, when they are not in the cache, and how long it took."""
    told: list[float] = []

    def compiling(kernel: Callable) -> None:
        if kernel.__module__.startswith(f"{__package__}.") and not told:
            told.append(time.monotonic())
            report("compiling the operations of views: 5 to 15 s, once on a machine")

    with compat.compilations_told(compiling):
        yield
    if told:
        report(f"compiled in {time.monotonic() - told[0]:.1f} s; later runs find them")


@functools.cache
def stamp(folder: Traversable) -> str:
    """A hash of what the Python files in a folder hold."""
    files = [file for file in folder.iterdir() if file.name.endswith(".py")]
    contents = [(file.name, file.read_bytes()) for file in sorted(files, key=lambda file: file.name)]
    return hashlib.sha256(repr(contents).encode()).hexdigest()


@inlined
def fold(key, counter):
    """A new key from a key and a counter, all uint64."""
    bits = key + (counter + _1) * _GOLDEN
    bits = (bits ^ (bits >> _30)) * _FACTOR_1
    bits = (bits ^ (bits >> _27)) * _FACTOR_2
    return bits ^ (bits >> _31)


@inlined
def uniform(key, counter):
    """A float64 in [0, 1), of 53 bits, from a key and a counter (uint64)."""
    return np.float64(fold(key, counter) >> _11) * 2.0**-53


@inlined
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


_ROUNDS, _SMALL, _ROUNDS_SMALL = 8, 4096, 32


@kernel
def _shuffle(numbers, key, rounds, rows, columns, size):
    """Permutes `numbers`, uint64 [n] below rows * columns, in place; returns how many are not below `size` then.

    Round by round, so that numbers are computed side by side: five times as fast as number by number.
    """
    row, column = np.empty_like(numbers), np.empty_like(numbers)
    for i in range(numbers.shape[0]):
        row[i] = numbers[i] // columns
        column[i] = numbers[i] - row[i] * columns
    for turn in range(0, rounds, 2):
        row_key, column_key = fold(key, np.uint64(turn)), fold(key, np.uint64(turn + 1))
        for i in range(numbers.shape[0]):
            moved = row[i] + ((fold(row_key, column[i]) >> _32) * rows >> _32)
            row[i] = min(moved, moved - rows)  # modulo rows: what is negative wraps around to a large number
            moved = column[i] + ((fold(column_key, row[i]) >> _32) * columns >> _32)
            column[i] = min(moved, moved - columns)
    beyond = 0
    for i in range(numbers.shape[0]):
        numbers[i] = row[i] * columns + column[i]
        beyond += numbers[i] >= size
    return beyond


def shuffled(key: int, *, size: int, start: int = 0, stop: int | None = None) -> np.ndarray:
    """What lies at places [start, stop) of a random order of 0 to size - 1, int64: computed for these places alone.

    A number is a place in a grid of `size` places or a few more. In turn its row moves by a hash of its column, and its
    column by one of its row (a Feistel network); what is not below `size` then goes through it again, as in Black and
    Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002. The number of rows is even: else no order would be an
    odd permutation. It takes more rounds until each order of a few numbers is as frequent as the others.

    Args:
      key: of 64 bits.
      size: of the order, 1 to 2**62.
      start: the first place.
      stop: one after the last; None is the end.
    """
    key, grid = np.uint64(key), _grid(size)
    numbers = np.arange(start, size if stop is None else stop, dtype=np.uint64)
    if _shuffle(numbers, key, *grid):
        beyond = np.flatnonzero(numbers >= size)
        while beyond.size:
            again = numbers[beyond]
            _shuffle(again, key, *grid)
            numbers[beyond] = again
            beyond = beyond[again >= size]
    return numbers.view(np.int64)


@functools.lru_cache(maxsize=64)
def _grid(size: int) -> tuple[int, np.uint64, np.uint64, np.uint64]:
    """Rounds, rows, columns and size of an order."""
    rows = math.isqrt(size - 1) + 1
    rows += rows % 2
    columns = -(-size // rows)
    return _ROUNDS if size >= _SMALL else _ROUNDS_SMALL, np.uint64(rows), np.uint64(columns), np.uint64(size)
