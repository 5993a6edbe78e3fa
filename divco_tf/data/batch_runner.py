"""Runs operations in a row on the normalised views of a batch, each with a key of its own.

An operation sees RGB in 0..255, as Keras's layers expect it, and draws from a key that (seed, step) settles. It sees
a batch, and draws by position in it: a host that applies it to its slice gets other views than from the whole batch.
"""

from collections.abc import Sequence

import numpy as np

from divco_tf.data import draws
from divco_tf.data.batch_ops import BATCH_OPERATIONS, BatchOperation
from divco_tf.data.keras_layers import KerasLayer, told
from divco_tf.errors import InputError


class BatchOperations:
    """Operations in a row on the normalised views of a batch.

    Args:
      operations: names of registered ones, Keras layers, or functions.
      image_size: H = W, in pixels.
      mean: of the normalisation, RGB in 0..1.
      std: likewise.

    Raises:
      InputError: no operation has that name, or a layer is refused.
    """

    def __init__(
        self,
        operations: Sequence[str | KerasLayer | BatchOperation],
        *,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self._operations = [_named(operation, image_size) for operation in operations]
        self._mean, self._std = np.asarray(mean, np.float64), np.asarray(std, np.float64)

    def __len__(self) -> int:
        return len(self._operations)

    def __call__(self, views: np.ndarray, labels: np.ndarray, *, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The batch after all operations: a function of its arguments, as far as the operations are.

        Args:
          views: float32 [B, S, H, W, 3], normalised; not changed.
          labels: float32 [B, K]; not changed.
          seed: of the run.
          step: of the batch.

        Returns:
          Views and labels of the same shapes and types; the arguments themselves where there is no operation.

        Raises:
          InputError: an operation returned something else than views and labels of these shapes.
        """
        if not self._operations:
            return views, labels
        views, labels = self._to_pixels(views), labels.copy()
        for place, (name, operation) in enumerate(self._operations):
            key = draws.fold(draws.BATCH_OPERATION, seed, step, place) >> 1
            views, labels = _applied(name, operation, views, labels, key)
        return self._to_normalised(views), labels

    def _to_pixels(self, views: np.ndarray) -> np.ndarray:
        pixels = _by_channel(views, 255 * self._std, 255 * self._mean)
        # What was a whole number becomes one again: layers that count grey levels cut off the fraction. What erasing
        # filled with the mean is none. One example after the other, since it fits into the cache: twice as fast.
        for example in pixels:
            whole = np.rint(example)
            np.copyto(example, whole, where=np.abs(example - whole) < 1e-3)
        return pixels

    def _to_normalised(self, pixels: np.ndarray) -> np.ndarray:
        # As in the kernel `normalise`, so that untouched pixels come out bit by bit as they went in.
        return _by_channel(pixels, 1 / (255 * self._std), -self._mean / self._std)


def _by_channel(images: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """`images` * `scale` + `shift` in float32, row by row: numpy is many times slower where the last axis is 3 long."""
    rows = images.reshape(-1, images.shape[-2] * 3)
    scale, shift = (np.tile(values, images.shape[-2]).astype(np.float32) for values in (scale, shift))
    changed = rows * scale
    changed += shift
    return changed.reshape(images.shape)


def _named(operation: str | KerasLayer | BatchOperation, image_size: int) -> tuple[str, BatchOperation]:
    if isinstance(operation, str):
        return operation, BATCH_OPERATIONS.get(operation)
    if isinstance(operation, KerasLayer):
        return operation.name, operation.build(image_size=image_size)
    if not callable(operation):
        raise InputError(
            f"A batch operation is a function, a name or a KerasLayer. Received: {operation!r}; one of them would work."
        )
    return getattr(operation, "__name__", repr(operation)), operation


def _applied(
    name: str, operation: BatchOperation, views: np.ndarray, labels: np.ndarray, key: int
) -> tuple[np.ndarray, np.ndarray]:
    shapes = views.shape, labels.shape
    try:
        result = operation(views, labels, key)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"The batch operation {name} failed ({type(error).__name__}: {told(error)}). Received: views "
            f"{list(shapes[0])}; mend the operation, or take it out."
        ) from error
    if not isinstance(result, tuple) or len(result) != 2:
        raise InputError(
            f"A batch operation returns (views, labels). Received: {type(result).__name__} from {name}; a tuple of the "
            "two would work."
        )
    arrays = tuple(np.asarray(array) for array in result)
    if any(array.dtype.kind not in "fiu" for array in arrays):
        raise InputError(
            f"A batch operation returns numbers. Received: {arrays[0].dtype} and {arrays[1].dtype} from {name}; "
            "float32 would work."
        )
    arrays = tuple(np.require(array, np.float32, "CW") for array in arrays)
    if (received := tuple(array.shape for array in arrays)) != shapes:
        raise InputError(
            f"A batch operation keeps the shapes of views and labels. Received: {received[0]} and {received[1]} from "
            f"{name}; {shapes[0]} and {shapes[1]} would work."
        )
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError(f"A batch operation returns finite numbers. Received: NaN or infinity from {name}; mend it.")
    return arrays
