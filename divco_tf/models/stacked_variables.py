"""The variables of a stack: those of its template for S branches, in one block or in one a device."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from divco_tf import compat
from divco_tf.errors import InputError
from divco_tf.models import placement
from divco_tf.models.builder_checks import is_seeded
from divco_tf.models.network import Network
from divco_tf.registry import did_you_mean


class StackedVariables:
    """Variables [S, *shape] by name; each is D blocks [S/D, *shape].

    A plain class: Keras tracks and saves what the stack that it adds them to holds.

    Args:
      stack: gets the variables, by `add_weight` and as attributes.
      network: of the stack.
      seed: of the initial values.

    Attributes:
      weights: blocks, variable by variable, of what was made to be trained, whether or not it is frozen.
      statistics: those of the others: moving means and variances, and the state of Keras's own random layers.
      by_name: the blocks of each variable, weights before statistics.
    """

    def __init__(self, stack: keras.Model, network: Network, *, seed: int) -> None:
        self._template, self._blocks = network.template, network.blocks
        self.by_name: dict[str, list[keras.Variable]] = {}
        for variables, trainable in ((network.weights, True), (network.statistics, False)):
            for variable in variables:
                self.by_name[_name(variable)] = [
                    _add_block(stack, variable, block, network.blocks, trainable=trainable, seed=seed)
                    for block in range(len(network.blocks))
                ]
        blocks = [block for blocks in self.by_name.values() for block in blocks]
        count = len(network.weights) * len(network.blocks)
        self.weights, self.statistics = blocks[:count], blocks[count:]

    def values(self) -> dict[str, np.ndarray]:
        """Copies of all, [S, *shape], wherever they lie."""
        return {name: placement.merged_value(blocks).copy() for name, blocks in self.by_name.items()}

    def assign(self, values: Mapping[str, np.ndarray]) -> None:
        """Writes all or some, as `values` returns them.

        Raises:
          InputError: a name that no variable has, or another shape; nothing is written then.
        """
        for name, value in values.items():
            if name not in self.by_name:
                raise InputError(f"No such variable. Received: {name!r}.{did_you_mean(name, self.by_name)}")
            expected = (self._blocks.split_factor, *self.by_name[name][0].shape[1:])
            if tuple(np.shape(value)) != expected:
                raise InputError(f"A variable has another shape. Received: {name} {np.shape(value)}; pass {expected}.")
        for name, value in values.items():
            placement.assign_merged(self.by_name[name], value)

    def of_branch(self, index: int) -> list[tf.Tensor]:
        """One branch's, [*shape], in the order of the template's `variables`, which mixes both kinds."""
        block, place = divmod(index, self._blocks.size)
        return [self.by_name[_name(variable)][block].value[place] for variable in self._template.variables]

    def assign_branch(self, index: int, values: Sequence[np.ndarray]) -> None:
        """Writes one branch's, as `of_branch` returns them."""
        block, place = divmod(index, self._blocks.size)
        for variable, value in zip(self._template.variables, values, strict=True):
            stacked = self.by_name[_name(variable)][block]
            whole = stacked.numpy().copy()
            whole[place] = value
            stacked.assign(whole)


def _name(variable: keras.Variable) -> str:
    return variable.path.replace("/", ".")


def _add_block(
    stack: keras.Model, variable: keras.Variable, block: int, blocks: placement.Blocks, *, trainable: bool, seed: int
) -> keras.Variable:
    """Adds a template's variable for the branches of a block, where that lies."""
    name, branches = placement.block_name(_name(variable), block, len(blocks)), blocks.branches(block)
    with placement.on_device(blocks.devices[block]):
        added = stack.add_weight(
            name=name,
            shape=(len(branches), *variable.shape),
            dtype=variable.dtype,
            initializer=stacked_initializer(variable, branches, seed),
            trainable=trainable,
            # Replicas would keep apart what they count themselves; the statistics are the mean over them. Whole
            # numbers are the state of Keras's own random layers, which is the same on each.
            aggregation="mean" if keras.backend.is_float_dtype(variable.dtype) else "only_first_replica",
            autocast=False,
        )
    added.trainable = variable.trainable  # a builder may freeze a layer
    setattr(stack, name, added)  # tf.train.Checkpoint finds attributes only
    return added


def stacked_initializer(variable: keras.Variable, branches: range, seed: int) -> Callable:
    """The initializer of the stacked variable [len(branches), *shape]: each branch has a draw of its own.

    Args:
      variable: a template's.
      branches: whose values are made; they do not depend on which others are.
      seed: of the stack.
    """
    initializer = compat.initializer_of(variable)
    if not keras.backend.is_float_dtype(variable.dtype):
        # (seed, counter) of one of Keras's random layers: each branch has masks of its own.
        seeds = [_seed_of(variable, branch, seed) for branch in branches]
        return lambda shape, dtype: tf.constant([[own, 0] for own in seeds], dtype, shape)
    if not is_seeded(initializer):
        return lambda shape, dtype: tf.stack([tf.cast(initializer(shape[1:], dtype=dtype), dtype)] * len(branches))

    def draw(shape: Sequence[int], dtype: Any) -> tf.Tensor:
        values = []
        for branch in branches:
            config = {**initializer.get_config(), "seed": _seed_of(variable, branch, seed)}
            seeded = type(initializer).from_config(config)
            values.append(seeded(shape[1:], dtype=dtype))
        return tf.stack(values)

    return draw


def _seed_of(variable: keras.Variable, branch: int, seed: int) -> int:
    return zlib.crc32(f"{seed}/{branch}/{variable.path}".encode()) & 0x7FFFFFFF
