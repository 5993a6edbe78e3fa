"""The table of backbones: docs/backbones.md is what divco-summarize --all --markdown prints."""

import pytest

from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.tools.reports.backbone_table import (
    IMAGE_SIZES,
    PAPERS,
    backbone_table,
    list_backbones,
    split_factors,
    summaries,
    table_row,
)
from tests.models.goldens import RECORDS, backbone_name
from tests.reference import load_json
from tests.tools.published import DOCS, cells

OURS = [entry.name for entry in BACKBONES.entries() if entry.builder.__module__.startswith("divco_tf.models.")]
PAGE = {(cell[0], int(cell[2])): cell for cell in cells("backbones.md") if cell[0] in OURS}
CHEAP = ["wide_resnet16_8", "wide_resnet16_12"]


def test_the_page_has_every_backbone_by_every_split_factor_that_it_takes():
    assert list(PAGE) == [(name, split_factor) for name in OURS for split_factor in split_factors(name, PAPERS)]


def test_a_backbone_is_measured_at_the_image_size_that_the_reference_names():
    for record in RECORDS.values():
        assert IMAGE_SIZES.get(backbone_name(record), 32) == record["input_size"], record["key"]
    assert set(IMAGE_SIZES) <= set(OURS)


def test_sizes_on_the_page_are_the_references():
    compared = 0
    for record in RECORDS.values():
        if record["dataset"] == "cifar10":  # the page has the 100 classes of the other
            continue
        _, pixels, _, parameters, multiply_adds, _ = PAGE[backbone_name(record), record["split_factor"]]
        assert int(pixels) == record["input_size"], record["key"]
        assert int(multiply_adds.replace(",", "")) == record["macs_total"], record["key"]
        if record["arch"] != "shake_resnet26_2x96d":  # whose unused shortcuts are not built
            assert int(parameters.replace(",", "")) == record["params_total"], record["key"]
        compared += 1
    # Networks of other libraries, and those that the authors do not have, have no record.
    known = {backbone_name(record) for record in RECORDS.values()}
    assert compared == sum(name in known for name, _ in PAGE) > 100


@pytest.mark.parametrize("name", CHEAP)
def test_rows_are_what_is_counted(name):
    for summary in summaries([name], lambda line: None):
        assert PAGE[name, summary.split_factor] == table_row(summary)


@pytest.mark.slow
def test_the_page_is_current():
    assert (
        backbone_table(summaries(OURS, lambda line: None), markdown=True) + "\n" == (DOCS / "backbones.md").read_text()
    )


def test_the_split_factors_listed_are_those_that_the_reference_builds():
    taken = {name: split_factors(name) for name in map(backbone_name, RECORDS.values())}
    for record in RECORDS.values():
        assert record["split_factor"] in taken[backbone_name(record)], record["key"]
    refused = [error for error in load_json("backbones.json")["build_errors"] if error["dataset"] == "imagenet"]
    refused = [error for error in refused if "." not in error["arch"]]  # a variant that is not kept
    for error in refused:
        assert error["split_factor"] not in taken[backbone_name(error)], error
    assert len(refused) > 10


def test_the_list_needs_names_only():
    listed = dict(line.split(maxsplit=1) for line in list_backbones().splitlines() if len(line.split()) > 1)
    assert set(BACKBONES.names()) <= set(listed)
    assert listed["resnet110"].split(",")[-1].split() == ["16", "any"]
    assert listed["wide_resnet28_10"].split() == ["any", "any"]
    assert listed["keras_mobilenet"].split() == ["1", "any"]


def test_progress_is_told_a_division_at_a_time():
    lines = []
    summaries(CHEAP, lines.append)
    assert lines[0] == "counting network 1 of 8: wide_resnet16_8, S = 1" and len(lines) == 8
