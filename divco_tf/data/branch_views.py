"""The views of an image: one a branch, by the branch's own policy or by one for all."""

from collections.abc import Sequence

import numpy as np

from divco_tf.data.checks import check_images
from divco_tf.data.decoding import Box
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import ArraySource, Source
from divco_tf.data.sources.checked import named, read_batch, read_image
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.policies import ViewPolicy


class BranchViews:
    """Makes the views of a source's images.

    Args:
      source: of the images.
      policies: one for all branches, or one each; all of them cut views out of the stored image, or none.
      preprocessing: whose normalisation views have.
    """

    def __init__(self, source: Source, policies: Sequence[ViewPolicy], preprocessing: Preprocessing) -> None:
        self._source = source
        self._makers = [ViewMaker(policy, mean=preprocessing.mean, std=preprocessing.std) for policy in policies]

    @property
    def take_batches(self) -> bool:
        """Whether `fill_batch` serves; otherwise images are read one by one, by `fill`."""
        return isinstance(self._source, ArraySource) and not self._makers[0].needs_stored

    def fill_batch(self, indices: np.ndarray, keys: np.ndarray, views: np.ndarray) -> None:
        """Makes the views of the images at `indices`.

        Args:
          indices: int64 [n].
          keys: uint64 [n, S].
          views: float32 [n, S, H, W, 3], written.
        """
        self._make(read_batch(self._source, indices), keys, views)

    def fill(self, index: int, keys: np.ndarray, views: np.ndarray) -> None:
        """Makes the views float32 [S, H, W, 3] (written) of the image at `index`, with `keys` uint64 [S].

        Raises:
          BadImage: it cannot be read.
        """
        if self._makers[0].needs_stored:
            self._fill_from_stored(index, keys, views)
        else:
            self._make(read_image(self._source, index)[None], keys[None], views[None])

    def boxes(self, keys: np.ndarray, height: int, width: int) -> list[Box]:
        """The parts of a stored image of these pixels that its views, of `keys` uint64 [S], show."""
        return [self._maker(branch).box(key, height, width) for branch, key in enumerate(keys)]

    def drawn(self, key: np.uint64, branch: int) -> list[tuple[str, float]]:
        """The operations, with their arguments, that are drawn for a branch's view of a key."""
        return self._maker(branch).drawn(key)

    def _maker(self, branch: int) -> ViewMaker:
        return self._makers[branch if len(self._makers) > 1 else 0]

    def _make(self, images: np.ndarray, keys: np.ndarray, views: np.ndarray) -> None:
        if len(self._makers) == 1:
            self._makers[0](images, keys, views)
            return
        for branch, maker in enumerate(self._makers):
            maker(images, keys[:, branch : branch + 1], views[:, branch : branch + 1])

    def _fill_from_stored(self, index: int, keys: np.ndarray, views: np.ndarray) -> None:
        boxes: list[Box] = []

        def choose(height: int, width: int) -> Box:
            boxes[:] = self.boxes(keys, height, width)
            return union(boxes)

        region = self._source.read_region(index, choose)
        top, left, *size = union(boxes)
        check_images(region, (*size, 3), of=named(self._source))
        for branch, (y, x, height, width) in enumerate(boxes):
            self._maker(branch).from_region(region, (y - top, x - left, height, width), keys[branch], views[branch])


def union(boxes: Sequence[Box]) -> Box:
    """The smallest box around boxes."""
    top, left = min(box[0] for box in boxes), min(box[1] for box in boxes)
    bottom, right = max(box[0] + box[2] for box in boxes), max(box[1] + box[3] for box in boxes)
    return top, left, bottom - top, right - left
