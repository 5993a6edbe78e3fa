"""The paper's rows and our backbones beside the reference's records."""

import pathlib
import re
from typing import Any

from divco_tf.tools.reports import paper_rows
from tests.models.goldens import RECORDS

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"
ROWS: dict[str, dict[str, Any]] = {row["config"]: row for row in paper_rows.paper_tables()["rows"]}
_ARCHS = {record["arch"].lower(): record["arch"] for record in RECORDS.values()}


def arch(backbone: str) -> str:
    """The reference's name of one of our backbones."""
    return _ARCHS[re.sub(r"^efficientnet_b", "efficientnetb", backbone).removesuffix("_cifar")]


def record_of(row: dict[str, Any]) -> dict[str, Any]:
    """The reference's record of a row's network, at the image size that it was recorded for."""
    return RECORDS[f"{arch(row['backbone'])}__{row['dataset']}__S{row['split_factor']}"]


def cells(page: str) -> list[tuple[str, ...]]:
    """The rows of every table of a page of Markdown, heads included."""
    lines = (DOCS / page).read_text().splitlines()
    return [tuple(line.strip("| ").replace("`", "").split(" | ")) for line in lines if line.startswith("| ")]
