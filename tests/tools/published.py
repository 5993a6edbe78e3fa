"""The paper's rows beside the reference's records."""

import re
from typing import Any

from divco_tf.tools import _paper_rows
from tests.reference import load_json

ROWS: dict[str, dict[str, Any]] = {row["config"]: row for row in _paper_rows.paper_tables()["rows"]}
RECORDS: dict[str, dict[str, Any]] = {record["key"]: record for record in load_json("backbones.json")["records"]}
_ARCHS = {record["arch"].lower(): record["arch"] for record in RECORDS.values()}


def arch(backbone: str) -> str:
    """The reference's name of one of our backbones."""
    return _ARCHS[re.sub(r"^efficientnet_b", "efficientnetb", backbone).removesuffix("_cifar")]


def record(row: dict[str, Any]) -> dict[str, Any]:
    """The reference's record of a row's network, at the image size that it was recorded for."""
    return RECORDS[f"{arch(row['backbone'])}__{row['dataset']}__S{row['split_factor']}"]
