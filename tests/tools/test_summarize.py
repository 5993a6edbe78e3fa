"""divco-summarize: sizes as JSON and as a table, from shapes alone."""

import json
import math
import re
import subprocess
import sys
import time

import pytest

from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.tools.reports import paper_rows
from tests.reference import load_json
from tests.tools.in_process import fresh_program


@pytest.mark.parametrize("key", ["wide_resnet28_10__cifar100__S4", "resnet164__cifar10__S2"])
def test_json_is_the_references_record(divco, key):
    record = next(record for record in load_json("backbones.json")["records"] if record["key"] == key)
    result = divco(
        "summarize",
        f"--backbone={record['arch'].lower()}",
        f"--split_factor={record['split_factor']}",
        f"--num_classes={record['num_classes']}",
        "--image_size=32",
        "--json",
    )
    assert (result.status, result.stderr) == (0, "")
    summary = json.loads(result.stdout)
    assert summary["parameters"] == record["params_total"]
    assert summary["multiply_adds"] == record["macs_total"]
    assert summary["parameters_per_branch"] * record["split_factor"] == record["params_total"]
    assert summary["multiply_adds_per_branch"] * record["split_factor"] == record["macs_total"]
    assert (summary["backbone"], summary["split_factor"]) == (record["arch"].lower(), record["split_factor"])
    assert set(summary) == {
        *("backbone", "split_factor", "parameters", "parameters_per_branch"),
        *("multiply_adds", "multiply_adds_per_branch", "width", "regularisation", "of_budget"),
    }


def test_the_table_has_a_row_a_branch_and_the_whole(divco):
    command = ("summarize", "--backbone=wide_resnet40_10", "--split_factor=2", "--num_classes=100")
    head, _, *branches, whole = divco(*command).stdout.splitlines()
    summary = json.loads(divco(*command, "--json").stdout)
    assert head.startswith("wide_resnet40_10, split factor 2") and len(branches) == 2
    for branch in branches:
        assert f"{summary['parameters_per_branch']:,}" in branch and "dropout" in branch
    assert whole.split() == ["whole", f"{summary['parameters']:,}", f"{summary['multiply_adds']:,}"]
    # WRN-40-10's dropout of 0.1 is divided by S or its root, never left as it is.
    assert any(math.isclose(summary["regularisation"]["dropout"], 0.1 / divisor) for divisor in (2, math.sqrt(2)))


def test_several_split_factors_are_compared_with_the_large_network(divco):
    result = divco("summarize", "--backbone=wide_resnet10_4", "--split_factor=1,2,3,5", "--rule=budget")
    _, _, *rows = result.stdout.splitlines()
    assert [row.split()[:3] for row in rows] == [["split", "factor", factor] for factor in "1235"]
    shares = [float(row.split()[4]) for row in rows]
    assert shares[0] == 100 and all(97 < share <= 100 for share in shares)
    assert all("widen_factor" in row and "dropout" in row for row in rows)


def test_the_budget_rule_says_how_close_it_came(divco):
    command = ("summarize", "--backbone=wide_resnet16_4", "--split_factor=3", "--rule=budget", "--budget=multiply_adds")
    summary = json.loads(divco(*command, "--json").stdout)
    assert 0.97 < summary["of_budget"] <= 1
    *_, last = divco(*command).stdout.splitlines()
    assert last == f"{100 * summary['of_budget']:.2f} % of the multiply-adds of the large network"


def test_a_network_of_gigabytes_answers_in_seconds(divco):
    started = time.process_time()
    result = divco("summarize", "--backbone=wide_resnet28_100", "--split_factor=1", "--num_classes=1000", "--json")
    assert json.loads(result.stdout)["parameters"] > 3.5e9
    assert time.process_time() - started < 10


def test_every_backbone_is_listed_with_its_split_factors(divco):
    listed = [line.split() for line in divco("summarize", "--list").stdout.splitlines()]
    assert set(BACKBONES.names()) <= {line[0] for line in listed} and ["wide_resnet<depth>_<width>"] in listed
    assert ["resnet110", "1,", "2,", "4,", "8,", "16", "any"] in listed


def test_the_list_is_json_on_request(divco):
    listed = {
        each["backbone"]: each["split_factors"] for each in json.loads(divco("summarize", "--list", "--json").stdout)
    }
    assert listed.keys() == set(BACKBONES.names()) and listed["resnet110"] == [1, 2, 4, 8, 16]


def test_the_list_answers_at_once():
    code = "import sys; from divco_tf.tools import summarize; sys.argv += ['--list']; summarize.run()"
    process = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True)
    assert process.returncode == 0 and "wide_resnet28_10" in process.stdout
    assert not re.search(r"\| +(tensorflow|keras|numba)$", process.stderr, flags=re.MULTILINE)


def test_all_backbones_are_printed_as_a_table_or_as_a_page(divco, monkeypatch):
    monkeypatch.setattr(BACKBONES, "names", lambda: ("wide_resnet16_8",))
    page, text = divco("summarize", "--all", "--markdown"), divco("summarize", "--all")
    assert (page.status, text.status) == (0, 0)
    assert "| wide_resnet16_8 | 32 | 4 | 11,091,664 | 1,570,541,568 | – |" in page.stdout
    assert ["wide_resnet16_8", "32", "4", "11,091,664", "1,570,541,568", "–"] in map(
        str.split, text.stdout.splitlines()
    )


def test_the_papers_rows_are_printed_as_tables_or_as_a_page(divco, monkeypatch):
    monkeypatch.setattr(paper_rows, "count_row", lambda row: paper_rows.Counts(1, 1, 1, 1, 1))
    page, text = divco("summarize", "--paper", "--markdown").stdout, divco("summarize", "--paper").stdout
    for row in paper_rows.paper_tables()["rows"]:
        assert f"| `{row['config']}` |" in page and f"\n{row['config']} " in text
    assert "0 of 79 rows have both figures equal to a count." in page


def test_progress_is_told_on_stderr_not_too_often(capsys):
    with fresh_program("summarize") as program:
        often, rarely = program._progress(seconds=0.0), program._progress(seconds=1000.0)
        often("one"), rarely("two"), often("three")
    assert capsys.readouterr() == ("", "one\nthree\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--backbone is missing"),
        (["--backbone=wide_resent28_10"], "Did you mean wide_resnet28_10"),
        (["--backbone=wide_resnet27_10"], "6 n + 4"),
        (["--backbone=wide_resnet28_10", "--split_factor=0"], "split factor"),
        (["--backbone=wide_resnet28_10", "--split_factor=2,x"], "2,x"),
        (["--backbone=resnet110", "--split_factor=3"], "--rule budget divides by any number"),
        (["--backbone=resnet110", "--rule=width"], "'width'; pass one of paper, budget"),
        (["--backbone=resnet110", "--rule=budget", "--budget=flops"], "'flops'"),
        (["--backbone=wide_resnet10_1", "--rule=budget", "--split_factor=100000"], "split_factor=100000"),
        (["--backbone=wide_resnet28_10", "--num_classes=1"], "num_classes=1"),
        (["--backbone=wide_resnet28_10", "--image_size=0"], "(0, 0, 3)"),
        (["--list", "--all"], "--list, --all; give one"),
        (["--backbone=wide_resnet28_10", "--markdown"], "--all and --paper"),
    ],
)
def test_bad_input_is_refused_in_one_line(divco, arguments, says):
    assert says in divco.refusal("summarize", *arguments)
