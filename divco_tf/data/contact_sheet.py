"""Pictures of training views, for a human to look at."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from divco_tf.data.pipeline import ViewPipeline
from divco_tf.errors import InputError

_SMALLEST = 128  # pixels a side: below it, neither a view of 32 pixels nor a caption can be read
_PLAIN = {"identity", "auto_contrast", "equalize", "invert"}  # have no argument
_MARGIN, _LINE, _FONT = 6, 13, 11


def contact_sheet(pipeline: ViewPipeline, *, step: int = 0, images: int = 8) -> np.ndarray:
    """A row for each of the first images of a batch: the image, and its S views with what was drawn for them.

    Views are shown as they are before they are mixed and before batch operations; an erased rectangle, 0 after
    normalisation, has the data set's mean colour. Crops and mirroring are not named: they are seen.

    Args:
      pipeline: of the views.
      step: whose batch is shown.
      images: rows, at most the batch size.

    Returns:
      uint8 [height, width, 3], RGB.

    Raises:
      InputError: no rows are asked for, or an image cannot be read.
    """
    if images < 1:
        raise InputError(f"A sheet shows images. Received: images={images}; 1 or more would work.")
    rows = min(images, pipeline.batch_size)
    views, _ = pipeline.unmixed_at(step, np.arange(rows))
    views = pipeline.preprocessing.grey_levels(views)
    sheet = [
        _row(
            [pipeline.image_at(step, row), *views[row]],
            [[], *(_told(pipeline.drawn_at(step, row, branch)) for branch in range(views.shape[1]))],
        )
        for row in range(rows)
    ]
    return np.concatenate(sheet)


def _told(drawn: list[tuple[str, float]]) -> list[str]:
    return [name if name in _PLAIN else f"{name} {argument:.3g}" for name, argument in drawn]


def _row(images: list[np.ndarray], captions: list[list[str]]) -> np.ndarray:
    """Images (uint8 [H, W, 3], of one size) side by side, each with its lines beneath."""
    scale = max(1, -(-_SMALLEST // images[0].shape[0]))
    side = scale * images[0].shape[0]
    font = ImageFont.load_default(_FONT)
    height = side + max(map(len, captions)) * _LINE
    row = Image.new("RGB", (len(images) * (side + _MARGIN) + _MARGIN, height + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(row)
    for column, (image, lines) in enumerate(zip(images, captions, strict=True)):
        left = _MARGIN + column * (side + _MARGIN)
        row.paste(Image.fromarray(image).resize((side, side), Image.Resampling.NEAREST), (left, _MARGIN))
        for number, line in enumerate(lines):
            draw.text((left, _MARGIN + side + number * _LINE), line, fill="black", font=font)
    return np.asarray(row)
