"""Images for the tests."""

import io
import pathlib

import numpy as np
from PIL import Image


def photograph(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """Smooth areas, edges and some noise, as a photograph has them."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    smooth[height // 3 : height // 2] = 250
    return Image.fromarray(np.clip(smooth + generator.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8))


def image_folder(root: pathlib.Path, *, classes: int = 3, images: int = 12) -> pathlib.Path:
    """A folder with a subfolder a class, of JPEG and PNG files of several sizes."""
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(images):
            suffix = "png" if number % 3 == 0 else "jpg"
            image = photograph(20 + number, 31 - number, seed=100 * label + number)
            image.save(root / f"class{label}" / f"{number}.{suffix}")
    return root


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    """The bytes of a file that Pillow would write."""
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()
