"""Where the branches of a stack lie: one block of stacked weights [S/D, *shape] on each of D devices.

Names: block 1 of 2 of the variable `stem.kernel` is called `block1of2.stem.kernel`.
"""

import contextlib
import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.divide import check_split_factor

_BLOCK = re.compile(r"block(\d+)of\d+\.")


@dataclasses.dataclass(frozen=True)
class Blocks:
    """S branches in D blocks of S/D neighbours.

    Attributes:
      split_factor: S.
      devices: of each block; None: wherever TensorFlow puts it.
    """

    split_factor: int
    devices: tuple[str | None, ...] = (None,)

    def __len__(self) -> int:
        return len(self.devices)

    @property
    def size(self) -> int:
        """Branches of a block."""
        return self.split_factor // len(self)

    def branches(self, block: int) -> range:
        """Those of a block."""
        return range(block * self.size, (block + 1) * self.size)


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


def _type_and_index(device: str) -> tuple[str, int] | None:
    try:
        spec = tf.DeviceSpec.from_string(device if device.startswith("/") else f"/{device}")
    except (ValueError, AttributeError):
        return None
    return None if spec.device_type is None else (spec.device_type, spec.device_index or 0)


def _short(device: tuple[str, int]) -> str:
    return f"{device[0]}:{device[1]}"
