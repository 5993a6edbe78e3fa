"""The errors that users are meant to see, and names in them."""

import re
import unicodedata

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories: controls, surrogates, separators of lines


def shown(name: object) -> str:
    """A file's or a class's name as text that every terminal, and TensorFlow, takes, on one line.

    File systems allow names that are no UTF-8, which Python hands out with surrogates that nothing encodes, and names
    with line breaks. Such bytes and characters are escaped: "caf\\xe9".
    """
    return "".join(map(_escaped, str(name)))


def _escaped(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) not in _UNPRINTABLE:
        return character
    number = ord(character)
    return f"\\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else character.encode("unicode_escape").decode()


def _encodable(message: object) -> str:
    """The message, with whatever names in it, as UTF-8 has it: a line that cannot be printed helps nobody."""
    return re.sub("[\ud800-\udfff]", lambda found: _escaped(found[0]), str(message))


class InputError(ValueError):
    """Bad input, told in one line: what was wrong, "Received: ...", and what would work.

    The command-line tools print the line and exit with status 2; anything else that is raised is a
    bug of ours, and keeps its traceback.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_encodable(message))


class RunError(RuntimeError):
    """A run that cannot go on, told in one line: what happened, and where the last good state lies.

    The command-line tools print the line and exit with status 1.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(_encodable(message))


class Preempted(RunError):
    """SIGTERM, a job queue's warning, ended the run between two steps, after a checkpoint.

    The command-line tools print the line and exit with status 75, "try again later" (EX_TEMPFAIL of sysexits.h).
    """
