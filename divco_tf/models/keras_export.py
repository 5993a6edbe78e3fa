"""Keras's SavedModel of a network that takes views and images alike."""

import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from divco_tf import compat


def export_saved_model(
    model: keras.Model, filepath: str | os.PathLike, *, shapes: Sequence[tuple], verbose: bool | None = None
) -> None:
    """As `keras.Model.export`, whose `serve` is traced for one shape only; here it takes several.

    Args:
      model: tracked, and called without training.
      filepath: where the SavedModel goes.
      shapes: of float32 inputs; the first one's is the signature serving_default.
      verbose: whether Keras tells of what it wrote.
    """

    def serve(images: tf.Tensor) -> Any:
        return model(images, training=False)

    traced = tf.function(serve, autograph=False)
    for shape in shapes:
        traced.get_concrete_function(tf.TensorSpec(shape, tf.float32, name="images"))
    archive = keras.export.ExportArchive()
    archive.track(model)
    compat.keep_when_loaded(archive)
    archive.add_endpoint("serve", traced)
    archive.write_out(filepath, verbose=True if verbose is None else verbose)
