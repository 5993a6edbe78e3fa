"""Names that configs had before 0.3: they answer for one release, and say what they are now.

gin resolves the names of a file, or of a binding, in a `ParseContext`; ours knows the modules of before as well. What
gin keeps is the class: old and new names are the same configurable, and a run's config.gin is written in new ones.
"""

import functools
import importlib.util
from typing import Any

import gin
from gin.config_parser import ImportStatement, Location

import divco_tf
from divco_tf.tools.shared import streams

_OLD = {  # a module of before: what configs bind of it, all of which are public names of divco_tf
    "divco_tf.data.augmentations": ("Augmentation", "Range", "Space", "Step"),
    "divco_tf.data.batch_ops": ("KerasLayer",),
    "divco_tf.data.policies": ("ViewPolicy", "Erasing", "ResizedCrop"),
    "divco_tf.training.experiment": ("Experiment",),
    "divco_tf.training.loop": ("Options",),
    "divco_tf.training.optimizers": ("OptimizerConfig",),
    "divco_tf.training.options": ("Options",),
    "divco_tf.training.schedules": ("LearningRate", "CoTraining"),
    "divco_tf.training.warm_start": ("WarmStart",),
}
_SELECTORS = {f"{module.rpartition('.')[2]}.{name}": module for module, names in _OLD.items() for name in names}


class _Context(gin.config.ParseContext):
    def __init__(self, import_manager: Any = None) -> None:
        self._old: dict[str, str] = {}  # an old module by what stands before the last dot of its names
        super().__init__(import_manager)

    def process_import(self, statement: ImportStatement) -> None:
        """As gin's; where an old module is gone, the new ones are listed, for bindings."""
        module = statement.module
        if module in _OLD:
            self._old[statement.bound_name() if statement.is_from or statement.alias else module] = module
        if not _is_gone(module):
            super().process_import(statement)
            return
        new = [_import(name) for name in _OLD[module]]
        _tell(module, " and ".join(dict.fromkeys(statement.module for statement in new)))
        self.imports.extend(new)

    def get_configurable(self, selector: str) -> Any:
        """As gin's; an old name is that of its new module, whatever else the file calls so."""
        symbol, _, name = selector.rpartition(".")
        imported = {statement.bound_name() for statement in self.imports}
        # A binding may have an old name though its config, a shipped one, imports new modules.
        module = self._old.get(symbol) or (None if symbol in imported else _SELECTORS.get(selector))
        if module is None or not (name in _OLD[module] or _is_gone(module)):
            return super().get_configurable(selector)
        new = _import(name if name in _OLD[module] else _OLD[module][0])  # a misspelt name is missing there
        now = f"{new.bound_name()}.{name}"
        if new.module == module or (now == selector and symbol not in self._old):
            return super().get_configurable(selector)
        if name in _OLD[module]:
            _tell(f"{module.rpartition('.')[2]}.{name}", now)
        context = gin.config.ParseContext()
        for statement in (_import_of("__gin__.dynamic_registration"), new):
            context.process_import(statement)
        return context.get_configurable(now)


def answer() -> None:
    """Lets gin resolve old names from here on."""
    gin.config.ParseContext = _Context


def _import(name: str) -> ImportStatement:
    """The import of the module in which a public name of divco_tf is defined now."""
    return _import_of(getattr(divco_tf, name).__module__)


def _import_of(module: str) -> ImportStatement:
    return ImportStatement(module, is_from=True, alias=None, location=Location(None, 0, None, ""))


@functools.cache
def _is_gone(module: str) -> bool:
    return module in _OLD and importlib.util.find_spec(module) is None


@functools.cache
def _tell(old: str, new: str) -> None:
    """Says it on stderr, once a process."""
    if old != new:
        streams.note(f"{old} is now {new}; the old name goes with the next release.")
