"""Hints as they are typed: for the library's held_out=0.1, --set held_out=0.1.

The library's errors speak to who calls it in Python. Only what stands outside of "Received: ...;" is a hint.
"""

import re
import shlex

from absl import flags

from divco_tf.tools.shared import settings

_VALUE = r"""'[^']*'|"[^"]*"|\([^()]*\)|\[[^\[\]]*\]|-?\d+(?:\.\d+)?(?:e-?\d+)?|True|False|None"""
_SETTING = re.compile(rf"(?<![\w.'\"-])(?P<name>[a-z]\w*)=(?P<value>{_VALUE})(?!\w)")
_PARTS = re.compile(r"(?P<before>.*?)(?P<received>Received: [^;]*;)(?P<after>.*)", re.DOTALL)


def as_typed(message: str) -> str:
    """The message of an error with each `name=value` of its hint as a flag, or --set, that can be pasted."""
    match = _PARTS.fullmatch(message)
    if match is None:
        return message
    return _SETTING.sub(_typed, match["before"]) + match["received"] + _SETTING.sub(_typed, match["after"])


def _typed(setting: re.Match[str]) -> str:
    """The flag of that name, else the one setting that it can be; as it is where there is none, or several."""
    name, value = setting["name"], setting["value"]
    if name in flags.FLAGS and isinstance(flags.FLAGS[name], flags.BooleanFlag):
        return f"--{name}" if value == "True" else f"--no{name}"
    if name in flags.FLAGS:
        return f"--{name} {shlex.quote(value.strip(chr(34) + chr(39)))}"
    if "set" not in flags.FLAGS or len(settings.named(name)) != 1:
        return setting[0]
    return f"--set {shlex.quote(f'{name}={value.strip(chr(34) + chr(39))}')}"
