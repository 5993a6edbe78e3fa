"""The views of a batch: a policy turned into calls of kernels, one pass a view from uint8 to normalised float32."""

import numpy as np

from divco_tf.data.checks import check_images
from divco_tf.data.decoding import Box, check_box
from divco_tf.data.views.augmentations import get_augmentation
from divco_tf.data.views.kernels import augment
from divco_tf.data.views.kernels.basic import crop_flip, erase, mirrored, normalise
from divco_tf.data.views.kernels.resize import BICUBIC, draw_box, resize
from divco_tf.data.views.kernels.view import fill_plain_views, fill_views
from divco_tf.data.views.operations import BUILT_IN, OWN
from divco_tf.data.views.policies import ViewPolicy
from divco_tf.data.views.schema import RESAMPLINGS, ROUNDINGS, Augmentation, Range, Step
from divco_tf.errors import InputError


class ViewMaker:
    """Makes views as a policy says.

    Args:
      policy: what is drawn.
      mean: of RGB in 0..1; padding is black before normalisation, erasing fills 0 after it.
      std: likewise.
    """

    def __init__(
        self, policy: ViewPolicy, *, mean: tuple[float, float, float], std: tuple[float, float, float]
    ) -> None:
        self.policy = policy
        erasing = policy.erasing
        ranges = (0.0,) * 5 if erasing is None else (erasing.probability, *erasing.area, *erasing.aspect)
        self._erasing = np.array(ranges, np.float64)
        self._scale = 1 / (255 * np.asarray(std, np.float64))
        self._shift = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)
        self._own: list[str] = []  # names of the user's operations, by code from len(BUILT_IN) on
        self._tables = [self._encoded(get_augmentation(name)) for name in policy.augment]

    def __call__(self, images: np.ndarray, keys: np.ndarray, views: np.ndarray | None = None) -> np.ndarray:
        """The views of a batch of images of the views' size.

        Args:
          images: uint8 [B, H, W, 3], RGB.
          keys: uint64 [B, S], see `random_numbers.view_keys`.
          views: where to write them.

        Returns:
          float32 [B, S, H, W, 3].

        Raises:
          InputError: the images are none, the padding is too wide for them, or an operation of the user's fails.
        """
        check_images(images, (len(keys), None, None, 3), of="the caller")
        self.policy.check_size(*images.shape[1:3])
        images = np.require(images, np.uint8, "CW")  # a read-only or strided array would be another type to numba
        keys = np.require(keys, np.uint64, "CW")
        made = (
            np.empty((*keys.shape, *images.shape[1:]), np.float32) if views is None else np.require(views, None, "CW")
        )
        scale, shift = self._rows(images.shape[2])
        if not self._own and len(self._tables) <= 1:
            places, rest = (images, keys, self.policy.pad, self.policy.flip), (self._erasing, scale, shift, made)
            if self._tables:
                fill_views(*places, *self._tables[0], *rest)
            else:
                fill_plain_views(*places, *rest)
        else:
            for position, branch in np.ndindex(keys.shape):
                key = keys[position, branch]
                cropped = np.empty(images.shape[1:], np.uint8)
                crop_flip(images[position], cropped, key, self.policy.pad, self.policy.flip)
                self._finish(cropped, key, made[position, branch])
        if views is not None and not np.shares_memory(made, views):
            views[...] = made
        return made

    @property
    def needs_stored(self) -> bool:
        """Whether views are cut out of the stored image: made by `box` and `from_region`, not by calling this."""
        return self.policy.resized_crop is not None

    def box(self, key: np.uint64, height: int, width: int) -> Box:
        """The part of a stored image of these pixels that the view of `key` shows."""
        crop = self.policy.resized_crop
        return draw_box(key, height, width, *map(float, crop.area), *map(float, crop.aspect))

    def from_region(self, region: np.ndarray, box: Box, key: np.uint64, view: np.ndarray) -> None:
        """Makes the view of `key` from what its box holds.

        Args:
          region: uint8 [h, w, 3], RGB, C-contiguous: a part of the stored image.
          box: the view's, in the region's pixels.
          key: uint64.
          view: float32 [H, W, 3], C-contiguous: written.

        Raises:
          InputError: the region is no image, the box is not inside of it, or an operation of the user's fails.
        """
        check_images(region, (None, None, 3), of="the caller")
        check_box(box, *region.shape[:2])
        region = np.require(region, np.uint8, "CW")
        cropped = np.empty(view.shape, np.uint8)
        resize(region, tuple(map(int, box)), self.policy.flip and bool(mirrored(key)), BICUBIC, cropped)
        self._finish(cropped, key, view)

    def _finish(self, image: np.ndarray, key: np.uint64, view: np.ndarray) -> None:
        """From the crop to the view."""
        normalise(self._augmented(image, key), view, *self._rows(image.shape[1]))
        erase(view, key, self._erasing)

    def drawn(self, key: np.uint64) -> list[tuple[str, float]]:
        """The operations, with their arguments, that the policy's augmentations draw for the view of a key."""
        records = (record for place in range(len(self._tables)) for record in self._records(key, place))
        return [(self._name(int(code)), float(argument)) for code, argument, *_ in records]

    def _augmented(self, image: np.ndarray, key: np.uint64) -> np.ndarray:
        """The same as the kernel does, an operation at a time: with several tables, or the user's operations."""
        counts, levels = np.empty((3, 256), np.int64), np.empty((3, 256), np.uint8)
        for place in range(len(self._tables)):
            for number, record in enumerate(self._records(key, place)):
                code = int(record[0])
                if code < len(BUILT_IN):
                    view = np.empty_like(image)
                    augment.apply_step(record, image, view, counts, levels)
                    image = view
                else:
                    image = _checked(self._name(code), image, augment.own_key(key, place, number))
        return image

    def _records(self, key: np.uint64, place: int) -> np.ndarray:
        table, draws = self._tables[place]
        records = np.empty((draws * table.shape[1], augment.RECORD))
        return records[: augment.draw_steps(key, place, table, draws, records)]

    def _name(self, code: int) -> str:
        return BUILT_IN[code] if code < len(BUILT_IN) else self._own[code - len(BUILT_IN)]

    def _rows(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        return np.tile(self._scale, width).astype(np.float32), np.tile(self._shift, width).astype(np.float32)

    def _encoded(self, augmentation: Augmentation) -> tuple[np.ndarray, int]:
        """An augmentation as the kernels have it: the table, and the number of draws."""
        longest = max(map(len, augmentation.sub_policies))
        table = np.full((len(augmentation.sub_policies), max(longest, 1), augment.COLUMNS), -1.0)
        for sub_policy, rows in zip(augmentation.sub_policies, table, strict=True):
            for step, row in zip(sub_policy, rows, strict=False):
                row[:] = self._encoded_step(step, augmentation)
        return table, augmentation.draws

    def _encoded_step(self, step: Step, augmentation: Augmentation) -> tuple[float, ...]:
        if step.operation in BUILT_IN:
            code = BUILT_IN.index(step.operation)
        else:
            if step.operation not in self._own:
                self._own.append(step.operation)
            code = len(BUILT_IN) + self._own.index(step.operation)
        space = augmentation.space
        span = space.ranges.get(step.operation, Range())
        return (
            code,
            step.probability,
            span.low,
            span.high,
            space.top,
            augment.UNIFORM_LEVEL if step.level is None else step.level,
            step.std,
            span.signed,
            span.offset,
            ROUNDINGS.index(span.rounding),
            sum(1 << RESAMPLINGS.index(name) for name in span.resampling),
            *space.fill,
        )


def _checked(name: str, image: np.ndarray, key: int) -> np.ndarray:
    """What an operation of the user's makes of an image."""
    shape = image.shape
    try:
        view = OWN.get(name)(image, key)
    except Exception as error:
        raise InputError(
            f"The operation {name} failed ({type(error).__name__}: {' '.join(str(error).split())}). Received: an image "
            f"of {list(shape)}; mend the operation, or take it out of the policy."
        ) from error
    if not isinstance(view, np.ndarray) or view.dtype != np.uint8 or view.shape != shape:
        got = f"{view.dtype} {list(view.shape)}" if isinstance(view, np.ndarray) else type(view).__name__
        raise InputError(
            f"The operation {name} did not return an image of its shape. Received: {got} for {list(shape)}; "
            "uint8 of the same shape would work."
        )
    return np.array(view, order="C")  # the next operation may write into it, and this one may keep what it returned
