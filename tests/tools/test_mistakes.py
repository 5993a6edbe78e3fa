"""Mistakes at the keyboard: each is answered in one line with a suggestion, before TensorFlow is imported."""

import functools
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIGITS = "digits/wide_resnet10_2_split4"
MISTAKES = [
    ("train", f"{DIGITS[:-1]} --model_dir=x", f"Did you mean {DIGITS}"),
    ("train", f"{DIGITS} --modle_dir=x", "Did you mean: model_dir"),
    ("train", f"{DIGITS} --model_dir=x --set=epohcs=2", "Did you mean epochs"),
    ("train", f"{DIGITS} --model_dir=x --set=warmup_epochs=2", "learning_rate.warmup_epochs=2 or cotraining."),
    ("train", f"{DIGITS} --model_dir=x --set=backbone=wide_resnet10_2_", "Did you mean wide_resnet"),
    ("train", f"{DIGITS} --model_dir=x --set=dataset=digts", "Did you mean digits"),
    ("train", f"{DIGITS} --model_dir=x --set=strategy=mirored", "one of auto, one_device, mirrored"),
    ("train", f"{DIGITS} --model_dir=x --set=overrides.drpout=0.3", "it has depth, widen_factor, dropout"),
    ("train", f"{DIGITS} --model_dir=x --bind=eopchs=2", "Did you mean epochs"),
    ("train", f"{DIGITS} --model_dir=x --bind=experiment.Experiment.epohcs=2", "Did you mean epochs"),
    ("train", f"{DIGITS} --model_dir=x --set=model_dir=y", "model_dir is a flag. "),
    ("train", DIGITS, "--model_dir is missing. Received: "),
    ("views", f"{DIGITS} --check --set=holdout=0.1", "Did you mean held_out"),
    ("sweep", f"{DIGITS} --out=x --grid=sede=1", "Did you mean seed"),
    ("summarize", "--backbone=wide_resnt28_10", "Did you mean wide_resnet28_10"),
    ("benchmark", "stpe", "Did you mean step"),
    ("benchmark", "grouped --batch_size=3", "it takes --rounds"),
    ("launch", "2 divco-trian", "Did you mean divco-train"),
    ("configs", "digts", "Did you mean digits"),
    ("evaluate", "--model_dir=x", "divco-train's --model_dir works"),
    ("report", "--otu=x", "Did you mean: out"),
    ("report", "nowhere", "divco-sweep's --out works"),
]
EACH = """
import json, sys
from tests.tools.in_process import fresh_program

for name, arguments in json.loads(sys.argv[1]):
    sys.argv = [f"divco-{name}", *arguments.split()]
    with fresh_program(name) as program:
        try:
            program.run()
        except SystemExit as ended:
            print("status", ended.code, file=sys.stderr)
print({"tensorflow", "keras"} & set(sys.modules))
"""


@functools.cache
def answers() -> tuple[str, list[str]]:
    """What a process that makes all mistakes in turn prints at the end, and its lines on stderr."""
    told = json.dumps([(name, arguments) for name, arguments, _ in MISTAKES])
    done = subprocess.run([sys.executable, "-c", EACH, told], cwd=ROOT, capture_output=True, text=True)
    return done.stdout, done.stderr.splitlines()


@pytest.mark.parametrize(("name", "arguments", "says"), MISTAKES)
def test_a_mistake_is_answered_in_one_line(name, arguments, says):
    _, lines = answers()
    index = 2 * MISTAKES.index((name, arguments, says))
    line, status = lines[index : index + 2]
    assert line.startswith(f"divco-{name}: error: ") and "Received: " in line and says in line
    assert status == "status 2"


def test_none_of_the_answers_took_tensorflow():
    stdout, lines = answers()
    assert stdout.splitlines()[-1] == "set()" and len(lines) == 2 * len(MISTAKES)
