"""Divide and Co-training (arXiv 2011.14660) in TensorFlow and Keras.

Divide one large network into S small ones of the same budget, train them together on different views of the same
images, average their predictions. Public names are found here and imported when first used (PEP 562):
`__init__.pyi` lists them.
"""

import importlib
import importlib.metadata
import pathlib
import re
from typing import Any

from divco_tf import keras_settings, saved_classes

_STUB = pathlib.Path(__file__).with_suffix(".pyi").read_text()
_MODULES = {name: module for module, name in re.findall(r"^from (\S+) import (\w+)", _STUB, re.MULTILINE)}
_WITHOUT_KERAS = (
    *("divco_tf.data.datasets", "divco_tf.data.views", "divco_tf.errors", "divco_tf.models.backbones"),
    *("divco_tf.models.divide", "divco_tf.models.spec_json", "divco_tf.torch_files"),
)
__all__ = sorted(_MODULES)

saved_classes.announce()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("divco_tf")
    if name not in _MODULES:
        raise AttributeError(f"module 'divco_tf' has no attribute {name!r}")
    if not _MODULES[name].startswith(_WITHOUT_KERAS):
        keras_settings.check_backend()
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
