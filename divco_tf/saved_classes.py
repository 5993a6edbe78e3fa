"""Keras finds our classes in its files: `import divco_tf; keras.models.load_model("stack.keras")`.

Keras looks classes up by registered name, and ours register themselves when their modules are imported, which takes
TensorFlow. So each has a placeholder in Keras's register, from the moment at which both packages are imported: it
imports the class when a file has it.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence
from typing import Any

CLASSES = {
    "BranchStack": "divco_tf.models.branch_stack",
    "BatchNormalization": "divco_tf.models.layers.basic",
    "GroupedConv2D": "divco_tf.models.layers.grouped",
    **dict.fromkeys(("RadixSoftmax", "RadixSum"), "divco_tf.models.layers.attention"),
    **dict.fromkeys(
        ("ChannelDropout", "DropBlock", "DropPath", "Dropout", "ShakeDrop", "ShakeShake"),
        "divco_tf.models.layers.stochastic",
    ),
    "CoTrainingModel": "divco_tf.training.cotraining",
    "Means": "divco_tf.training.keras_metrics",
    **dict.fromkeys(("AdamW", "RMSprop", "RMSpropTF", "SGD"), "divco_tf.training.optim.rules"),
    "EpochSchedule": "divco_tf.training.optim.learning_rate",
}
"""Every class that is registered under "divco_tf", with its module."""


def announce() -> None:
    """Puts the placeholders into Keras's register: now, or when Keras is imported. Nothing is imported here."""
    keras = sys.modules.get("keras")
    if hasattr(keras, "saving"):
        _register(keras)
    elif not any(isinstance(finder, _WhenKerasIsImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenKerasIsImported())


def _register(keras: Any) -> None:
    for name, module in CLASSES.items():
        keras.saving.get_custom_objects().setdefault(f"divco_tf>{name}", _placeholder(name, module))


def _placeholder(name: str, module: str) -> type:
    """A class with what Keras asks one for when it reads a file: `from_config`."""

    def from_config(*args: Any, **kwargs: Any) -> Any:
        return getattr(importlib.import_module(module), name).from_config(*args, **kwargs)

    return type(name, (), {"from_config": staticmethod(from_config), "__module__": module})


class _WhenKerasIsImported(importlib.abc.MetaPathFinder):
    """Finds Keras where it is found otherwise, and registers the placeholders when it has been imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """As the first other finder that knows Keras; of other modules nothing is known here."""
        if fullname != "keras":
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                execute(module)
                _register(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)

            spec.loader.exec_module = exec_module
        return spec
