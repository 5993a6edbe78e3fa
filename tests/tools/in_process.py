"""The programs without a process of their own: a second instead of seven."""

import contextlib
import dataclasses
import functools
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from absl import flags

from divco_tf.tools.shared import app

TOOLS = pathlib.Path(app.__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Result:
    """What a program left: its exit status and what it wrote."""

    status: int
    stdout: str
    stderr: str


class Programs:
    """Calls tools/<name>.py through `app.run`, as the console script does, but for absl's own set-up of logging.

    Args:
      monkeypatch, capfd: pytest's.
      folder: where the programs lie.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, folder: pathlib.Path = TOOLS
    ) -> None:
        self._patch, self._capfd, self._folder = monkeypatch, capfd, folder

    def __call__(self, name: str, *arguments: str, main: Callable[..., None] | None = None, **options: Any) -> Result:
        """Runs the program, its `run` with `options`; file descriptor 2 is watched, so TensorFlow's own words count.

        With `main` in place of the program's own, its flags are parsed and nothing else is done.
        """
        self._patch.setattr(app.app, "run", lambda main, flags_parser: sys.exit(main(flags_parser(sys.argv))))
        self._patch.setattr(sys, "argv", [f"divco-{name}", *arguments])
        self._capfd.readouterr()
        with fresh_program(name, self._folder) as module, pytest.raises(SystemExit) as ended:
            module.main = functools.wraps(module.main)(main) if main else module.main  # app.run asks for its module
            module.run(**options)
        written = self._capfd.readouterr()
        return Result(ended.value.code or 0, written.out, written.err)

    def refusal(self, name: str, *arguments: str, status: int = 2) -> str:
        """The one line with which the program refuses."""
        result = self(name, *arguments)
        begun = ("views: ", "decoded images: ", "loss: ", "first step: ")  # what a run tells when it has begun
        told = [line for line in result.stdout.splitlines() if not line.startswith(begun)]
        assert (result.status, told) == (status, []), result
        (line,) = result.stderr.splitlines()
        program = f"divco-{name.removesuffix('_checkpoint')}"  # `import` is no module's name
        assert line.startswith(f"{program}: error: ") and "Received: " in line and "Traceback" not in line
        return line


@contextlib.contextmanager
def fresh_program(name: str, folder: pathlib.Path = TOOLS) -> Iterator:
    """A program's module with its flags defined anew; at the end they are gone, as two programs share names."""
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location(f"in_process_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]
        for flag in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, flag)
        flags.FLAGS.unparse_flags()
