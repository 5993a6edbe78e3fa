"""Includes of configs: which file each stands for, and gin reading that file.

gin looks in the working directory first, whatever file an include stands in. Here a shipped config's include is the
shipped file. Another's is looked for beside the including file, then in the working directory, then among the shipped.
"""

import functools
import io
import os
import pathlib
import re
import sys
from collections.abc import Iterable

# Plain gin: gin.tf wants tf.estimator, which TensorFlow no longer has.
import gin

import divco_tf
from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean

_INCLUDE = re.compile(
    r"""^(?P<head>[ \t]*include[ \t]+)(?P<quote>["'])(?P<name>[^"'\\\n]+)(?P=quote)(?=[ \t]*(?:#.*)?\r?$)""",
    re.MULTILINE,
)
_RESOLVED = "divco-config:"  # leads an absolute path; gin's own reader finds no such file, so ours is asked


def configs_dir() -> pathlib.Path:
    """The folder of the shipped configs: divco_tf/configs when installed, gin/ in a checkout."""
    package = pathlib.Path(divco_tf.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "gin"


def config_names() -> list[str]:
    """Names of the shipped configs, as --config takes them: "cifar10/wide_resnet28_10_split4"."""
    folder = configs_dir()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.gin"))


def parse_config_file(path: pathlib.Path) -> None:
    """Lets gin parse `path`, its includes resolved; modules beside the files, or where we are, can be imported.

    Raises:
      InputError: an include that is not found, cannot be read or leads back to a file that includes it.
    """
    make_importable(file.parent for file in files(path) if not _is_shipped(file))
    make_importable([pathlib.Path.cwd()])
    _register_reader()
    try:
        gin.parse_config_file(f"{_RESOLVED}{path.absolute()}")
    except RecursionError as error:
        raise circle(path) from error


def circle(path: pathlib.Path) -> InputError:
    """The error for a config that includes itself."""
    return InputError(f"The config includes itself. Received: {path}; an include of another file works.")


def make_importable(folders: Iterable[pathlib.Path]) -> None:
    """Appends folders to where modules are found: behind the others, so that they hide no installed module."""
    sys.path += [folder for folder in dict.fromkeys(map(str, folders)) if folder not in sys.path]


def read(path: pathlib.Path) -> str:
    """The text of a config.

    Raises:
      InputError: it cannot be read, or is no text.
    """
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"A config is a text in UTF-8. Received: {path} ({error.reason}); a .gin file works."
        ) from None
    except OSError as error:
        raise InputError(
            f"The config cannot be read ({error.strerror}). Received: {path}; a .gin file works."
        ) from None


def included(text: str) -> list[str]:
    """Names that a config includes, as they stand there, without ".gin"."""
    return [match["name"].removesuffix(".gin") for match in _INCLUDE.finditer(text)]


def files(path: pathlib.Path) -> list[pathlib.Path]:
    """`path` and all that it includes, each once.

    Raises:
      InputError: an include that is not found, cannot be read or leads back to a file that includes it.
    """
    found: dict[pathlib.Path, None] = {}

    def visit(file: pathlib.Path, chain: tuple[pathlib.Path, ...]) -> None:
        if file in chain:
            circle = [str(shown(part)) for part in (*chain[chain.index(file) :], file)]
            if len(circle) > 4:
                circle[2:-2] = ["..."]
            raise InputError(f"The config includes itself. Received: {' -> '.join(circle)}; leave one include out.")
        if file in found:
            return
        text = read(file)
        for match in _INCLUDE.finditer(text):
            visit(_resolved(match, text, file), (*chain, file))
        found[file] = None

    visit(path.absolute(), ())
    return list(found)


def resolve(name: str, file: pathlib.Path, *, line: int, statement: str) -> pathlib.Path:
    """The file that an include of `file` stands for; itself only where there is no other.

    Raises:
      InputError: there is none; `line` and `statement` say where it was asked for.
    """
    path, shipped = pathlib.Path(name).expanduser(), configs_dir()
    folders = (shipped,) if _is_shipped(file) else (file.parent, pathlib.Path.cwd(), shipped)
    places = [folder / path.with_name(end) for folder in folders for end in (path.name, f"{path.name}.gin")]
    there = [pathlib.Path(os.path.normpath(place)) for place in places if place.is_file()]
    if not there:
        suggestion = did_you_mean(name.removesuffix(".gin"), config_names())
        raise InputError(
            f"No such file to include: {name}.{suggestion} Received: {statement.strip()} ({shown(file)}:{line})."
        )
    return next((place for place in there if place != file), there[0])


def _resolved(match: re.Match[str], text: str, file: pathlib.Path) -> pathlib.Path:
    line = text.count("\n", 0, match.start()) + 1
    return resolve(match["name"], file, line=line, statement=match[0])


@functools.cache
def _register_reader() -> None:
    def opened(resolved: str) -> io.StringIO:
        file = pathlib.Path(resolved.removeprefix(_RESOLVED))
        text = read(file)

        def replaced(match: re.Match[str]) -> str:
            return f"{match['head']}{f'{_RESOLVED}{_resolved(match, text, file)}'!r}"

        stream = io.StringIO(_INCLUDE.sub(replaced, text))
        stream.name = str(shown(file))  # gin's messages name it
        return stream

    gin.config.register_file_reader(opened, lambda path: path.startswith(_RESOLVED))
    gin.add_config_file_search_path(str(configs_dir()))  # for an include whose form is none of ours


def _is_shipped(file: pathlib.Path) -> bool:
    return file.resolve().is_relative_to(configs_dir().resolve())


def shown(path: pathlib.Path) -> pathlib.Path:
    """`path` as it is written from here."""
    return path.relative_to(pathlib.Path.cwd()) if path.is_relative_to(pathlib.Path.cwd()) else path
