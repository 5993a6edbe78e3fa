"""The tables of docs/configs/, every experiment and what is published of it: python -m tools.reports.config_pages

A table stands between two marks in a page, which is written anew. What is published comes from gin/paper_tables.json.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from divco_tf.tools.reports.marks import filled
from divco_tf.tools.reports.paper_rows import paper_tables
from divco_tf.tools.shared import configs
from divco_tf.tools.shared.tables import markdown_table

if TYPE_CHECKING:
    from divco_tf.runs.experiment import Experiment

PAGES = pathlib.Path(__file__).resolve().parents[2] / "docs" / "configs"
BEGIN, END = "<!-- table: tools/reports/config_pages.py -->", "<!-- end of table -->"


def families() -> list[str]:
    """The folders of configs that hold experiments."""
    return sorted({name.partition("/")[0] for name in configs.experiment_names()})


def experiments(family: str) -> dict[str, "Experiment"]:
    """Each experiment of a family by its config's name, in the order of backbones, lengths and split factors."""
    found = {}
    for name in configs.matching_configs(f"{family}/*"):
        configs.parse_config(name)
        found[name] = configs.experiment()
    keys = {name: (one.backbone, one.epochs or 0, one.split_factor) for name, one in found.items()}
    return {name: found[name] for name in sorted(found, key=keys.__getitem__)}


def family_table(described: Mapping[str, "Experiment"], rows: Sequence[Mapping[str, Any]]) -> str:
    """A line an experiment; figures of the paper where any of them has some."""
    published = {row["config"]: row for row in rows if row["config"] in described}
    errors = any("top1_error" in row for row in published.values())
    head = ["config", "S", "epochs", "batch"]
    if published:
        head += [f"published {'error' if errors else 'top-1 / top-5 accuracy'} %", "parameters M", "multiply-adds G"]
    lines = []
    for name, one in described.items():
        line = [f"`{name}`", str(one.split_factor), f"{one.epochs:,}", str(one.batch_size)]
        if published:
            line += _figures(published[name]) if name in published else ["–"] * 3
        lines.append(line)
    return markdown_table(head, lines)


def page(text: str, table: str) -> str:
    """The page with the table between its marks."""
    return filled(text, BEGIN, END, table)


def current(family: str) -> str:
    """What the family's page should be."""
    text = (PAGES / f"{family}.md").read_text(encoding="utf-8")
    return page(text, family_table(experiments(family), paper_tables()["rows"]))


def main() -> None:
    """Writes all pages."""
    for family in families():
        (PAGES / f"{family}.md").write_text(current(family), encoding="utf-8")


def _figures(row: Mapping[str, Any]) -> list[str]:
    accuracy = row["top1_error"] if "top1_error" in row else f"{row['top1']} / {row['top5']}"
    return [accuracy, row["mparams"], row["gmacs"]]


if __name__ == "__main__":
    main()
