"""Operations on a whole batch of views: the user's, by name."""

from collections.abc import Callable

import numpy as np

from divco_tf.registry import Registry

BatchOperation = Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""`f(views, labels, key) -> (views, labels)`: float32 [B, S, H, W, 3], RGB in 0..255, and [B, K]; shapes stay.

The arrays are the function's own to change. `key` is in [0, 2**63): `np.random.default_rng(key)` draws the same for a
step each time. It is called from several threads at once.
"""

BATCH_OPERATIONS: Registry[BatchOperation] = Registry("batch operation", entry_points="divco_tf.batch_operations")


def register_batch_operation(name: str) -> Callable[[BatchOperation], BatchOperation]:
    """Decorates a batch operation: registers it under `name`.

    Raises:
      InputError: the name is taken.
    """

    def decorate(operation: BatchOperation) -> BatchOperation:
        BATCH_OPERATIONS.add(name, operation)
        return operation

    return decorate
