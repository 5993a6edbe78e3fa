"""Lists the shipped experiments: divco-configs "cifar100/*split4"

Each with its dataset, backbone, S and epochs, and what the paper publishes for it (top-1 of the test images, in
percent). CONFIG of divco-train is one of the names; divco-train CONFIG --dry_run tells all that a run of it will be.
"""

import fnmatch
from typing import Any

from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean
from divco_tf.tools.reports.paper_rows import paper_tables
from divco_tf.tools.shared import app, configs, outline
from divco_tf.tools.shared.tables import table

_JSON = app.json_flag("Print JSON instead of a table, with the paper's row as it is.")


def main(pattern: str = "*") -> None:
    """Prints the experiments whose names a pattern finds, or hold the text that it is."""
    names = configs.experiment_names()
    known = [part for name in names for part in (name, *name.split("/"))]
    found = fnmatch.filter(names, pattern if set("*?[") & set(pattern) else f"*{pattern}*")
    if not found:
        raise InputError(f"No config is found. Received: {pattern}.{did_you_mean(pattern, known)} '*split4' works.")
    published = {row["config"]: row for row in paper_tables()["rows"]}
    records = [{**_record(name), "published": published.get(name)} for name in found]
    if _JSON.value:
        app.print_json(records)
        return
    head = ("config", "dataset", "backbone", "S", "epochs", "published top-1 %")
    print(table(head, [(*list(record.values())[:-1], _accuracy(record["published"])) for record in records]))


def _record(name: str) -> dict[str, Any]:
    found = outline.read(configs.find_config(name))
    fields = ("dataset", "backbone", "split_factor", "epochs")
    return {"config": name, **{field: found.value("Experiment", field) for field in fields}}


def _accuracy(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return row["top1"] if "top1" in row else f"{100 - float(row['top1_error']):.2f}"


def run() -> None:
    """The console script."""
    app.run(
        main,
        program="divco-configs",
        operand="[PATTERN]",
        behind="[--json]",
        examples=("divco-configs", "divco-configs 'cifar100/*split4'", "divco-configs wide_resnet28_10 --json"),
    )


if __name__ == "__main__":
    run()
