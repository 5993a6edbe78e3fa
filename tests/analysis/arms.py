"""Simulated arms: what S networks of the same kind get right."""

import numpy as np


def right_predictions(
    rng: np.random.Generator, *, seeds: int, images: int, arms: int, seed_points: float = 0.4
) -> list[np.ndarray]:
    """Bool [seeds, images] for each of arms that do not differ, about 0.89 right.

    Images are of many difficulties, which all arms and seeds share; a seed's accuracy has a standard deviation of
    `seed_points` hundredths beside the chance of each image.
    """
    difficulty = rng.normal(4.2, 3, size=images)
    slope = np.mean(_sigmoid(difficulty) * (1 - _sigmoid(difficulty)))
    seed_sd = seed_points / 100 / slope
    return [
        rng.random((seeds, images)) < _sigmoid(difficulty + seed_sd * rng.normal(size=(seeds, 1))) for _ in range(arms)
    ]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))
