"""What is shown where an image cannot be read: the next one of the epoch that can."""

from collections.abc import Callable
from typing import Any

from divco_tf.data.order import Order
from divco_tf.data.sources import BadImage
from divco_tf.errors import InputError


class FirstGood:
    """Finds the image at a place of the order or, if that is bad and may be skipped, the next good one.

    Args:
      order: of the images.
      skips: whether bad images are skipped.

    Attributes:
      replaced: why an image could not be read, by its index.
    """

    def __init__(self, order: Order, *, skips: bool) -> None:
        self._order, self._skips = order, skips
        self.replaced: dict[int, str] = {}

    def __call__(self, step: int, position: int, read: Callable[[int], Any]) -> tuple[int, Any]:
        """Which image is shown at a position of a batch, and what `read` makes of its index.

        Raises:
          BadImage: it cannot be read, and bad ones are not skipped.
          InputError: there is no good one in the epoch.
        """
        bad = 0
        for index in self._order.from_position(step, position):
            try:
                return index, read(index)
            except BadImage as error:
                if not self._skips:
                    raise
                self.replaced[index] = str(error)
                bad += 1
        raise InputError(f"No image of the epoch can be read. Received: {bad} bad ones; mend the data.")
