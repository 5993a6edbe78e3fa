"""Mixing of examples: mixup (arXiv 1710.09412) blends two, CutMix (arXiv 1905.04899) pastes a box of one on another."""

import dataclasses
import math

import numpy as np

from divco_tf import fields
from divco_tf.data.draws import MIXING, Draws, fold
from divco_tf.data.views.kernels.basic import mix
from divco_tf.data.views.kernels.random_numbers import shuffled
from divco_tf.errors import InputError

_KIND, _SHARE, _CENTRE, _PARTNERS = range(4)  # each is drawn from a key of its own


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What is drawn for a step: the same for all views of the global batch.

    Attributes:
      share: lambda, of an example itself in its mixture; CutMix's box has the area 1 - share before it is clipped.
      partners: int64 [B], the position in the global batch that each example is mixed with.
      centre: of CutMix's box, (vertical, horizontal) in 0..1; None is mixup.
    """

    share: float
    partners: np.ndarray
    centre: tuple[float, float] | None = None

    def positions(self, start: int, stop: int) -> np.ndarray:
        """Which positions of the global batch it takes to make [start, stop): int64, ascending, partners among them.

        Raises:
          InputError: the slice is empty or reaches beyond the batch.
        """
        if not 0 <= start < stop <= len(self.partners):
            raise InputError(
                f"A slice of the global batch has examples. Received: {start} to {stop} of {len(self.partners)}; 0 <= "
                "start < stop <= batch size would work."
            )
        return np.union1d(np.arange(start, stop), self.partners[start:stop])

    def box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """CutMix's box in an image of these pixels, clipped at the edges: top, bottom, left, right."""
        side = math.sqrt(1 - self.share)
        edges = []
        for centre, length in zip(self.centre, (height, width), strict=True):
            size = round(side * length)
            first = int(centre * length) - size // 2
            edges += [max(0, first), min(length, first + size)]
        return tuple(edges)

    def apply(
        self, views: np.ndarray, labels: np.ndarray, *, start: int = 0, stop: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mixed examples [start, stop) of the global batch, bit by bit as in the whole batch.

        Args:
          views: float32 [M, S, H, W, 3], of the M positions that `positions(start, stop)` names, in that order.
          labels: float32 [M, K], one-hot or soft, of the same.
          start: position in the global batch.
          stop: likewise; None is the end.

        Returns:
          Views float32 [stop - start, S, H, W, 3], labels float32 [stop - start, K].

        Raises:
          InputError: the views are others than those positions, or there is no such slice.
        """
        stop = len(self.partners) if stop is None else stop
        positions = self.positions(start, stop)
        if not len(views) == len(labels) == len(positions):
            raise InputError(
                f"Mixing the examples {start} to {stop} takes them and their partners. Received: {len(views)} views, "
                f"{len(labels)} labels; the {len(positions)} that positions({start}, {stop}) names would work."
            )
        first = np.searchsorted(positions, start)
        own = slice(first, first + stop - start)
        partners = np.arange(len(positions))  # partners that are there on behalf of others only stay as they are
        partners[own] = np.searchsorted(positions, self.partners[start:stop])
        if self.centre is None:
            return mix(views, partners, self.share)[own], mix(labels, partners, self.share)[own]
        height, width = views.shape[2:4]
        top, bottom, left, right = self.box(height, width)
        mixed = views[own].copy()
        mixed[:, :, top:bottom, left:right] = views[:, :, top:bottom, left:right][partners[own]]
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, mix(labels, partners, share)[own]


@dataclasses.dataclass(frozen=True)
class Mixing:
    """How the examples of a batch are mixed: one share and one permutation for the whole global batch, each step.

    Attributes:
      mixup_alpha: of mixup's Beta distribution; 0 is off. The paper's is 0.2.
      cutmix_alpha: of CutMix's; 0 is off. With both, a step is the one or the other with probability 1/2, as in timm.
      block: partners come from the same block of so many consecutive positions; None is the whole batch. A host whose
        slice of the batch is made of whole blocks needs no other host's images.

    Raises:
      InputError: an alpha is negative, or a block without examples.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    block: int | None = None

    def __post_init__(self) -> None:
        fields.check(self)
        for name in ("mixup_alpha", "cutmix_alpha"):
            alpha = getattr(self, name)
            if alpha < 0:
                raise InputError(f"{name} is not negative. Received: {alpha}; 0.2, or 0 for none, would work.")
        if self.block is not None and self.block < 1:
            raise InputError(f"A block has examples. Received: block={self.block}; 1 or more, or None, would work.")

    def __bool__(self) -> bool:
        """Whether anything is mixed at all."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0

    def check_batch(self, batch_size: int) -> None:
        """Refuses a global batch that is not made of whole blocks.

        Raises:
          InputError: the block does not divide the batch.
        """
        if self.block is not None and batch_size % self.block:
            fitting = [size for size in range(1, self.block) if batch_size % size == 0]
            raise InputError(
                f"Blocks of mixing fill the global batch. Received: block={self.block} for a batch of {batch_size}; "
                f"{fitting[-1] if fitting else 1}, or another divisor, would work."
            )

    def draw(self, *, seed: int, step: int, batch_size: int) -> Mixture | None:
        """What is drawn for a step: a function of these numbers, made by every host alike. None: nothing is mixed.

        Raises:
          InputError: the block does not divide the batch.
        """
        self.check_batch(batch_size)
        if not self:
            return None
        key = fold(MIXING, seed, step)
        cutmix = self.cutmix_alpha > 0 and (self.mixup_alpha == 0 or Draws(fold(key, _KIND)).uniform() < 0.5)
        alpha = self.cutmix_alpha if cutmix else self.mixup_alpha
        share = Draws(fold(key, _SHARE)).beta(alpha)
        block = self.block or batch_size
        partners = [start + shuffled(fold(key, _PARTNERS, start), size=block) for start in range(0, batch_size, block)]
        centre = Draws(fold(key, _CENTRE))
        return Mixture(share, np.concatenate(partners), (centre.uniform(), centre.uniform()) if cutmix else None)
