"""Predictions as trained networks make them: right more often than not, sure, and sometimes equal."""

import numpy as np


def branches(seed: int, *shape: int, common: float = 1.0, skill: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities [N, S, K], whose branches have a part in `common`, and labels [N]."""
    num_images, _, num_classes = shape
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_images)
    logits = rng.normal(size=shape) + common * rng.normal(size=(num_images, 1, num_classes))
    logits += skill * (labels[:, np.newaxis, np.newaxis] == np.arange(num_classes))
    return logits - np.log(np.exp(logits).sum(axis=2, keepdims=True)), labels


def one_network(seed: int, *shape: int, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, K] and labels [N]; with few decimals, and so not summing to 1, many are equal."""
    logs, labels = branches(seed, shape[0], 1, shape[1])
    probabilities = np.exp(logs[:, 0])
    return probabilities if decimals is None else probabilities.round(decimals), labels
