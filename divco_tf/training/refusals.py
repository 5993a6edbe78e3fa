"""What is refused when a graph runs, in the words in which it is refused before."""

from typing import Any

import tensorflow as tf

from divco_tf.errors import InputError


def refuse_unless(condition: Any, text: str, value: Any, advice: str) -> Any:
    """Refuses with "text value advice" where `condition` is false.

    Args:
      condition: a bool, or a tensor of one.
      text: what is wrong, to "Received:".
      value: a tensor, or a list of scalars.
      advice: what would work.

    Returns:
      What to wait for before the input is used. XLA drops it: it belongs outside of what is compiled.

    Raises:
      InputError: as said, where the condition is known now; `models.inputs.told_in_one_line` makes one of what a graph
        raises.
    """
    if isinstance(condition, bool) or tf.executing_eagerly():
        if not condition:
            numbers = value if isinstance(value, list) else tf.reshape(value, [-1])[:8]
            raise InputError(f"{text} {' '.join(f'{float(number):g}' for number in numbers)} {advice}")
        return tf.no_op()
    return tf.debugging.Assert(condition, [text, tf.convert_to_tensor(value), advice], summarize=8)
