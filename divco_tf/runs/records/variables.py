"""What variables are called in a checkpoint, and their values put together."""

import itertools
import re
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from divco_tf.models import placement

State = Mapping[str, Sequence[keras.Variable]]
"""Variables by group ("stack", "optimizer", "run", "ema")."""

_NAMELESS = re.compile(r"variable(_\d+)?")  # Keras numbers them over the whole process


def snapshot(state: State) -> dict[str, tf.Tensor]:
    """The present values in the computer's memory, by name: what is assigned later does not change them.

    Blocks of one variable on several devices are put together, so a checkpoint does not tell how they were placed.
    """
    with tf.device("CPU:0"):
        return {name: _whole(blocks) for name, blocks in by_name(state).items()}


def by_name(state: State) -> dict[str, list[keras.Variable]]:
    """The blocks of each variable by its group and canonical name; an optimizer's by what they belong to.

    Of several with one name, the second is called `name.2`: where a loss is scaled, one optimizer wraps another.
    """
    owners = {f"{variable.path}_".replace("/", "_"): variable.name for variable in state.get("stack", ())}
    owners = {placement.canonical_name(path): placement.canonical_name(name) for path, name in owners.items()}
    named: dict[str, list[keras.Variable]] = {}
    for group, variables in state.items():
        for index, blocks in enumerate(placement.grouped_blocks(variables)):
            own = _own_name(placement.canonical_name(blocks[0].name), group, owners)
            name = f"{group}/{index if _NAMELESS.fullmatch(own) else own}"
            numbered = (f"{name}.{number}" for number in itertools.count(2))
            named[next(free for free in itertools.chain([name], numbered) if free not in named)] = blocks
    return named


def _own_name(name: str, group: str, owners: Mapping[str, str]) -> str:
    """A variable's name without those of the objects that hold it: `tiny_x2_conv.kernel_momentum` is
    `conv.kernel/momentum`, and `ema.conv.kernel` of the group "ema" `conv.kernel`."""
    if group != "optimizer":
        return name.removeprefix(f"{group}.")
    cuts = (place + 1 for place, letter in enumerate(name) if letter == "_")
    cut = max((cut for cut in cuts if name[:cut] in owners), default=0)
    return f"{owners[name[:cut]]}/{name[cut:]}" if cut else name


def by_position(state: State) -> dict[str, list[keras.Variable]]:
    """The blocks of each variable as 0.1.0 named it: "group/index"."""
    return {
        f"{group}/{index}": blocks
        for group, variables in state.items()
        for index, blocks in enumerate(placement.grouped_blocks(variables))
    }


def _whole(blocks: Sequence[keras.Variable]) -> tf.Tensor:
    values = [tf.identity(block.value) for block in blocks]
    return values[0] if len(values) == 1 else tf.concat(values, axis=0)


def whole_shape(blocks: Sequence[keras.Variable]) -> list[int]:
    """Of the variable that lies in these blocks."""
    shape = list(blocks[0].shape)
    return shape if len(blocks) == 1 else [sum(block.shape[0] for block in blocks), *shape[1:]]
