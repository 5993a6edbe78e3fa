"""What an update needs to treat branches on several devices as it would those in one block."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from divco_tf import compat
from divco_tf.errors import InputError
from divco_tf.models import placement

_WHOLE_VARIABLES = (keras.optimizers.Adafactor, keras.optimizers.Lamb, keras.optimizers.Muon)
"""Optimizers whose update of an entry depends on the others of its variable."""

_CALLS = frozenset({"If", "StatelessIf", "While", "StatelessWhile", "PartitionedCall", "StatefulPartitionedCall"})


def prepare_for_blocks(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes `optimizer` fit variables that lie in blocks on several devices.

    It updates them one by one, and Keras's files hold its state as that of a stack in one block, so that they load
    anywhere. `beside_inputs` belongs around its `apply`.

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


@contextlib.contextmanager
def beside_inputs() -> Iterator[None]:
    """Operations made inside compute where the largest of their inputs lies, so that only small ones travel.

    For the updates, whose operations are made by optimizers that know of no devices. Not around a branch: its function
    is traced once, for all devices. When executing eagerly nothing is changed.
    """
    if tf.executing_eagerly():
        yield
        return
    with tf.compat.v1.device(_BesideInputs().device_of):
        yield


class _BesideInputs:
    """Finds an operation's device; devices of what a function took in from outside are looked up there."""

    def __init__(self) -> None:
        self._origins: dict[int, Any] = {}  # of placeholders inside of functions: what they stand for outside
        self._kept: list[Any] = []  # a placeholder's id is not given away as long as it lives

    def device_of(self, operation: tf.Operation) -> str:
        """The device of the largest input; "" where none has one."""
        if operation.device or operation.type in _CALLS:
            return operation.device
        placed = [(_size(tensor), device) for tensor in operation.inputs if (device := self._device(tensor))]
        return max(placed, key=lambda pair: pair[0], default=(0, ""))[1]

    def _device(self, tensor: Any) -> str:
        while not tensor.device:
            if tensor.op.type == "ReadVariableOp":  # which no device function is asked about: it goes to its variable
                tensor = tensor.op.inputs[0]
            elif tensor.op.type == "Placeholder" and (outside := self._outside(tensor)) is not None:
                tensor = outside
            else:
                return ""
        return tensor.device

    def _outside(self, placeholder: tf.Tensor) -> Any:
        """What a function's placeholder stands for; the newest captures are looked at first, and each once."""
        captures = placeholder.graph.function_captures
        for key in reversed(captures.by_val_internal):
            inside = captures.by_val_internal[key]
            if id(inside) in self._origins:
                break
            self._origins[id(inside)] = captures.by_val_external[key]
            self._kept.append(inside)
        return self._origins.get(id(placeholder))


def _size(tensor: tf.Tensor) -> int:
    """Bytes; a variable's handle counts as what it holds may."""
    if tensor.dtype == tf.resource:
        return 2**62
    return (tensor.shape.num_elements() or 0) * tensor.dtype.size
