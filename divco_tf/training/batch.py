"""A batch as users give it: images, labels and sample weights; what does not fit is refused in one line."""

from typing import Any

import keras
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.refusals import refuse_unless

_TOLERANCE = 1e-2
"""How far a row of probabilities may be from a sum of 1: float16's rounding and a user's two digits are nearer."""


def unpacked(data: Any, *, num_classes: int) -> tuple[tf.Tensor, Any, tf.Tensor, tf.Tensor | None]:
    """Images or views, labels as given, labels as probabilities [B, K], sample weights [B] if there are any.

    Args:
      data: what Keras hands to a step: images, (images, labels) or (images, labels, sample weights).
      num_classes: K.

    Raises:
      InputError: another form, see `one_array`, `as_probabilities` and `as_weights`.
    """
    images, labels, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    images = one_array(images)
    examples = length(images)
    targets = as_probabilities(labels, num_classes=num_classes, examples=examples)
    return images, labels, targets, as_weights(sample_weight, examples=examples)


def one_array(images: Any) -> tf.Tensor:
    """Images or views as a tensor.

    Raises:
      InputError: several arrays.
    """
    if isinstance(images, dict | list | tuple):
        raise InputError(
            f"Images are several arrays. Received: a {type(images).__name__} of {len(images)}; pass one, views "
            "[B, S, H, W, C] (np.stack(views, axis=1), say) or images [B, H, W, C]."
        )
    return tf.convert_to_tensor(images)


def as_probabilities(labels: Any, *, num_classes: int, examples: int | tf.Tensor) -> tf.Tensor:
    """Labels in any form -> probabilities float32 [B, K].

    Args:
      labels: class numbers [B] or [B, 1], integers; or probabilities [B, K], as floats, integers or bools (one-hot).
      num_classes: K.
      examples: B, a scalar (`length`).

    Raises:
      InputError: another form. Values and sizes that are known in a graph only end it with an error, which
        `models.refusals.told_in_one_line` tells likewise.
    """
    fits = f"pass class numbers 0 to {num_classes - 1} as integers [B], or probabilities [B, {num_classes}]"
    if labels is None:
        raise InputError(f"There are no labels. Received: images alone; {fits}.")
    try:
        labels = tf.convert_to_tensor(labels)
    except (TypeError, ValueError) as error:
        raise InputError(f"Labels are no array of numbers. Received: {type(labels).__name__}; {fits}.") from error
    told = f"Received: labels {labels.dtype.name} {labels.shape}, K = {num_classes}; {fits}."
    whole = labels.dtype.is_integer or labels.dtype.is_bool
    if not whole and not labels.dtype.is_floating:
        raise InputError(f"Labels are no numbers. {told}")
    rank, columns = labels.shape.rank, None if not labels.shape.rank else labels.shape[-1]
    if rank not in (None, 1, 2) or (rank == 2 and columns not in (None, 1, num_classes)):
        raise InputError(f"Labels and logits do not fit. {told}")
    numbers = rank == 1 or (columns == 1 and num_classes > 1)
    if numbers and not whole:
        raise InputError(f"Class numbers are integers (labels.astype('int32')); regression is none. {told}")
    if numbers:
        return _one_hot(labels, num_classes, examples)
    if columns == num_classes:
        return _checked_rows(labels, examples)
    return _of_unknown_form(labels, num_classes, examples, whole=whole, fits=fits)


def as_weights(sample_weight: Any, *, examples: int | tf.Tensor) -> tf.Tensor | None:
    """Sample weights [B] or [B, 1] -> float32 [B]; None stays None.

    Raises:
      InputError: another form.
    """
    if sample_weight is None:
        return None
    weight = tf.convert_to_tensor(sample_weight)
    shape, number = weight.shape, weight.dtype.is_floating or weight.dtype.is_integer or weight.dtype.is_bool
    if not number or shape.rank not in (None, 1, 2) or (shape.rank == 2 and shape[1] not in (None, 1)):
        raise InputError(
            f"Sample weights do not fit. Received: {weight.dtype.name} {shape}; pass one number an example, [B]."
        )
    size = tf.size(weight) if shape.num_elements() is None else shape.num_elements()
    fits = refuse_unless(
        size == examples,
        "Sample weights do not fit the images. Received: sizes",
        [size, examples],
        "(weights, images); pass one number an example, [B].",
    )
    with tf.control_dependencies([fits]):
        return tf.cast(tf.reshape(weight, [-1]), tf.float32)


def _one_hot(labels: tf.Tensor, num_classes: int, examples: int | tf.Tensor) -> tf.Tensor:
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int64)
    good = (labels >= 0) & (labels < num_classes)
    checks = [
        _check_count(labels, examples),
        refuse_unless(
            tf.reduce_all(good),
            "A label is no class. Received: label",
            tf.boolean_mask(labels, ~good)[:1],
            f"of K = {num_classes} classes; pass class numbers 0 to {num_classes - 1} (of 1 to K, labels - 1).",
        ),
    ]
    with tf.control_dependencies(checks):  # tf.one_hot makes zeros of what is out of range
        return tf.one_hot(labels, num_classes)


def _checked_rows(labels: tf.Tensor, examples: int | tf.Tensor) -> tf.Tensor:
    rows = tf.cast(labels, tf.float32)
    good = tf.reduce_all(rows >= 0, axis=1) & (tf.abs(tf.reduce_sum(rows, axis=1) - 1) <= _TOLERANCE)  # NaN is not
    checks = [
        _check_count(rows, examples),
        refuse_unless(
            tf.reduce_all(good),
            "A row of labels is no distribution over the classes. Received: row",
            tf.boolean_mask(rows, ~good)[:1],
            f"where K = {rows.shape[1]}; pass rows of 0 or more that sum to 1, one-hot ones, say (one class an image).",
        ),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(rows)


def _of_unknown_form(
    labels: tf.Tensor, num_classes: int, examples: int | tf.Tensor, *, whole: bool, fits: str
) -> tf.Tensor:
    """Where a graph is for several shapes: Keras relaxes those of a function that was called with different ones."""
    rank = tf.rank(labels)
    last = tf.shape(labels)[-1:]
    columns = tf.reduce_sum(tf.where(rank == 2, last, tf.ones_like(last)))
    known = (columns == num_classes) | ((columns == 1) & whole)
    fitting = refuse_unless(
        ((rank == 1) | (rank == 2)) & known,
        "Labels and logits do not fit. Received: labels of shape",
        tf.shape(labels),
        f"{labels.dtype.name}; {fits}.",
    )
    with tf.control_dependencies([fitting]):
        labels = tf.identity(labels)

    def rows() -> tf.Tensor:
        return _checked_rows(tf.reshape(labels, [-1, num_classes]), examples)

    if not whole:
        return rows()
    return tf.cond(columns == num_classes, rows, lambda: _one_hot(labels, num_classes, examples))


def length(batch: tf.Tensor) -> int | tf.Tensor:
    """How many examples a batch has, as a number where that is known."""
    return batch.shape[0] if batch.shape.rank and batch.shape[0] is not None else tf.shape(batch)[0]


def _check_count(labels: tf.Tensor, examples: int | tf.Tensor) -> Any:
    return refuse_unless(
        length(labels) == examples,
        "Labels do not fit the images. Received: sizes",
        [length(labels), examples],
        "(labels, images); pass a label an image.",
    )
