"""The table of arguments in docs/study.md, made of docs/study/ablation: python -m tools.reports.ablation

It stands between two marks in the page. With --check nothing is written, and the status tells whether it is current.
"""

import pathlib
import sys
from collections.abc import Iterator

import numpy as np

from divco_tf.analysis.report.effects import ACCURACY, LIKELIHOOD, Effect, effects
from divco_tf.analysis.report.study import Arm, read_study
from divco_tf.analysis.verdict import NOTHING_SEEN
from divco_tf.tools.reports.marks import filled
from divco_tf.tools.reports.study import FOLDER, PAGE
from divco_tf.tools.shared.tables import markdown_table

BEGIN, END = "<!-- table: tools/reports/ablation.py -->", "<!-- end of table -->"
BASELINE = "S=4"
METRICS = (
    ("accuracy", 100, 2),
    ("negative_log_likelihood", 1, 4),
    ("expected_calibration_error", 100, 2),
    ("mean_branch_accuracy", 100, 2),
    ("pairwise_disagreement", 100, 2),
)
HEAD = ("arm", "accuracy %", "NLL", "ECE %", "branches %", "disagree %", "accuracy, points", "log-likelihood, nats")


def table(folder: pathlib.Path = FOLDER / "ablation", *, baseline: str = BASELINE) -> str:
    """All arms, and what each differs by from the baseline, in Markdown; bold where the verdict says that it does."""
    study = read_study(folder, baseline=baseline)
    measured = [{effect.arm.name: effect for effect in effects(study, measure)} for measure in (ACCURACY, LIKELIHOOD)]
    rows = [
        (arm.name, *_means(arm), *(_told(measured[n].get(arm.name), digits) for n, digits in enumerate((2, 4))))
        for arm in study.arms
    ]
    return markdown_table(HEAD, rows)


def _means(arm: Arm) -> Iterator[str]:
    for name, scale, digits in METRICS:
        yield f"{scale * np.mean(arm.values(name)):.{digits}f}"


def _told(effect: Effect | None, digits: int) -> str:
    if effect is None:
        return ""
    told = effect.interval.told(digits, sign=True)
    return told if effect.verdict.word == NOTHING_SEEN else f"**{told}**"


def main() -> None:
    """Writes the page, or checks it."""
    text = PAGE.read_text(encoding="utf-8")
    current = filled(text, BEGIN, END, table())
    if "--check" in sys.argv[1:]:
        sys.exit(f"{PAGE} is not current; python -m tools.reports.ablation writes it" if text != current else 0)
    PAGE.write_text(current, encoding="utf-8")


if __name__ == "__main__":
    main()
