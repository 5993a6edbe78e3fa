"""What the programs share, shown by a toy program; in a process of its own where its streams are what counts."""

import json
import os
import pathlib
import re
import subprocess
import sys
import textwrap
from typing import Any

import pytest

import divco_tf
from divco_tf.tools.shared import app, streams
from tests.tools.in_process import Programs, Result

PROGRAM = '''
"""Trains a toy."""

from absl import flags

from divco_tf.errors import InputError, Preempted, RunError
from divco_tf.tools.shared import app, configs, streams

CONFIG = app.ConfigFlags()
MODEL_DIR = app.model_dir_flag()
SIZE = flags.DEFINE_integer("size", 2, "A size.")
KIND = flags.DEFINE_enum("kind", "plain", ["plain", "other"], "A kind.")
EXTEND = flags.DEFINE_bool("extend", False, "More.")
JSON, QUIET = app.json_flag(), app.quiet_flag()


def main(command=None):
    if CONFIG.name != "none":
        configs.parse_config(CONFIG.name, CONFIG.bind)
        import gin

        print(gin.get_configurable("toy.train")())
    error = {
        "interrupted": KeyboardInterrupt(),
        "wrong": InputError("It is wrong. Received: wrong;\\n  size=3 or extend=True works."),
        "failed": RunError("It failed."),
        "preempted": Preempted("SIGTERM came."),
        "bug": ValueError("a bug"),
    }.get(MODEL_DIR.value)
    if error is not None:
        raise error
    streams.tell("progress")
    streams.note("a note")
    app.print_json({"ran": command, "inf": float("inf")}) if JSON.value else print(f"ran {command}")


def run(**beside):
    more = {"common": ("size",), "examples": ("divco-toy none --model_dir=x",)}
    app.run(main, program="divco-toy", **{"required": ("config", "model_dir"), **more, **beside})
'''


@pytest.fixture
def divco_toy(toy_configs, monkeypatch, capfd):
    """Runs the toy program with flags."""
    (toy_configs.parent / "toy.py").write_text(PROGRAM)
    programs = Programs(monkeypatch, capfd, toy_configs.parent)

    def run(*arguments: str, **beside: Any) -> Result:
        config = () if any("--config" in argument for argument in arguments) else ("--config=none",)
        return programs("toy", *config, *arguments, **beside)

    return run


def one_line(result: Result) -> str:
    assert result.status == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("divco-toy: error: ") and "Received: " in line
    return line


def test_a_run_that_ends_well_exits_with_0_and_says_nothing_else(divco_toy):
    assert divco_toy("--model_dir=x", "--quiet") == Result(0, "ran None\n", "")


def test_progress_is_told_on_stdout_notes_on_stderr_and_quiet_silences_both(divco_toy):
    assert divco_toy("--model_dir=x") == Result(0, "progress\nran None\n", "a note\n")
    assert divco_toy("--model_dir=failed", "--quiet").stderr == "divco-toy: error: It failed.\n"
    assert not streams.quiet()  # of that program


def test_json_stands_alone_on_stdout_and_has_no_number_that_json_lacks(divco_toy):
    result = divco_toy("--model_dir=x", "--json")
    assert json.loads(result.stdout, parse_constant=pytest.fail) == {"ran": None, "inf": None}
    assert result.stderr == "progress\na note\n"


def test_the_config_may_stand_beside_the_flags(divco_toy):
    assert divco_toy("none", "--model_dir=x", "--config=none", "--quiet").stdout == "ran None\n"
    assert "Two configs. Received: rwo and --config=none; give one" in one_line(divco_toy("rwo", "--model_dir=x"))


