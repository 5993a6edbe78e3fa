"""Sizes of a divided backbone: divco-summarize --backbone wide_resnet28_10 --split_factor 4 --num_classes 100.

Parameters, multiply-adds (of convolutions and linear layers, for one image) and divided regularisers, counted from
shapes: no weights are built. Several split factors, --split_factor 2,3,4, are compared with the large network.
--list, --all and --paper are tables of all backbones, and of the paper's rows.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from absl import flags

from divco_tf.errors import InputError
from divco_tf.models.divide import BUDGETS, RULES
from divco_tf.tools.shared import app, streams

if TYPE_CHECKING:
    from divco_tf.models.summary import Summary

_BACKBONE = flags.DEFINE_string(
    "backbone",
    None,
    "The name of a registered backbone; required but for --list, --all and --paper.",
)
_SPLIT_FACTOR = flags.DEFINE_list("split_factor", ["1"], "S, the number of small networks; several: 2,4,8.")
_RULE = flags.DEFINE_string(
    "rule", "paper", f"{' or '.join(RULES)}: the published divisions, or any S by the width that keeps to a budget."
)
_BUDGET = flags.DEFINE_string("budget", "parameters", f"{' or '.join(BUDGETS)}: what --rule budget keeps to.")
_NUM_CLASSES = flags.DEFINE_integer("num_classes", 10, "K.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Pixels a side.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")
_LIST = flags.DEFINE_bool("list", False, "Print every registered backbone with the split factors that it takes.")
_ALL = flags.DEFINE_bool("all", False, "Print the sizes of every registered backbone by split factor (minutes).")
_PAPER = flags.DEFINE_bool("paper", False, "Print the paper's rows, published sizes against computed ones (minutes).")
_MARKDOWN = flags.DEFINE_bool("markdown", False, "Print --all or --paper as a page of Markdown.")
_QUIET = app.quiet_flag()


def main() -> None:
    """Prints the summary of one division, or a table."""
    tables = [flag.name for flag in (_LIST, _ALL, _PAPER) if flag.value]
    if len(tables) > 1:
        raise InputError(f"Several tables at once. Received: --{', --'.join(tables)}; give one of them.")
    if _MARKDOWN.value and tables not in (["all"], ["paper"]):
        raise InputError("--markdown is of --all and --paper. Received: neither; add one of them.")
    if _MARKDOWN.value and _JSON.value:
        raise InputError("A table is JSON or Markdown. Received: --json and --markdown; give one of them.")
    {"list": _print_list, "all": _print_all, "paper": _print_paper}.get("".join(tables), _print_summary)()


def _print_list() -> None:
    from divco_tf.models.backbones.registry import BACKBONES
    from divco_tf.tools.reports.backbone_table import list_backbones, split_factors

    if _JSON.value:
        app.print_json([{"backbone": name, "split_factors": split_factors(name)} for name in BACKBONES.names()])
    else:
        print(list_backbones())


def _print_all() -> None:
    app.load_tensorflow()
    from divco_tf.models.backbones.registry import BACKBONES
    from divco_tf.tools.reports.backbone_table import backbone_table, summaries

    found = summaries(BACKBONES.names(), _progress())
    if _JSON.value:
        app.print_json([dataclasses.asdict(summary) for summary in found])
    else:
        print(backbone_table(found, markdown=_MARKDOWN.value))


def _print_paper() -> None:
    app.load_tensorflow()
    from divco_tf.tools.reports.paper_rows import count_rows, paper_table, paper_tables

    rows = paper_tables()["rows"]
    counts = count_rows(rows, _progress())
    if _JSON.value:
        app.print_json([{**row, "counted": dataclasses.asdict(counts[row["config"]])} for row in rows])
    else:
        print(paper_table(rows, counts, markdown=_MARKDOWN.value))


def _progress(*, seconds: float = 5.0) -> Callable[[str], None]:
    """Tells a line on stderr, at most one in so many seconds."""
    told = time.monotonic()

    def report(line: str) -> None:
        nonlocal told
        if time.monotonic() - told >= seconds:
            told = time.monotonic()
            streams.note(line)

    return report


def _print_summary() -> None:
    from divco_tf.models.backbones.registry import BACKBONES
    from divco_tf.models.division import check_division

    if _BACKBONE.value is None:
        raise app.missing_flag("backbone", BACKBONES.names())
    split_factors, options = _split_factors(), {"rule": _RULE.value, "budget": _BUDGET.value}
    for split_factor in split_factors:  # refuses before TensorFlow is imported
        check_division(_BACKBONE.value, split_factor=split_factor, **options)
    app.load_tensorflow()
    from divco_tf.models.sizes import Sizes
    from divco_tf.models.summary import summarize

    data = {"num_classes": _NUM_CLASSES.value, "input_shape": (_IMAGE_SIZE.value, _IMAGE_SIZE.value, 3)}
    sizes = Sizes(**data)
    summaries = [
        summarize(_BACKBONE.value, split_factor=split_factor, sizes=sizes, **data, **options)
        for split_factor in split_factors
    ]
    if _JSON.value:
        records = [dataclasses.asdict(summary) for summary in summaries]
        app.print_json(records[0] if len(records) == 1 else records)
    elif len(summaries) == 1:
        print(_branches(*summaries))
    else:
        print(_comparison(summarize(_BACKBONE.value, sizes=sizes, **data), summaries))


def _split_factors() -> list[int]:
    try:
        return [int(value) for value in _SPLIT_FACTOR.value or ["none"]]
    except ValueError:
        raise InputError(
            f"A split factor is a whole number. Received: {','.join(_SPLIT_FACTOR.value)}; --split_factor 2,4,8 works."
        ) from None


def _branches(summary: "Summary") -> str:
    """A row a branch, and the whole."""
    from divco_tf.tools.shared.tables import table

    branch = (f"{summary.parameters_per_branch:,}", f"{summary.multiply_adds_per_branch:,}")
    branch += (_named(summary.width), _named(summary.regularisation))
    rows = [(f"branch {index}", *branch) for index in range(summary.split_factor)]
    rows.append(("whole", f"{summary.parameters:,}", f"{summary.multiply_adds:,}", "", ""))
    title = f"{summary.backbone}, split factor {summary.split_factor}"
    lines = [table((title, "parameters", "multiply-adds", "width", "regularisers"), rows)]
    if summary.of_budget is not None:
        budget = _BUDGET.value.replace("_", "-")
        lines.append(f"{100 * summary.of_budget:.2f} % of the {budget} of the large network")
    return "\n".join(lines)


def _comparison(large: "Summary", summaries: list["Summary"]) -> str:
    """A row a split factor, with the S networks' sizes and their shares of the large network's."""
    from divco_tf.tools.shared.tables import table

    rows = [
        (
            f"split factor {summary.split_factor}",
            f"{summary.parameters:,}",
            f"{100 * summary.parameters / large.parameters:.2f} %",
            f"{summary.multiply_adds:,}",
            f"{100 * summary.multiply_adds / large.multiply_adds:.2f} %",
            _named(summary.width),
            _named(summary.regularisation),
        )
        for summary in (large, *(summary for summary in summaries if summary.split_factor > 1))
    ]
    return table((large.backbone, "parameters", "", "multiply-adds", "", "width", "regularisers"), rows)


def _named(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items()) or "none"


def run() -> None:
    """The console script."""
    app.run(
        main,
        program="divco-summarize",
        common=("backbone", "split_factor", "num_classes", "image_size", "list"),
        examples=(
            "divco-summarize --backbone=wide_resnet28_10 --split_factor=4 --num_classes=100",
            "divco-summarize --backbone=wide_resnet28_10 --split_factor=2,3,5 --rule=budget --json",
        ),
    )


if __name__ == "__main__":
    run()
