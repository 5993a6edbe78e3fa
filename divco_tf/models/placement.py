"""Where the branches of a stack lie: one block of stacked weights [S/D, *shape] on each of D devices.

Names: block 1 of 2 of the variable `stem.kernel` is called `block1of2.stem.kernel`.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.divide import check_split_factor

_BLOCK = re.compile(r"block(\d+)of\d+\.")
_CALLS = frozenset({"If", "StatelessIf", "While", "StatelessWhile", "PartitionedCall", "StatefulPartitionedCall"})


def usable_devices(split_factor: int, devices: Sequence[str]) -> tuple[str, ...]:
    """The first of `devices`, as many as S branches can be shared out evenly over.

    Args:
      split_factor: S.
      devices: names, all that there are.

    Returns:
      D names, D the largest number that divides S.

    Raises:
      InputError: no devices, or S is no positive whole number.
    """
    check_split_factor(split_factor)
    if not devices:
        raise InputError("Branches are placed on no device. Received: devices=[]; one would work.")
    number = max(number for number in range(1, len(devices) + 1) if split_factor % number == 0)
    return tuple(devices[:number])


def place_branches(split_factor: int, devices: Sequence[str]) -> list[str]:
    """The device of each of S branches, neighbours together: S=4 on 4 devices is one each, on 2 or 3 two on each of 2.

    Args:
      split_factor: S.
      devices: names, all that there are; see `usable_devices`.

    Raises:
      InputError: as `usable_devices`.
    """
    used = usable_devices(split_factor, devices)
    return [used[branch * len(used) // split_factor] for branch in range(split_factor)]


def check_devices(split_factor: int, devices: Sequence[str]) -> tuple[str, ...]:
    """TensorFlow's names of the devices that a stack of S branches is told to lie on.

    Args:
      split_factor: S.
      devices: D names: "GPU:1", "/device:GPU:1" or with job and task.

    Raises:
      InputError: D does not divide S, a name is unknown or comes twice, or a strategy has several replicas.
    """
    devices = [devices] if isinstance(devices, str) else list(devices)
    check_one_replica()
    if not devices or split_factor % len(devices):
        works = ", ".join(str(number) for number in range(1, split_factor + 1) if split_factor % number == 0)
        raise InputError(
            f"{split_factor} branches are not shared out evenly. Received: {len(devices)} devices; {works} would work."
        )
    logical = {_type_and_index(device.name): device.name for device in tf.config.list_logical_devices()}
    for device in devices:
        if _type_and_index(device) not in logical:
            raise InputError(f"No such device. Received: {device!r}; there are {', '.join(map(_short, logical))}.")
    names = tuple(logical[_type_and_index(device)] for device in devices)
    if len(set(names)) < len(names):
        raise InputError(f"A device is named twice. Received: {', '.join(devices)}; name each once.")
    return names


def check_one_replica() -> None:
    """Refuses branches on devices under a data-parallel strategy.

    Raises:
      InputError: as said.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1:  # MirroredStrategy ignores tf.device for variables (TensorFlow 2.21)
        raise InputError(
            f"Branches are placed on devices within one replica only. Received: a strategy of {replicas} replicas; "
            "leave out devices, or the strategy."
        )


def on_device(device: str | None) -> contextlib.AbstractContextManager:
    """`tf.device`, or nothing for None (which `tf.device` would take as leaving the devices around it)."""
    return contextlib.nullcontext() if device is None else tf.device(device)


def block_name(name: str, block: int, blocks: int) -> str:
    """What block `block` of `blocks` of the variable `name` is called; a single block is called as the variable."""
    return name if blocks == 1 else f"block{block}of{blocks}.{name}"


def canonical_name(name: str) -> str:
    """A variable's name or path as it is without placement: `block1of2.stem.kernel` is `stem.kernel`.

    Optimizers' variables have the names of the variables they belong to in theirs.
    """
    return _BLOCK.sub("", name, count=1)


