"""The published rows, counted: docs/paper_rows.md is what divco-summarize --paper --markdown prints."""

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divco_tf.tools.reports import paper_rows
from divco_tf.tools.reports.paper_rows import Counts, count_row, count_rows, equal_counts, paper_table, table_row
from tests.reference import load_json
from tests.tools.published import DOCS, ROWS, arch, cells, record_of

PAGE = {cell[0]: cell for cell in cells("paper_rows.md") if cell[0] in ROWS}
CHEAP = [config for config in ROWS if re.search(r"wide_resnet16_8|resnet110_split2$|resnext29_8x64d_split1$", config)]
THOP = 1e-9  # relative; the reference's sum is in float32


def reference_counts(config: str) -> Counts | None:
    """What the reference's tools count; None where it was recorded at another image size, or has unused tensors."""
    row, record = ROWS[config], record_of(ROWS[config])
    if record["input_size"] != row["crop"] or row["backbone"].startswith("shake"):
        return None
    summary, thop = record["ref_summary"] or {}, record["ref_thop"] or {}
    return Counts(
        parameters=record["params_total"],
        statistics=row["split_factor"] * record["bn_buffer_elems"],
        multiply_adds=record["macs_total"],
        summary=summary.get("total_flops_half") or 0,
        thop=round(row["split_factor"] * thop.get("one_net_ops", 0)),
    )


def check_counts(config: str, counts: Counts) -> None:
    """Against the reference's; at other image sizes, and for Shake-Shake, against its rounded ones of the same row."""
    expected = reference_counts(config)
    if expected is not None:
        for name, value in dataclasses.asdict(expected).items():
            if value:  # 0: the reference's tool fails there
                assert getattr(counts, name) == pytest.approx(value, rel=THOP if name == "thop" else 0, abs=0), name
        return
    network = (arch(ROWS[config]["backbone"]), ROWS[config]["split_factor"], ROWS[config]["crop"])
    for published in load_json("published.json")["classification"]:
        if (published["arch"], published["split_factor"], published["crop"]) == network:
            operations = {"macs_conv+linear": counts.multiply_adds, "summary_flops/2": counts.summary}
            operations["thop_ops"] = counts.thop
            for name, value in published["computed_GFLOPs"].items():
                assert round(operations[name] / 1e9, 4) == value, name
            called = published["computed_MParams"].get("thop_params(called modules only)")
            assert round(counts.parameters / 1e6, 3) == (called or published["computed_MParams"]["params"])


def test_the_packaged_tables_are_the_papers():
    def numbers(row):
        kept = {name: value for name, value in row.items() if name not in ("config", "dataset", "member_top1")}
        return {name: float(value) if re.fullmatch(r"[\d.]+", str(value)) else value for name, value in kept.items()}

    packaged, original = paper_rows.paper_tables(), load_json("paper_tables.json")
    for part in ("rows", "detection_rows"):
        assert [numbers(row) for row in packaged[part]] == [numbers(row) for row in original[part]]
    for ours, theirs in zip(packaged["rows"], original["rows"], strict=True):
        assert ours["dataset"] == theirs["dataset"].replace("imagenet2012", "imagenet")
        assert list(map(float, ours.get("member_top1", []))) == theirs.get("member_top1", [])


def test_figures_have_the_decimals_of_their_column():
    for row in ROWS.values():
        assert len(row["gmacs"].split(".")[1]) == (1 if row["dataset"] == "imagenet" else 2)
        assert len(row["mparams"].split(".")[1]) == (2 if float(row["mparams"]) < 10 else 1)


def test_the_page_has_every_row_with_its_published_figures():
    assert list(PAGE) == [
        row["config"] for table in paper_rows.TITLES for row in ROWS.values() if row["table"] == table
    ]
    for config, row in ROWS.items():
        accuracy = row["top1_error"] if "top1_error" in row else f"{row['top1']} / {row['top5']}"
        assert (PAGE[config][1], PAGE[config][2], PAGE[config][5]) == (accuracy, row["mparams"], row["gmacs"])


def test_the_page_is_what_the_references_own_counts_give():
    compared = {config: counts for config in ROWS if (counts := reference_counts(config))}
    assert len(compared) == 79 - 5 - 3  # five at another image size, three of Shake-Shake
    assert {config: PAGE[config] for config in compared} == {
        config: table_row(ROWS[config], counts) for config, counts in compared.items()
    }


@pytest.mark.parametrize("config", CHEAP)
def test_our_networks_count_as_the_references_tools_do(config):
    counts = count_row(ROWS[config])
    check_counts(config, counts)
    assert PAGE[config] == table_row(ROWS[config], counts)


@pytest.mark.slow
def test_the_page_is_current():
    rows = list(ROWS.values())
    counted = count_rows(rows, lambda line: None)
    for config, counts in counted.items():
        check_counts(config, counts)
    assert paper_table(rows, counted, markdown=True) + "\n" == (DOCS / "paper_rows.md").read_text()


def test_each_network_is_counted_once(monkeypatch):
    counted = []
    monkeypatch.setattr(paper_rows, "count_row", lambda row: counted.append(row["config"]) or Counts(1, 1, 1, 1, 1))
    lines = []
    found = count_rows(ROWS.values(), lines.append)
    assert set(found) == set(ROWS) and len(counted) == len(set(counted)) == len(lines) == 67
    assert lines[-1].startswith("counting network 67 of 67: ")


@given(st.integers(10**5, 10**9), st.integers(10**8, 10**11), st.sampled_from([1, 2]))
def test_a_count_is_equal_to_itself_as_printed_and_to_no_other_figure(parameters, operations, decimals):
    def printed(count, unit, off=0):
        return f"{round(count / unit, decimals) + off * 10**-decimals:.{decimals}f}"

    counts = Counts(parameters, 0, operations, 2 * operations + 10**9, 3 * operations + 10**10)
    row = {"backbone": "any", "mparams": printed(parameters, 1e6), "gmacs": printed(operations, 1e9)}
    assert equal_counts(row, counts) == (["parameters", "with statistics"], ["multiply-adds"])
    row = {"backbone": "any", "mparams": printed(parameters, 1e6, 1), "gmacs": printed(operations, 1e9, -1)}
    assert equal_counts(row, counts) == ([], [])


def test_a_count_that_the_authors_tool_cannot_make_explains_no_figure():
    row = {"backbone": "efficientnet_b7", "mparams": "1.0", "gmacs": "1.0"}
    assert equal_counts(row, Counts(1, 0, 1, 1, 10**9)) == ([], [])
    assert equal_counts({**row, "backbone": "resnet50"}, Counts(1, 0, 1, 1, 10**9)) == ([], ["thop"])
