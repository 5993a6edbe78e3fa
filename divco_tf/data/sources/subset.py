"""A smaller training set: some of the images, about the same share of each class."""

import numpy as np

from divco_tf.data import draws
from divco_tf.data.views.kernels.random_numbers import shuffled
from divco_tf.errors import InputError


def stratified(labels: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Which images make up a subset, a function of the seed; those of a smaller one are among those of a larger one.

    Each class has its share within an image of it, and one image at least.

    Args:
      labels: int [N].
      count: how many images.
      seed: of the choice.

    Returns:
      Their places in ascending order, int64 [count].

    Raises:
      InputError: more images than there are, or fewer than classes.
    """
    classes = np.unique(labels)
    if not len(classes) <= count <= len(labels):
        raise InputError(
            f"So many training images cannot be chosen. Received: train_images={count} of {len(labels)} images of "
            f"{len(classes)} classes; {len(classes)} to {len(labels)} would work."
        )
    order = shuffled(draws.fold(draws.SUBSET, seed), size=len(labels))
    turn = np.empty(len(labels))  # at which share of its class an image comes in
    for label in classes:
        members = order[labels[order] == label]
        turn[members] = np.arange(len(members)) / len(members)
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels))
    return np.sort(np.lexsort((place, turn))[:count])
