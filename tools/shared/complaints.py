"""gin's complaints about a config, each told in one line that names what exists."""

import contextlib
import inspect
import pathlib
import re
import sys
import tokenize
import traceback

import gin

from divco_tf.registry import did_you_mean
from divco_tf.tools.shared.includes import config_names

IMPORT = re.compile(
    r"^(?:from\s+(?P<package>\S+)\s+)?import\s+(?P<name>[\w.]+)(?:\s+as\s+(?P<alias>\w+))?", re.MULTILINE
)
_LOCATION = re.compile(r'\n\s*In (?:file "(?P<file>.*?)",|bindings string) line (?P<line>\d+)\n\s*(?P<text>.*)')


def gin_complaint(error: Exception) -> str | None:
    """One line for an error that gin itself raised about a config, naming what exists; None for any other error."""
    frames = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not any(name.startswith("gin.") for name in frames) or not re.match(r"gin\.|tokenize$", frames[-1]):
        return None
    if isinstance(error, SyntaxError | tokenize.TokenError):
        return _syntax_complaint(error)
    message, *_ = str(error).split("\n", maxsplit=1)
    location = _LOCATION.search(str(error))
    complaint = _translate(message, location["file"] if location else None)
    if location:
        complaint += f" Received: {location['text']}{_place(location['file'], location['line'])}."
    elif arguments := re.search(r"No values supplied by Gin or caller for arguments: (\[.*\])", str(error)):
        complaint += f" Bind {arguments[1]}."
    return complaint


def _place(file: str | None, line: str | int | None) -> str:
    return f" ({file}:{line})" if file else ""


def _syntax_complaint(error: SyntaxError | tokenize.TokenError) -> str:
    if isinstance(error, tokenize.TokenError):
        return f"gin cannot parse the config: {error.args[0]}. Close every bracket and quote."
    reason = error.msg.splitlines()[-1].strip().rstrip(".")
    received = f" Received: {error.text.strip()}{_place(error.filename, error.lineno)}." if error.text else ""
    hint = ""
    if re.search(r"token|value", reason):
        hint = " Texts stand in quotes, in a shell within others: --bind 'x.name=\"text\"'; --set needs none."
    return f"gin cannot parse the config: {reason}.{received}{hint}"


def _translate(message: str, file: str | None) -> str:
    """gin's message with what exists in place of what was asked for."""
    if match := re.match(r"Configurable '(.+)' doesn't have a parameter named '(.+)'", message):
        selector, name = match.groups()
        return f"{selector} has no parameter {name}.{did_you_mean(name, _parameters(selector))}"
    if match := re.match(r"Couldn't resolve selector .+; <\w+ '?([\w.]+).*> has no attribute (\w+)", message):
        module, name = match.groups()
        return f"{module} has no {name}.{did_you_mean(name, _public_names(module))}"
    if match := re.match(r"'(.+)' was not provided by an import statement", message):
        imports = IMPORT.finditer(pathlib.Path(file).read_text() if file else gin.config_str())
        symbols = [line["alias"] or line["name"] for line in imports]
        return f"The config imports no {match[1]}.{did_you_mean(match[1], symbols)}"
    if match := re.match(r"Unable to open file: (.+)\. Searched", message):
        suggestion = did_you_mean(match[1].removesuffix(".gin"), config_names())
        return f"No such file to include: {match[1]}.{suggestion}"  # of a form that includes passes by
    if match := re.match(r"No bindings specified for '(.+)/(?:gin\.)?macro'", message):
        return f"The config uses the macro {match[1]} and does not define it.{did_you_mean(match[1], macros())}"
    return message.rstrip(".") + "."


def macros() -> list[str]:
    """Those that the parsed config defines."""
    return re.findall(r"^(\w+) = ", gin.config_str(), flags=re.MULTILINE)


def _parameters(selector: str) -> list[str]:
    for name in (selector, selector.rpartition(".")[2]):  # gin knows an old name by its end only
        with contextlib.suppress(KeyError, ValueError):  # gin finds nothing, or several
            configurable = gin.get_configurable(name)
            called = configurable.__init__ if inspect.isclass(configurable) else configurable
            return [parameter for parameter in inspect.signature(called).parameters if parameter != "self"]
    return []


def _public_names(module: str) -> list[str]:
    """Functions and classes of an imported module, without those it imports from elsewhere."""
    members = vars(sys.modules[module]) if module in sys.modules else {}
    return [
        name
        for name, member in members.items()
        if not name.startswith("_") and callable(member) and str(member.__module__).startswith(module)
    ]
