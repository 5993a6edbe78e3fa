"""--help and --version of every program; the examples are commands that it takes."""

import re
import shlex

import pytest

import divco_tf
from tests.tools.in_process import TOOLS

PROGRAMS = sorted(path.stem for path in TOOLS.glob("*.py") if path.stem[0] != "_")


def called(name: str) -> str:
    return f"divco-{name.removesuffix('_checkpoint')}"  # `import` is no module's name


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_has_groups_and_examples_that_are_commands(divco, name):
    result = divco(name, "--help")
    assert (result.status, result.stderr) == (0, "")
    text, _, examples = result.stdout.partition("\nexamples:\n")
    assert f"\nusage: {called(name)} " in text and "  --version " in text
    commands = [shlex.split(line) for line in examples.splitlines()]
    assert commands or name == "launch"
    for program, *arguments in commands:
        assert program == called(name)
        if "--help" not in arguments:
            ran = []
            assert divco(name, *arguments, main=lambda *_, ran=ran: ran.append(True)).stderr == "" and ran


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_version_is_told(divco, name):
    assert divco(name, "--version").stdout == f"{called(name)} {divco_tf.__version__}\n"


def test_a_benchmarks_help_has_the_flags_that_it_takes(divco):
    views = ["split_factor", "batch_size", "data_dir", "rounds", "steps"]
    for command, own in {"grouped": ["rounds"], "views": views}.items():
        told = re.findall(r"^  --(\w+)", divco("benchmark", command, "--help").stdout, re.MULTILINE)
        assert told == [*own, "out", "json", "quiet"]