def grouped_blocks(variables: Sequence[keras.Variable]) -> list[list[keras.Variable]]:
    """Variables of a stack or of its optimizer, blocks of one variable together and in order.

    Args:
      variables: in any order; those that are no blocks make groups of one.

    Returns:
      A list in the order, and of the length, that the unplaced stack's or its optimizer's variables have.
    """
    groups: dict[Any, dict[int, keras.Variable]] = {}
    for place, variable in enumerate(variables):
        found = _BLOCK.search(variable.path)
        group = groups.setdefault(canonical_name(variable.path) if found else place, {})
        group[int(found[1]) if found else 0] = variable
    return [[blocks[index] for index in sorted(blocks)] for blocks in groups.values()]


def merged_value(blocks: Sequence[keras.Variable]) -> np.ndarray:
    """The value of a variable that lies in `blocks`, as the unplaced stack has it."""
    return blocks[0].numpy() if len(blocks) == 1 else np.concatenate([block.numpy() for block in blocks])


def assign_merged(blocks: Sequence[keras.Variable], value: Any) -> None:
    """Writes a value as `merged_value` returns it into `blocks`."""
    if len(blocks) == 1:
        blocks[0].assign(value)
        return
    for block, part in zip(blocks, np.split(np.asarray(value), len(blocks)), strict=True):
        block.assign(part)


def run_block(
    function: Callable,
    weights: Sequence[tf.Tensor],
    statistics: Sequence[tf.Tensor],
    views: list[tf.Tensor],
    branch_draws: list[tf.Tensor],
    *,
    device: str | None,
    training: bool,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The branches of one block on its device, where the logits' gradients are computed too.

    Args:
      function: (weights, statistics, view, draw) -> (logits [B, K], new statistics) of one branch.
      weights, statistics: of the block, [S/D, *shape].
      views, branch_draws: of its S/D branches.
      device: its name; None: wherever TensorFlow puts it.
      training: a static bool.

    Returns:
      logits [B, S/D, K], new statistics (stacked).
    """

    def block(weights: Sequence[tf.Tensor], views: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Tensor]]:
        # unstack's gradient is one stack; slicing would pad each branch's gradient to full size and add S of them.
        unstacked_weights = [tf.unstack(weight, num=len(views)) for weight in weights]
        unstacked_statistics = [tf.unstack(statistic, num=len(views)) for statistic in statistics]
        outputs, updated = [], []
        for branch, (view, draw) in enumerate(zip(views, branch_draws, strict=True)):
            logits, new = function(
                [weight[branch] for weight in unstacked_weights],
                [statistic[branch] for statistic in unstacked_statistics],
                view,
                draw,
            )
            outputs.append(logits)
            updated.append(new)
        new_statistics = [tf.stack(values) for values in zip(*updated, strict=True)] if training else list(statistics)
        return tf.stack(outputs, axis=1), new_statistics

    if device is not None and training:
        return _differentiated_on(device, block, list(weights), views)
    with on_device(device):
        return block(weights, views)


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


def _differentiated_on(device: str, function: Callable, weights: list, views: list) -> tuple[tf.Tensor, list]:
    """(weights, views) -> (logits, statistics) on `device`, gradients of the logits included.

    A tape does not keep the devices of what it records (TensorFlow 2.21): left to itself, it would compute gradients
    on the first device, and fetch the weights for it.
    """
    count = len(weights)

    @tf.custom_gradient
    def placed(*inputs: tf.Tensor) -> tuple:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            logits, statistics = function(inputs[:count], inputs[count:])

        def gradient(upstream: tf.Tensor, *_: Any) -> list:
            with tf.device(device):
                return tape.gradient(logits, inputs, output_gradients=upstream, unconnected_gradients="zero")

        return (logits, *statistics), gradient

    with tf.device(device):
        logits, *statistics = placed(*weights, *views)
    return logits, statistics


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


def _type_and_index(device: str) -> tuple[str, int] | None:
    try:
        spec = tf.DeviceSpec.from_string(device if device.startswith("/") else f"/{device}")
    except (ValueError, AttributeError):
        return None
    return None if spec.device_type is None else (spec.device_type, spec.device_index or 0)


def _short(device: tuple[str, int]) -> str:
    return f"{device[0]}:{device[1]}"
