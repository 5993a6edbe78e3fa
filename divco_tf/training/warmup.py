"""How long a warm-up is, in epochs or in steps, and how short it may be."""

from divco_tf.errors import InputError

SHORTEST_WARMUP = 1e-3
"""Epochs: TensorFlow flushes numbers near 0, and a warm-up of 1e-309 epochs would be 0 / 0."""


def check_warmup(epochs: float, steps: int | None = None) -> None:
    """Refuses a warm-up that is too short to be computed with, or has two lengths.

    Raises:
      InputError: as said.
    """
    if 0 < epochs < SHORTEST_WARMUP:
        raise InputError(f"The warm-up is too short. Received: {epochs} epochs; pass 0 or {SHORTEST_WARMUP} and more.")
    if epochs and steps is not None:
        raise InputError(
            f"A warm-up has one length. Received: warmup_epochs={epochs}, warmup_steps={steps}; warmup_epochs=0 would "
            "work."
        )


def warmup_steps(epochs: float, steps: int | None, *, steps_per_epoch: int) -> float:
    """The length of a warm-up in steps."""
    return epochs * steps_per_epoch if steps is None else steps
