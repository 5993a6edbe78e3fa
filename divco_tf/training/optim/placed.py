"""What an optimizer needs to update branches on several devices as it would those in one block."""

import functools
from typing import Any

import keras
import tensorflow as tf

from divco_tf import compat
from divco_tf.errors import InputError
from divco_tf.models import placement

_WHOLE_VARIABLES = (keras.optimizers.Adafactor, keras.optimizers.Lamb, keras.optimizers.Muon)
"""Optimizers whose update of an entry depends on the others of its variable."""


def prepare_for_blocks(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes `optimizer` fit variables that lie in blocks on several devices.

    It updates them one by one, and Keras's files hold its state as that of a stack in one block, so that they load
    anywhere. `models.placement.beside_inputs` belongs around its `apply`.

    Args:
      optimizer: changed in place.

    Raises:
      InputError: it takes norms of whole variables, which would be those of blocks.
    """
    check_for_blocks(optimizer)
    inner = getattr(optimizer, "inner_optimizer", optimizer)

    # Keras's own hands all gradients to one operation, for replicas to sum, and reads the rate for each variable.
    def update(gradients: list, variables: list, learning_rate: Any) -> None:
        learning_rate = tf.convert_to_tensor(learning_rate)
        for gradient, variable in zip(gradients, variables, strict=True):
            inner.update_step(gradient, variable.value, learning_rate)

    compat.replace_update(inner, update)
    for each in {id(optimizer): optimizer, id(inner): inner}.values():
        each.save_own_variables = functools.partial(_save, each)
        each.load_own_variables = functools.partial(_load, each)


def check_for_blocks(optimizer: keras.optimizers.Optimizer) -> None:
    """Refuses an optimizer that takes norms of whole variables, which would be those of blocks.

    Raises:
      InputError: as said.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if inner.clipnorm is not None or isinstance(inner, _WHOLE_VARIABLES):
        what = type(inner).__name__ if inner.clipnorm is None else f"clipnorm={inner.clipnorm}"
        raise InputError(
            f"Norms of whole variables are not known where branches lie on several devices. Received: {what}; "
            "global_clipnorm, or an optimizer that works entry by entry, would do."
        )


def _save(optimizer: keras.optimizers.Optimizer, store: dict) -> None:
    for place, blocks in enumerate(placement.grouped_blocks(optimizer.variables)):
        store[str(place)] = placement.merged_value(blocks)


def _load(optimizer: keras.optimizers.Optimizer, store: dict) -> None:
    groups = placement.grouped_blocks(optimizer.variables)
    if len(store.keys()) != len(groups):
        raise InputError(f"The file is of another optimizer. Received: {len(store.keys())} values, not {len(groups)}.")
    for place, blocks in enumerate(groups):
        placement.assign_merged(blocks, store[str(place)])
