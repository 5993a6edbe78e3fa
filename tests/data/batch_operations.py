"""Batches of noise, and operations on them, for tests."""

import numpy as np

from divco_tf.data.batch_runner import BatchOperations

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.201)
SIZE = 18  # KerasCV's Equalization changes nothing below 255 pixels


def pixels(size: int = 8, split: int = 2, side: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (size, split, side, side, 3)).astype(np.float32)


def normalised(values: np.ndarray) -> np.ndarray:
    scale, shift = 1 / (255 * np.array(STD)), -np.array(MEAN) / STD
    return values * scale.astype(np.float32) + shift.astype(np.float32)


def labels(size: int = 8) -> np.ndarray:
    return np.eye(size, 3, dtype=np.float32)


def operations(*functions) -> BatchOperations:
    return BatchOperations(functions, image_size=SIZE, mean=MEAN, std=STD)