def test_help_names_every_flag_of_ours_and_marks_what_is_required(divco_toy):
    result = divco_toy("--help")
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.startswith("Trains a toy.")
    groups = dict(re.findall(r"^(\w+):\n((?:  .*\n?)+)", result.stdout, re.MULTILINE))
    names = {title: re.findall(r"^  --(\w+)", text, re.MULTILINE) for title, text in groups.items()}
    assert names == {  # and none of absl's
        "required": ["model_dir"],
        "common": ["size"],
        "others": ["set", "bind", "kind", "extend", "json", "quiet", "version"],
        "examples": [],
    }
    assert groups["required"].startswith("  CONFIG ")
    assert "usage: divco-toy CONFIG --model_dir=MODEL_DIR" in result.stdout
    assert groups["examples"].strip() == "divco-toy none --model_dir=x"


def test_a_commands_help_lists_its_own_flags(divco_toy):
    result = divco_toy("step", "--help", commands=("step", "other"), flags_of=lambda command: ["size"])
    assert re.findall(r"^  --(\w+)", result.stdout, re.MULTILINE) == ["size"] and "divco-toy step" in result.stdout


def test_the_version_is_told(divco_toy):
    result = divco_toy("--version")
    assert (result.status, result.stdout) == (0, f"divco-toy {divco_tf.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--model_dri=x"],
            "Did you mean: model_dir ? Received: --config=none --model_dri=x; divco-toy --help lists",
        ),
        (["--config=none"], "--model_dir is missing. Received: --config=none; divco-toy CONFIG --model_dir=MODEL_DIR"),
        (["--size=3", "--nothing"], "Unknown command line flag 'nothing'. Received: --config=none --size=3 --nothing;"),
        (["--model_dir=x", "none", "more"], "Too many arguments. Received: more"),
        (["--model_dir="], "--model_dir is empty. Received: --model_dir=; --model_dir=VALUE works."),
        (["--model_dir=x", "--bind="], "--bind is empty."),
        (["--model_dir"], "Missing value for flag --model_dir. Received: --config=none --model_dir;"),
        (["--model_dir=x", "--model_dir=y"], "--model_dir is given 2 times. Received: y at last; give one."),
        (["--model_dir=x", "--extend", "--noextend"], "--extend is given 2 times."),
        (
            ["--model_dir=x", "--extend=maybe"],
            "flag --extend=maybe: ('Non-boolean argument",
        ),
        (["--model_dir=x", "--size=two"], "flag --size=two: invalid literal for int()"),
        (["--model_dir=x", "--kind=othr"], "flag --kind=othr: value should be one of <plain|other>."),
        (["--model_dir=wrong"], "It is wrong. Received: wrong; --size 3 or --extend works."),
        (["--model_dir=x", "--config=rwo"], "No such config. Received: rwo."),
        (["--model_dir=x", "--config=digits/row.gin", "--bind=toy.Rate.pek=1"], "toy.Rate has no parameter pek"),
        (["--model_dir=x", "--config=digits/row.gin", "--bind=toy.Rate.peak=-1.0"], "The peak is negative."),
    ],
)
def test_bad_input_exits_with_2_after_one_line(divco_toy, arguments, expected):
    assert expected in one_line(divco_toy(*arguments))


def test_all_missing_flags_are_told_at_once(divco):
    line = divco.refusal("train")
    assert "CONFIG and --model_dir are missing. Received: none; divco-train CONFIG --model_dir=MODEL_DIR" in line


def test_a_config_that_lacks_a_value_is_told(divco_toy):
    result = divco_toy("--model_dir=x", "--config=base.gin")
    assert result.status == 2 and "peak" in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_command_is_handed_to_main(divco_toy):
    assert divco_toy("step", "--model_dir=x", "--quiet", commands=("step",)).stdout == "ran step\n"


def test_a_missing_or_misspelt_command_is_refused(divco_toy):
    assert "step" in one_line(divco_toy("--model_dir=x", commands=("step",)))
    assert "Did you mean step?" in one_line(divco_toy("stpe", "--model_dir=x", commands=("step",)))


def test_an_operand_is_handed_to_main_and_must_be_there(divco_toy):
    assert divco_toy("folder", "--model_dir=x", "--quiet", operand="DIR").stdout == "ran folder\n"
    assert "DIR is missing. Received: --config=none --model_dir=x; divco-toy DIR CONFIG" in one_line(
        divco_toy("--model_dir=x", operand="DIR")
    )
    assert "Too many arguments. Received: b" in one_line(divco_toy("a", "b", "--model_dir=x", operand="DIR"))


