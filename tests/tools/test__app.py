import os
import pathlib
import subprocess
import sys

import pytest

PROGRAM = '''
"""Trains a toy."""

import sys

from divco_tf.errors import InputError
from divco_tf.tools import _app, _configs

CONFIG, BIND = _app.config_flags()
MODEL_DIR = _app.model_dir_flag()


def main(command=None):
    if CONFIG.value:
        _configs.parse_config(CONFIG.value, BIND.value)
        import gin

        print(gin.get_configurable("toy.train")())
    if MODEL_DIR.value == "interrupted":
        raise KeyboardInterrupt
    if MODEL_DIR.value == "wrong":
        raise InputError("It is wrong. Received: wrong;\\n  right works.")
    if MODEL_DIR.value == "bug":
        raise ValueError("a bug")
    if MODEL_DIR.value == "tensorflow":
        _app.load_tensorflow()
        import tensorflow as tf

        tf.constant(1)
    print(f"ran {command}")
    if MODEL_DIR.value != "tensorflow":
        assert "tensorflow" not in sys.modules


COMMANDS = ()
_app.run(main, program="divco-toy", commands=COMMANDS)
'''


@pytest.fixture
def program(toy_configs):
    """Runs the toy program with flags; returns the completed process."""
    script = toy_configs.parent / "program.py"

    def run(*arguments: str, commands: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
        script.write_text(PROGRAM.replace("COMMANDS = ()", f"COMMANDS = {commands!r}"))
        root = str(pathlib.Path(__file__).resolve().parents[2])
        environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
        environment["PYTHONPATH"] = root
        return subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True, env=environment, cwd=toy_configs
        )

    return run


def one_line(process: subprocess.CompletedProcess) -> str:
    assert process.returncode == 2
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("divco-toy: error: ")
    return line


def test_a_run_that_ends_well_exits_with_0_and_says_nothing_else(program):
    process = program("--model_dir=x")
    assert (process.returncode, process.stdout, process.stderr) == (0, "ran None\n", "")


def test_help_names_every_flag_of_ours_and_none_of_absl(program):
    process = program("--help")
    assert process.returncode == 0 and process.stderr == ""
    assert process.stdout.startswith("Trains a toy.")
    assert all(f"--{name}" in process.stdout for name in ("config", "bind", "model_dir"))
    assert "pdb" not in process.stdout and "verbosity" not in process.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model_dri=x"], "Did you mean: model_dir"),
        ([], "--model_dir must have a value"),
        (["--model_dir=x", "more"], "Too many arguments. Received: more"),
        (["--model_dir=wrong"], "It is wrong. Received: wrong; right works."),
        (["--model_dir=x", "--config=rwo"], "No such config. Received: rwo."),
        (["--model_dir=x", "--config=digits/row.gin", "--bind=toy.Rate.pek=1"], "toy.Rate has no parameter pek"),
        (["--model_dir=x", "--config=digits/row.gin", "--bind=toy.Rate.peak=-1.0"], "The peak is negative."),
        (["--model_dir=x", "--config=base.gin"], "peak"),
    ],
)
def test_bad_input_exits_with_2_after_one_line(program, arguments, expected):
    assert expected in one_line(program(*arguments))


def test_a_command_is_handed_to_main(program):
    assert program("step", "--model_dir=x", commands=("step",)).stdout == "ran step\n"


def test_a_missing_or_misspelt_command_is_refused(program):
    assert "step" in one_line(program("--model_dir=x", commands=("step",)))
    assert "Did you mean step?" in one_line(program("stpe", "--model_dir=x", commands=("step",)))


def test_an_interrupted_run_exits_with_130_and_no_traceback(program):
    process = program("--model_dir=interrupted")
    assert process.returncode == 130 and process.stderr == "divco-toy: error: interrupted\n"


def test_a_bug_keeps_its_traceback(program):
    process = program("--model_dir=bug")
    assert process.returncode == 1 and "Traceback" in process.stderr


def test_tensorflow_starts_without_a_word(program):
    process = program("--model_dir=tensorflow")
    assert (process.returncode, process.stdout, process.stderr) == (0, "ran None\n", "")
