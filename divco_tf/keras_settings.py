"""Keras's global settings: what is built here is what the experiment says, whatever they are.

`~/.keras/keras.json` and `keras.config` say which types, epsilon, order of axes and precision layers have that do not
say it themselves, networks of keras.applications and keras-cv among them.
"""

import contextlib
import json
import os
import pathlib
import sys
import threading
from collections.abc import Iterator

from divco_tf import compat
from divco_tf.errors import InputError

_lock = threading.Lock()
_inside, _theirs = 0, ()


@contextlib.contextmanager
def ours(precision: str = "float32") -> Iterator[None]:
    """Layers, variables and constants that are made in this context, or traced, follow our settings; also a decorator.

    The user's are put back at the end. The settings are the process's, only the policy is a thread's own: the last
    thread to leave puts them back.

    Raises:
      InputError: Keras runs on another backend than TensorFlow.
    """
    global _inside, _theirs
    check_backend()
    with _lock:
        if not _inside:
            _theirs = _exchanged(("float32", 1e-7, "channels_last"))
        _inside += 1
    policy = compat.exchange_dtype_policy(precision)
    try:
        yield
    finally:
        compat.exchange_dtype_policy(policy)
        with _lock:
            _inside -= 1
            if not _inside:
                _exchanged(_theirs)


def _exchanged(settings: tuple[str, float, str]) -> tuple[str, float, str]:
    """Sets (floatx, epsilon, image_data_format); returns what they were."""
    from keras import config

    before = config.floatx(), config.epsilon(), config.image_data_format()
    config.set_floatx(settings[0])
    config.set_epsilon(settings[1])
    config.set_image_data_format(settings[2])
    return before


def check_backend() -> None:
    """Refuses other backends than TensorFlow, before Keras is imported, which would fail where one is not installed.

    Raises:
      InputError: as said.
    """
    if "keras" in sys.modules:
        backend, said = sys.modules["keras"].config.backend(), "Keras was imported with"
    elif "KERAS_BACKEND" in os.environ:
        backend, said = os.environ["KERAS_BACKEND"], "KERAS_BACKEND is"
    else:
        file = pathlib.Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "keras.json"
        try:
            backend, said = json.loads(file.read_text()).get("backend", "tensorflow"), f"{file} says"
        except (OSError, ValueError, AttributeError):  # Keras takes its default then
            return
    if backend and backend != "tensorflow":
        raise InputError(
            f"divco_tf needs Keras on TensorFlow. Received: {said} {backend!r}; KERAS_BACKEND=tensorflow in the "
            "environment, before Keras is imported, would work."
        )
