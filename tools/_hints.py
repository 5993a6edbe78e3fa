"""Hints as they are typed: for the library's held_out=0.1, --bind experiment.Experiment.held_out=0.1.

The library's errors speak to who calls it in Python. Only what stands outside of "Received: ...;" is a hint.
"""

import dataclasses
import re
import shlex
import sys

from absl import flags

# What gin's configs bind, by the names that gin/base.gin imports: module of the class, class.
_BOUND = {
    "experiment.Experiment": ("divco_tf.runs.experiment", "Experiment"),
    "options.Options": ("divco_tf.runs.options", "Options"),
    "optimizer.OptimizerConfig": ("divco_tf.training.optim.optimizer", "OptimizerConfig"),
    "learning_rate.LearningRate": ("divco_tf.training.optim.learning_rate", "LearningRate"),
    "losses.CoTraining": ("divco_tf.training.losses", "CoTraining"),
    "warm_start.WarmStart": ("divco_tf.runs.warm_start", "WarmStart"),
}
_OTHERS = {  # what no hint means by a name: objects, and the rule of learning rates
    "Experiment": {"optimizer", "learning_rate", "cotraining", "warm_start"},
    "LearningRate": {"rule"},
}
_VALUE = r"""'[^']*'|"[^"]*"|\([^()]*\)|\[[^\[\]]*\]|-?\d+(?:\.\d+)?(?:e-?\d+)?|True|False|None"""
_SETTING = re.compile(rf"(?<![\w.'\"-])(?P<name>[a-z]\w*)=(?P<value>{_VALUE})(?!\w)")
_PARTS = re.compile(r"(?P<before>.*?)(?P<received>Received: [^;]*;)(?P<after>.*)", re.DOTALL)


def as_typed(message: str) -> str:
    """The message of an error with each `name=value` of its hint as a flag, or a binding, that can be pasted."""
    match = _PARTS.fullmatch(message)
    if match is None:
        return message
    return _SETTING.sub(_typed, match["before"]) + match["received"] + _SETTING.sub(_typed, match["after"])


def _typed(setting: re.Match[str]) -> str:
    """The flag of that name, else the one binding that it can be; as it is where there is none, or several."""
    name, value = setting["name"], setting["value"]
    if name in flags.FLAGS and isinstance(flags.FLAGS[name], flags.BooleanFlag):
        return f"--{name}" if value == "True" else f"--no{name}"
    if name in flags.FLAGS:
        return f"--{name} {shlex.quote(value.strip(chr(34) + chr(39)))}"
    selectors = [selector for selector, place in _BOUND.items() if name in _fields(*place)]
    if len(selectors) != 1 or "bind" not in flags.FLAGS:
        return setting[0]
    if value.startswith("'"):
        value = f'"{value[1:-1]}"'  # in single quotes for the shell
    return f"--bind {shlex.quote(f'{selectors[0]}.{name}={value}')}"


def _fields(module: str, name: str) -> set[str]:
    """Names of a dataclass's fields; none of a module that nobody has imported, whose errors nobody sees."""
    kind = getattr(sys.modules.get(module), name, None)
    fields = {field.name for field in dataclasses.fields(kind)} if kind else set()
    return fields - _OTHERS.get(name, set())
