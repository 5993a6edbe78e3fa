"""The choice of a benchmark, and its flags."""

import functools
import inspect
import json
import re
import sys

import pytest
from absl import flags

from divco_tf.tools.benchmarks import latency, memory
from tests.tools.in_process import TOOLS, fresh_program


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["step", "--rounds=0"], "flag --rounds=0: 0 is not a positive integer. Received: step --rounds=0;"),
        (["step", "--num_classes=1"], "flag --num_classes=1: "),
        (["step", "--backbone=wide_resent16_8"], "Did you mean wide_resnet16_8"),
        (["memory", "--split_factors=1,x"], "--split_factors is no list of whole numbers. Received: x"),
        (["latency", "--batch_sizes=1,x"], "--batch_sizes is no list of whole numbers. Received: x; 1,32 is one."),
        (["latency", "--threads=2"], "Threads are told as intra-op/inter-op. Received: threads=2; 2/2,1/2 works."),
        (
            ["latency", "--backbone=resnet110"],
            "`latency` has no --backbone. Received: --backbone; it takes --backbones",
        ),
        (["step", "--out=."], "--out is a file. Received: ., a folder; result.json works."),
        (["step", "--out=file/x.json"], "The folder of --out cannot be written"),
        (["stpe"], "Did you mean step?"),
        (
            ["grouped", "--steps=3"],
            "`grouped` has no --steps. Received: --steps; it takes --rounds, --out, --json, --quiet.",
        ),
        (["agreement", "--noxla"], "`agreement` has no --xla. Received: --xla; it takes --out, --json, --quiet."),
    ],
)
def test_bad_input_is_refused_before_anything_is_measured(divco, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert says in divco.refusal("benchmark", *arguments)


def test_a_command_gets_the_flags_that_were_given_and_tells_its_table_and_json(divco, tmp_path, monkeypatch):
    got = {}

    @functools.wraps(memory.run)
    def run(*, report, **given):
        got.update(given)
        return {"head": ("", "s"), "rows": [("x", "1")], "settings": {"steps": 3}, "systems": {"x": [1]}}

    monkeypatch.setattr(memory, "run", run)
    arguments = ("memory", "--split_factors=2,4", "--xla", "--steps=3")
    result = divco("benchmark", *arguments, f"--out={tmp_path / 'result.json'}")
    assert (result.status, result.stdout) == (0, "   s\n-  -\nx  1\n")
    assert got == {"split_factors": [2, 4], "xla": True, "steps": 3}
    kept = json.loads((tmp_path / "result.json").read_text())
    assert kept["command"].endswith(" ".join(arguments) + f" --out={tmp_path / 'result.json'}")
    assert kept["machine"]["cores"] >= 1 and (kept["settings"], kept["systems"]) == ({"steps": 3}, {"x": [1]})


def test_a_conclusion_is_the_last_line_behind_the_tables(divco, tmp_path, monkeypatch):
    got = {}

    @functools.wraps(latency.run)
    def run(*, report, **given):
        got.update(given)
        return {"tables": [(("", "s"), [("x", "1")])], "conclusion": "not faster", "settings": {}, "systems": {}}

    monkeypatch.setattr(latency, "run", run)
    arguments = ("--split_factors=2,4", "--batch_sizes=1,8", "--threads=2/2,1/2")
    result = divco("benchmark", "latency", *arguments, f"--out={tmp_path / 'result.json'}")
    assert (result.status, result.stdout) == (0, "   s\n-  -\nx  1\n\nnot faster\n")
    assert got == {"split_factors": [2, 4], "batch_sizes": [1, 8], "threads": ["2/2", "1/2"]}


def test_json_stands_alone_on_stdout(divco, monkeypatch):
    @functools.wraps(latency.run)
    def run(*, report):
        report("progress")
        return {"tables": [(("", "s"), [("x", "1")])], "settings": {}, "systems": {"x": float("nan")}}

    monkeypatch.setattr(latency, "run", run)
    result = divco("benchmark", "latency", "--json")
    assert json.loads(result.stdout, parse_constant=pytest.fail)["systems"] == {"x": None}
    assert result.stderr == "progress\n"


def test_every_flag_is_a_parameter_of_a_command_and_has_its_default_there(divco):
    with fresh_program("benchmark") as program:
        taken = [inspect.signature(program.run_of(command)).parameters for command in program.COMMANDS]
        for flag in program.PARAMETERS:
            assert any(flag.name in parameters for parameters in taken)
            assert flags.FLAGS[flag.name].default is None
    for parameters in taken:
        assert all(
            parameter.default is not parameter.empty for name, parameter in parameters.items() if name != "report"
        )


def test_commands_of_the_results_have_flags_that_they_take(divco):
    text = (TOOLS.parent / "docs" / "results.md").read_text()
    told = re.findall(r"divco-benchmark (\w+)((?: --[^`\n]*)?)", text)
    assert len(told) > 15
    with fresh_program("benchmark") as program:
        for command, given in told:
            parameters = inspect.signature(program.run_of(command)).parameters
            assert set(re.findall(r"--(\w+)", given)) - {"out"} <= set(parameters), (command, given)


def test_what_needs_the_laboratory_says_that_it_needs_a_checkout(divco, monkeypatch):
    for module in [name for name in sys.modules if re.match(r"divco_tf\.tools\.(laboratory|benchmarks\.views)", name)]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "divco_tf.tools.laboratory", None)
    line = divco.refusal("benchmark", "views")
    assert "`views` needs a checkout. Received: an installed divco_tf; in a checkout python tools/benchmark.py" in line
