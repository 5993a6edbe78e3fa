"""Hints as they are typed: for the library's held_out=0.1, --bind experiment.Experiment.held_out=0.1.

The library's errors speak to who calls it in Python. Only what stands outside of "Received: ...;" is a hint.
"""

import dataclasses
import re
import shlex

from absl import flags

import divco_tf

_BOUND = ("Experiment", "Options", "OptimizerConfig", "LearningRate", "CoTraining", "WarmStart")  # by gin's configs
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
    selectors = _selectors(name) if "bind" in flags.FLAGS else []
    if len(selectors) != 1:
        return setting[0]
    if value.startswith("'"):
        value = f'"{value[1:-1]}"'  # in single quotes for the shell
    return f"--bind {shlex.quote(f'{selectors[0]}.{name}={value}')}"


def _selectors(field: str) -> list[str]:
    """What has a field of that name, as bindings name it: by the module and the class."""
    kinds = [getattr(divco_tf, name) for name in _BOUND]
    return [
        f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"
        for kind in kinds
        if field in {known.name for known in dataclasses.fields(kind)} - _OTHERS.get(kind.__name__, set())
    ]
