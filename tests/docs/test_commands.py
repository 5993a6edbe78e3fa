"""The README's code runs as printed, and its commands are commands."""

import pathlib
import re
import runpy
import shlex
import sys

import pytest

from divco_tf.data.views.operations import OWN
from divco_tf.models.backbones.registry import BACKBONES
from tests.data.images import image_folder
from tests.tools.conftest import divco  # noqa: F401 the fixture

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
PROGRAMS = {"divco-import": "import_checkpoint"}  # `import` is no module's name


def blocks(language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("index", range(len(blocks())))
def test_code_runs_as_printed(index, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": f"readme_{index}"}
    exec(compile(blocks()[index], f"README.md block {index}", "exec"), names)
    if "probabilities" in names:
        assert names["probabilities"].shape == (8, 10)
        assert (tmp_path / "ensemble.keras").is_file()
        assert "accuracy" in capsys.readouterr().out


def test_the_quickstart_is_about_twenty_lines():
    lines = [line for line in blocks()[0].splitlines() if line.strip()]
    assert len(lines) <= 22


def test_the_plugin_is_the_one_that_is_tested():
    plugin = README.parent / "tests" / "plugin"
    assert (plugin / "plain_cnn.py").read_text() in blocks()
    assert (plugin / "pyproject.toml").read_text() in blocks("toml")


def commands(program: str = r"divco-\w+") -> list[str]:
    """The programs' calls, those that fill a line or more and those in the first line of a config."""
    text = README.read_text()
    found = re.findall(rf"^(?:    |# \w+\.gin: )({program} (?:.*\\\n)*.*)$", text, flags=re.MULTILINE)
    return found


def split(command: str) -> tuple[str, list[str]]:
    program, *arguments = shlex.split(command.replace("\\\n", " "), comments=True)
    return PROGRAMS.get(program, program.removeprefix("divco-")), arguments


@pytest.mark.parametrize("command", commands())
def test_every_command_has_the_flags_of_its_program(divco, command):  # noqa: F811
    name, arguments = split(command)
    called = []
    result = divco(name, *arguments, main=lambda *_: called.append(name))
    assert (result.status, result.stderr, called) == (0, "", [name])


@pytest.fixture
def readers_folder(tmp_path, monkeypatch):
    """A working directory as a reader has it: the README's modules and configs, and photographs."""
    monkeypatch.chdir(tmp_path)
    image_folder(tmp_path / "photos", classes=4, images=30)
    for block in blocks("gin"):
        pathlib.Path(re.match(r"# (\w+\.gin): ", block)[1]).write_text(block)
    ours = {"salt": (OWN, "register_operation"), "plain_cnn": (BACKBONES, "register_backbone")}
    for name, (registry, how) in ours.items():
        entries = {known: entry for known, entry in registry._entries.items() if known != name}
        monkeypatch.setattr(registry, "_entries", entries)
        (block,) = (block for block in blocks() if f"@divco_tf.{how}(" in block)
        pathlib.Path(f"{name}.py").write_text(block)
    yield tmp_path
    sys.modules.pop("salt", None)


@pytest.mark.parametrize("command", commands("divco-train"))
def test_every_training_can_be_planned(divco, readers_folder, command):  # noqa: F811
    name, arguments = split(command)
    if "plain_cnn" in command:
        runpy.run_path("plain_cnn.py")  # as its entry point does
    result = divco(name, *arguments, "--quiet", *["--dry_run"] * ("--dry_run" not in arguments))
    lacks = "data" if "--data_dir data" in command else ""  # nothing is downloaded here
    *_, ready = result.stdout.splitlines()
    assert (result.stderr, ready.split()) == ("", ["ready:", "no,", "see", lacks] if lacks else ["ready:", "yes"])
    assert not (readers_folder / "runs").exists()
