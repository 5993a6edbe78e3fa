"""Networks small enough for every test: `tiny` with batch normalisation, `tiny_no_norm` without."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from divco_tf.models import layers
from divco_tf.models.backbones.registry import BACKBONES, Backbone, register_backbones
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.models.divide import by_split, divided


@dataclasses.dataclass(frozen=True)
class TinySpec:
    """One convolution, halved in width for each doubling of S."""

    width: int = divided(lambda width, split_factor: max(width // split_factor, 1), width=1, default=8)
    norm: bool = True
    dropout: float = divided(by_split, regulariser=True, default=0.0)


TRACES: list[str] = []
"""Grows by one whenever a tiny network's layers are called: by Keras symbolically, and once a trace."""


class Traced(keras.layers.Layer):
    """Passes its input on and leaves a mark in TRACES."""

    def call(self, x: Any) -> Any:
        TRACES.append(self.name)
        return x


@register_backbones({"tiny": TinySpec(), "tiny_no_norm": TinySpec(norm=False)})
def tiny(spec: TinySpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, C] -> logits [B, num_classes]."""
    x = layers.conv(Traced(name="traced")(image), spec.width, 3, use_bias=not spec.norm, name="conv")
    if spec.norm:
        x = layers.norm(x, name="norm")
    x = layers.relu(x, name="relu")
    return layers.classifier(x, num_classes, dropout=spec.dropout, draw=draw)


def shipped_backbones() -> list[Backbone]:
    """Those of the package, without what tests and plugins register."""
    return [entry for entry in BACKBONES.entries() if type(entry.spec).__module__.startswith("divco_tf.")]


def tiny_stack(name: str = "tiny", **options: Any) -> BranchStack:
    """Two branches of a tiny network for 8x8 images of 3 classes, unless told otherwise."""
    return build(name, **{"split_factor": 2, "num_classes": 3, "input_shape": (8, 8, 3), "seed": 1, **options})


def lively(stack: BranchStack, seed: int = 0) -> BranchStack:
    """The stack with a classifier as large as its other layers: the initial one answers everything alike."""
    rng = np.random.default_rng(seed)
    for variable in stack.trainable_variables:
        if variable.name.startswith("fc.kernel"):
            variable.assign(0.5 * rng.standard_normal(variable.shape))
    return stack


def batch(
    size: int = 8, *, split_factor: int = 2, num_classes: int = 3, side: int = 8, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Views [size, S, side, side, 3], soft labels [size, K] as mixup makes them; both float32."""
    rng = np.random.default_rng(seed)
    views = rng.standard_normal((size, split_factor, side, side, 3)).astype(np.float32)
    one_hot = np.eye(num_classes, dtype=np.float32)[rng.integers(0, num_classes, size)]
    return views, 0.7 * one_hot + 0.3 * one_hot[::-1]


def values(variables: list) -> list[np.ndarray]:
    """Copies of the variables' values."""
    return [variable.numpy().copy() for variable in variables]


def largest_difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Over all entries of all arrays, absolute."""
    return max(float(np.max(np.abs(a - b))) for a, b in zip(one, other, strict=True))


def one_line(error: BaseException, *, says: Callable[[str], bool] | str) -> bool:
    """Whether the message is one line that says what was received and `says`."""
    text = str(error)
    said = says in text if isinstance(says, str) else says(text)
    return said and "\n" not in text and "Received: " in text