@pytest.mark.parametrize(
    ("how", "status", "says"),
    [("failed", 1, "It failed."), ("preempted", 75, "SIGTERM came."), ("interrupted", 130, "interrupted")],
)
def test_the_exit_status_tells_how_a_run_ended(divco_toy, how, status, says):
    assert divco_toy(f"--model_dir={how}") == Result(status, "", f"divco-toy: error: {says}\n")


def test_a_bug_keeps_its_traceback(divco_toy):
    with pytest.raises(ValueError, match="a bug"):
        divco_toy("--model_dir=bug")


def python(code: str, *, redirect: str = "", **environment: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a process of its own, its streams redirected as a shell does."""
    process = subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" -c "$1" {redirect}', sys.executable, textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**{name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}, **environment},
        cwd=pathlib.Path(__file__).parents[3],
    )
    return process.returncode, process.stdout, process.stderr


LIST = "import sys; sys.argv += ['--list']; from divco_tf.tools import summarize; summarize.run()"
UNWRITTEN = "divco-summarize: error: stdout cannot be written (No space left on device).\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("redirect", "status", "stderr"),
    [
        ("| true", 0, ""),
        (">/dev/full", 1, UNWRITTEN),
        (">/dev/full 2>&1", 1, ""),
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_streams_that_cannot_be_written_leave_no_traceback(redirect, status, stderr, unbuffered):
    assert python(LIST, redirect=redirect, PYTHONUNBUFFERED=unbuffered) == (status, "", stderr)


def test_start_up_noise_is_held_back_where_stderr_is_closed():
    code = """
        import os
        from divco_tf.tools.shared import app, streams

        def main():
            with streams.stderr_held():
                os.write(2, b"noise")
            print("done")

        app.run(main, program="divco-toy")
    """
    assert python(code, redirect="2>&-") == (0, "done\n", "")


def test_progress_is_told_as_long_as_somebody_reads(monkeypatch):
    class Gone:
        def write(self, text):
            raise BrokenPipeError

    stdout = streams.Stdout(Gone())
    monkeypatch.setattr(sys, "stdout", stdout)
    streams.tell("step 1")
    assert stdout.error is None
    with pytest.raises(BrokenPipeError):
        print("the result")
    assert isinstance(stdout.error, BrokenPipeError)


@pytest.mark.parametrize("where", ["memory", "a temporary file", "nowhere"])
def test_noise_is_held_back_where_it_can_be_and_shown_after_an_error(capfd, monkeypatch, where):
    if where != "memory":
        monkeypatch.delattr(os, "memfd_create")
    if where == "nowhere":
        monkeypatch.setattr(streams.tempfile, "TemporaryFile", refuse)
    with streams.stderr_held():
        os.write(2, b"noise")
    assert capfd.readouterr().err == ("noise" if where == "nowhere" else "")
    with pytest.raises(ImportError), streams.stderr_held():
        os.write(2, b"why")
        raise ImportError
    assert capfd.readouterr().err == "why"


def refuse(*arguments):
    raise FileNotFoundError


def test_tensorflow_is_imported_where_there_is_no_temporary_folder(monkeypatch):
    monkeypatch.setattr(streams.tempfile, "tempdir", None)
    monkeypatch.setattr(streams.tempfile, "gettempdir", refuse)
    with streams.temporary_folder_named():
        assert streams.tempfile.tempdir == os.sep
    assert streams.tempfile.tempdir is None


def test_letters_that_a_terminal_lacks_are_escaped(tmp_path):
    code = "from divco_tf.tools.shared import app; app.run(lambda: print('\\xe9 \\udcff'), program='divco-toy')"
    assert python(code, PYTHONIOENCODING="ascii") == (0, "\\xe9 \\udcff\n", "")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(app.InputError, match=r"No run lies there .*Received: .*; divco-train's --model_dir works"):
        app.check_model_dir(str(tmp_path))
