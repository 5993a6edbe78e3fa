"""What is refused while a graph is traced or when it runs, in the one line in which it is refused eagerly."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from divco_tf import compat, keras_settings
from divco_tf.errors import InputError
from divco_tf.models import inputs

_RAISED_IN_GRAPH = re.compile(r"assertion failed: (\[[^\n]*?Received: [^\n]*\])")


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
      InputError: as said, where the condition is known now; `told_in_one_line` makes one of what a graph raises.
    """
    if isinstance(condition, bool) or tf.executing_eagerly():
        if not condition:
            numbers = value if isinstance(value, list) else tf.reshape(value, [-1])[:8]
            raise InputError(f"{text} {' '.join(f'{float(number):g}' for number in numbers)} {advice}")
        return tf.no_op()
    return tf.debugging.Assert(condition, [text, tf.convert_to_tensor(value), advice], summarize=8)


@contextlib.contextmanager
def told_in_one_line() -> Iterator[None]:
    """What is refused while a graph is traced, or when it runs, is raised as an InputError of its own line only.

    Keras and AutoGraph put lines of theirs around it, and the graph says where it was made.

    Raises:
      InputError: as said.
    """
    try:
        yield
    except InputError as error:
        lines = [line for line in compat.plain_text(str(error)).splitlines() if "Received: " in line]
        if not lines or lines[0] == str(error):
            raise
        raise InputError(re.sub(r"^\s*(\w+\.)*(InputError: )?", "", lines[0]).strip()) from None
    except tf.errors.InvalidArgumentError as error:
        if (found := _RAISED_IN_GRAPH.search(str(error))) is None:
            raise
        raise InputError(" ".join(part.strip("[]") for part in found[1].split("] ["))) from None


def _in_one_line(name: str) -> Callable:
    @functools.wraps(getattr(keras.Model, name))
    def method(self: "OneLine", *args: Any, **kwargs: Any) -> Any:
        inputs.warn_of_levels(args[0] if args else kwargs.get("x"), self.pixel_range)
        with keras_settings.ours(), told_in_one_line():
            return getattr(super(OneLine, self), name)(*args, **kwargs)

    return method


class OneLine:
    """Beside keras.Model: its methods that call the model, under our settings, and refusals in one line.

    Attributes:
      pixel_range: what black and white are after the normalisation that the weights were trained with, (low, high); a
        stack that is fed others warns (`inputs.warn_of_levels`). None: not known.
    """

    pixel_range: tuple[float, float] | None = None

    __call__ = _in_one_line("__call__")
    fit = _in_one_line("fit")
    evaluate = _in_one_line("evaluate")
    predict = _in_one_line("predict")
    train_on_batch = _in_one_line("train_on_batch")
    test_on_batch = _in_one_line("test_on_batch")
    predict_on_batch = _in_one_line("predict_on_batch")
