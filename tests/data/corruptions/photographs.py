"""Photographs to corrupt."""

import functools

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image


@functools.cache
def photographs(count: int, side: int) -> np.ndarray:
    """Square parts of scikit-learn's two photographs, uint8 [count, side, side, 3]; not to be written into."""
    generator = np.random.default_rng(0)
    images = []
    for number in range(count):
        photograph = load_sample_image(("china.jpg", "flower.jpg")[number % 2])
        length = int(generator.integers(max(side, 120), 400))
        top, left = (int(generator.integers(0, whole - length + 1)) for whole in photograph.shape[:2])
        part = Image.fromarray(photograph[top : top + length, left : left + length])
        images.append(np.asarray(part.resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(images)


@functools.cache
def digits(count: int, side: int) -> np.ndarray:
    """Handwritten digits, enlarged: uint8 [count, side, side, 3]."""
    grey = (load_digits().images[:count] * (255 / 16)).astype(np.uint8)
    enlarged = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)) for image in grey]
    return np.repeat(np.stack(enlarged)[..., None], 3, axis=3)
