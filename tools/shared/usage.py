"""How a program is called: its --help, and what it says when something is missing or too much."""

import dataclasses
import re
import shlex
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Sequence

from absl import flags

from divco_tf.registry import did_you_mean

_WIDTH, _INDENT = 110, 22


@dataclasses.dataclass(frozen=True)
class Usage:
    """What `app.run` is told of a program, by the same names."""

    program: str
    commands: Sequence[str] = ()
    operand: str = ""
    required: Sequence[str] = ()
    common: Sequence[str] = ()
    examples: Sequence[str] = ()
    flags_of: Callable[[str], Iterable[str]] | None = None
    behind: str = "[--flag=value ...]"

    def help(self, module: types.ModuleType, command: str | None = None) -> str:
        """What the module says of itself, then its flags in groups, then examples; of one command, its flags alone."""
        ours = {flag.name: flag for flag in flags.FLAGS.get_key_flags_for_module(module)}
        head = [] if command else [(module.__doc__ or "").strip(), ""]
        told = f"usage: {self._line(command)}"
        if command and self.flags_of:
            return "\n".join([told, *_group("flags", [ours[name] for name in self.flags_of(command) if name in ours])])
        rest = [name for name in ours if name not in (*self.required, *self.common)]
        lines = [*head, told]
        for title, names in {"required": self.required, "common": self.common}.items():
            lines += _group(title, [ours[name] for name in names]) if names else []
        lines += _group("others" if self.required or self.common else "flags", [ours[name] for name in rest])
        lines.append(_entry("--version", "Print the version of divco_tf; alone."))
        if self.examples:
            lines += ["", "examples:", *(f"  {example}" for example in self.examples)]
        return "\n".join(lines)

    def complaint(self, arguments: Sequence[str], received: Sequence[str]) -> str | None:
        """What is wrong with what stands beside the flags, or is not there."""
        if self.commands and not arguments:
            return f"Say what to do. Received: no command; one of {', '.join(self.commands)} works."
        if self.commands and arguments[0] not in self.commands:
            return f"Unknown command. Received: {arguments[0]}.{did_you_mean(arguments[0], self.commands)}"
        needs_operand = self.operand and not self.operand.startswith("[")
        missing = [self.operand] if needs_operand and not arguments else []
        missing += [_as_typed(name) for name in self.required if flags.FLAGS[name].value in (None, "", [])]
        if missing:
            listed = "; divco-configs lists the shipped configs" if "CONFIG" in missing else ""
            return (
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. "
                f"Received: {shlex.join(received) or 'none'}; {self._line()} works{listed}."
            )
        if len(arguments) > bool(self.commands or self.operand) and not self.operand.endswith("..."):
            return f"Too many arguments. Received: {arguments[-1]}; the rest is given by flags, as --name=value."
        return None

    def _line(self, command: str | None = None) -> str:
        beside = [command or "|".join(self.commands), self.operand]
        needed = ["CONFIG" if name == "config" else f"--{name}={name.upper()}" for name in self.required]
        return " ".join(filter(None, [self.program, *beside, *needed, self.behind]))


def _as_typed(name: str) -> str:
    return "CONFIG" if name == "config" else f"--{name}"


def _group(title: str, found: Sequence[flags.Flag]) -> Iterator[str]:
    yield f"\n{title}:"
    for flag in found:
        boolean = isinstance(flag, flags.BooleanFlag)
        # absl adds to what may be repeated, and puts an enumeration in front.
        told = [re.sub(r"^<.*?>: ", "", str(flag.help).partition(";\n")[0])]
        if isinstance(flag, flags.MultiFlag):
            told.append("May be repeated.")
        if isinstance(flag, flags.EnumFlag):
            told.append(f"One of {', '.join(flag.parser.enum_values)}.")
        if boolean and flag.default:
            told.append(f"The default; --no{flag.name} is the other.")
        elif flag.default not in (None, False, []):
            told.append(f"(default: {','.join(flag.default) if isinstance(flag.default, list) else flag.default})")
        yield _entry("CONFIG" if flag.name == "config" else f"--{flag.name}", " ".join(told))


def _entry(name: str, told: str) -> str:
    text = textwrap.fill(
        re.sub(r"\s+", " ", told), _WIDTH, initial_indent=" " * _INDENT, subsequent_indent=" " * _INDENT
    )
    head = f"  {name} "
    return head.ljust(_INDENT) + text[_INDENT:] if len(head) <= _INDENT else f"{head.rstrip()}\n{text}"
