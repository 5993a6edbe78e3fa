"""Which images make up a batch: a random order of all of them each epoch, a function of the seed."""

from collections.abc import Iterator

import numpy as np

from divco_tf.data import draws
from divco_tf.data.views.kernels.random_numbers import shuffled
from divco_tf.errors import InputError

ORDER = 2  # by which images follow each other, and are mixed; 1, of 0.1.0, was of numpy's generators


class Order:
    """The order of a run's images, cut into batches; the remainder of an epoch is dropped.

    Args:
      seed: of the run.
      images: N, how many there are.
      batch_size: B, N at most.
    """

    def __init__(self, *, seed: int, images: int, batch_size: int) -> None:
        self._key = draws.fold(draws.ORDER, seed)
        self._images, self._batch_size = images, batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Full batches an epoch: floor(N / B)."""
        return self._images // self._batch_size

    def batch(self, step: int) -> np.ndarray:
        """The images of a batch, int64 [B]; each at most once an epoch.

        Raises:
          InputError: the step is no number from 0 on.
        """
        epoch, start = self._place(step)
        return self._images_at(epoch, start, start + self._batch_size)

    def from_position(self, step: int, position: int) -> Iterator[int]:
        """The image at a position of a batch, then all others of the epoch in their order, the first behind the last.

        Raises:
          InputError: the step is no number from 0 on.
        """
        epoch, start = self._place(step)
        for place in range(start + position, start + position + self._images):
            place %= self._images
            yield int(self._images_at(epoch, place, place + 1)[0])

    def _place(self, step: int) -> tuple[int, int]:
        check_step(step)
        epoch, batch = divmod(step, self.steps_per_epoch)
        return epoch, batch * self._batch_size

    def _images_at(self, epoch: int, start: int, stop: int) -> np.ndarray:
        return shuffled(draws.fold(self._key, epoch), size=self._images, start=start, stop=stop)


def check_step(step: int) -> None:
    """Refuses what is no step.

    Raises:
      InputError: it is no number from 0 on.
    """
    if not isinstance(step, int | np.integer) or step < 0:
        raise InputError(f"Steps count from 0. Received: {step}.")
