"""Sizes of a divided backbone: divco-summarize --backbone wide_resnet28_10 --split_factor 4 --num_classes 100.

Parameters, multiply-adds (of convolutions and linear layers, for one image) and divided regularisers, counted from
shapes: no weights are built. --list, --all and --paper are tables of all backbones, and of the paper's rows.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable

from absl import flags

from divco_tf.errors import InputError
from divco_tf.tools import _app

_BACKBONE = flags.DEFINE_string("backbone", None, "The name of a registered backbone.")
_SPLIT_FACTOR = flags.DEFINE_integer("split_factor", 1, "S, the number of small networks.")
_NUM_CLASSES = flags.DEFINE_integer("num_classes", 10, "K.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 32, "Pixels a side.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")
_LIST = flags.DEFINE_bool("list", False, "Print every registered backbone with the split factors that it takes.")
_ALL = flags.DEFINE_bool("all", False, "Print the sizes of every registered backbone by split factor (minutes).")
_PAPER = flags.DEFINE_bool("paper", False, "Print the paper's rows, published sizes against computed ones (minutes).")
_MARKDOWN = flags.DEFINE_bool("markdown", False, "Print --all or --paper as a page of Markdown.")


def main() -> None:
    """Prints the summary of one division, or a table."""
    tables = [flag.name for flag in (_LIST, _ALL, _PAPER) if flag.value]
    if len(tables) > 1:
        raise InputError(f"Several tables at once. Received: --{', --'.join(tables)}; give one of them.")
    if _MARKDOWN.value and tables not in (["all"], ["paper"]):
        raise InputError("--markdown is of --all and --paper. Received: neither; add one of them.")
    {"list": _print_list, "all": _print_all, "paper": _print_paper}.get("".join(tables), _print_summary)()


def _print_list() -> None:
    from divco_tf.tools._backbone_table import list_backbones

    print(list_backbones())


def _print_all() -> None:
    _app.load_tensorflow()
    from divco_tf.models.backbones import BACKBONES
    from divco_tf.tools._backbone_table import backbone_table, summaries

    print(backbone_table(summaries(BACKBONES.names(), _progress()), markdown=_MARKDOWN.value))


def _print_paper() -> None:
    _app.load_tensorflow()
    from divco_tf.tools._paper_rows import count_rows, paper_table, paper_tables

    rows = paper_tables()["rows"]
    print(paper_table(rows, count_rows(rows, _progress()), markdown=_MARKDOWN.value))


def _progress(*, seconds: float = 5.0) -> Callable[[str], None]:
    """Tells a line on stderr, at most one in so many seconds."""
    told = time.monotonic()

    def report(line: str) -> None:
        nonlocal told
        if time.monotonic() - told >= seconds:
            told = time.monotonic()
            print(line, file=sys.stderr, flush=True)

    return report


def _print_summary() -> None:
    from divco_tf.models.backbones import BACKBONES
    from divco_tf.models.spec import branch_spec

    if _BACKBONE.value is None:
        raise _app.missing_flag("backbone", BACKBONES.names())
    branch_spec(_BACKBONE.value, split_factor=_SPLIT_FACTOR.value)  # refuses before TensorFlow is imported
    _app.load_tensorflow()
    from divco_tf.models.summary import summarize
    from divco_tf.tools._tables import table

    summary = summarize(
        _BACKBONE.value,
        split_factor=_SPLIT_FACTOR.value,
        num_classes=_NUM_CLASSES.value,
        input_shape=(_IMAGE_SIZE.value, _IMAGE_SIZE.value, 3),
    )
    if _JSON.value:
        print(json.dumps(dataclasses.asdict(summary), indent=1))
        return
    regularisers = ", ".join(f"{name} {value:g}" for name, value in summary.regularisation.items()) or "none"
    branch = (f"{summary.parameters_per_branch:,}", f"{summary.multiply_adds_per_branch:,}", regularisers)
    rows = [(f"branch {index}", *branch) for index in range(summary.split_factor)]
    rows.append(("whole", f"{summary.parameters:,}", f"{summary.multiply_adds:,}", ""))
    title = f"{summary.backbone}, split factor {summary.split_factor}"
    print(table((title, "parameters", "multiply-adds", "regularisers"), rows))


def run() -> None:
    """The console script."""
    _app.run(main, program="divco-summarize")


if __name__ == "__main__":
    run()
