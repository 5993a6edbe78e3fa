"""Mixup: every example of a batch is blended with another one (arXiv 1710.09412)."""

import numpy as np

from divco_tf.data.image_ops.basic import mix
from divco_tf.errors import InputError

_MIXUP = 2  # sets these draws apart from the permutation of an epoch


def draw_mixup(*, seed: int, step: int, batch_size: int, alpha: float) -> tuple[float, np.ndarray]:
    """What mixup draws for a step: one share and one permutation for the whole global batch.

    Returns:
      (lambda ~ Beta(alpha, alpha), the share of an example itself; partners, int64 [B]).

    Raises:
      InputError: alpha is not positive.
    """
    if not alpha > 0:
        raise InputError(f"Mixup's alpha is positive. Received: {alpha}; the paper's is 0.2, and 0 leaves mixup out.")
    generator = np.random.default_rng([seed % 2**64, _MIXUP, step])
    return float(generator.beta(alpha, alpha)), generator.permutation(batch_size)


def mixup(
    views: np.ndarray, labels: np.ndarray, *, seed: int, step: int, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mixup of a global batch, the same for all views of an example.

    Args:
      views: float32 [B, S, H, W, 3].
      labels: float32 [B, K], one-hot or soft.
      seed: of the run.
      step: of the batch; (seed, step) settle the draw.
      alpha: of the Beta distribution; 0 returns the arguments as they are.

    Returns:
      The mixed views and labels, of the same shapes.

    Raises:
      InputError: alpha is negative.
    """
    if alpha == 0:
        return views, labels
    share, partners = draw_mixup(seed=seed, step=step, batch_size=len(views), alpha=alpha)
    return mix(views, partners, share), mix(labels, partners, share)
