"""How short a warm-up may be."""

from divco_tf.errors import InputError

SHORTEST_WARMUP = 1e-3
"""Epochs: TensorFlow flushes numbers near 0, and a warm-up of 1e-309 epochs would be 0 / 0."""


def check_warmup(epochs: float) -> None:
    """Refuses a warm-up that is too short to be computed with.

    Raises:
      InputError: as said.
    """
    if 0 < epochs < SHORTEST_WARMUP:
        raise InputError(f"The warm-up is too short. Received: {epochs} epochs; pass 0 or {SHORTEST_WARMUP} and more.")
