"""The tables and pictures of docs/study.md, made of what docs/study holds: python -m tools.reports.study

Tables stand between two marks in the page, which is written anew; pictures lie in docs/study. With --check nothing is
written, and the status tells whether the tables are current.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from divco_tf.analysis.judged import Judged, load_judged
from divco_tf.analysis.learning_curves import predict
from divco_tf.analysis.report import drawing
from divco_tf.analysis.report.differences import difference_plots
from divco_tf.analysis.report.effects import MEASURES, effects
from divco_tf.analysis.report.study import read_study
from divco_tf.analysis.results import read_rows
from divco_tf.analysis.statistics import compare
from divco_tf.analysis.verdict import Verdict, verdicts
from divco_tf.tools.reports.marks import filled
from divco_tf.tools.shared.tables import markdown_table

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER, PAGE = ROOT / "docs" / "study", ROOT / "docs" / "study.md"
BEGIN, END = "<!-- tables: tools/reports/study.py -->", "<!-- end of tables -->"

LARGE = "S=1"
ARMS = {  # by (S, loss, weight decay divided)
    (1, "js", False): LARGE,
    (4, "js", True): "S=4 co-trained",
    (4, "none", True): "S=4 apart",
    (4, "js", False): "S=4 co-trained, undivided",
}
METRICS = (
    ("accuracy", "accuracy %", 100, 2),
    ("negative_log_likelihood", "NLL", 1, 3),
    ("expected_calibration_error", "ECE", 1, 4),
    ("brier_score", "Brier", 1, 3),
    ("aurc", "AURC", 1, 4),
    ("mean_branch_accuracy", "branches %", 100, 2),
    ("pairwise_disagreement", "disagree %", 100, 1),
)

Found = dict[int, dict[str, dict[int, tuple[Mapping[str, Any], Judged]]]]
"""Training images -> arm -> seed -> the row and what the cell made of each test image."""


def found(folder: pathlib.Path = FOLDER) -> Found:
    """What is there of the study."""
    cells: Found = {}
    for row in read_rows(folder):
        if row["status"] == "done":
            judged = load_judged(folder / "judged" / f"{row['cell']}.npz")["test"]
            by_arm = cells.setdefault(row["arguments"]["train_images"], {})
            by_arm.setdefault(_arm(row), {})[row["seed"]] = row, judged
    return {size: {arm: cells[size][arm] for arm in ARMS.values() if arm in cells[size]} for size in sorted(cells)}


def _arm(row: Mapping[str, Any]) -> str:
    arguments = row["arguments"]
    loss, divided = arguments.get("cotraining.loss", "js"), arguments.get("optimizer.divide_weight_decay", False)
    return ARMS[row["split_factor"], loss, divided]


def tables(cells: Found) -> Iterator[str]:
    """All of them, in Markdown; of prediction only where all arms have two seeds at three amounts of data."""
    if not cells:
        yield "No cell has been trained yet."
        return
    yield "Means over seeds of figures on the 10,000 test images:"
    head = ("images", "arm", "seeds", *(name for _, name, _, _ in METRICS))
    yield markdown_table(
        head, [_means(size, arm, seeds) for size, arms in cells.items() for arm, seeds in arms.items()]
    )
    for score, unit, name in (("correct", "points", "Accuracy"), ("log_likelihood", "nats", "Log-likelihood")):
        yield f"{name}: the difference to S=1 by seeds and images, with its 95 % interval, and the verdict:"
        yield markdown_table(("images", "verdict", "sign-flip p", "Holm's p"), list(_compared(cells, score, unit)))
    if len(cells) < 3 or any(set(arms) != set(ARMS.values()) for arms in cells.values()):
        return
    sizes, errors = _errors(cells)
    if len(errors[LARGE]) < 2:  # of seeds that all have: one says nothing about uncertainty
        return
    yield "Predicted for the largest amount from the smaller ones (power laws), against what was measured there:"
    yield markdown_table(
        ("arm", "predicted error %", "95 % interval", "measured error %"), list(_predicted(sizes, errors))
    )
    yield _winner(sizes, errors)


def _means(size: int, arm: str, seeds: Mapping[int, tuple[Mapping[str, Any], Judged]]) -> list[str]:
    def mean(name: str, scale: float, digits: int) -> str:
        return f"{scale * np.mean([row['test'][name] for row, _ in seeds.values()]):.{digits}f}"

    return [f"{size:,}", arm, str(len(seeds)), *(mean(name, scale, digits) for name, _, scale, digits in METRICS)]


def verdicts_of(cells: Found, score: str, unit: str) -> dict[tuple[int, str], Verdict]:
    """The verdicts on all arms beside S=1 at all amounts of data: one table of comparisons."""
    comparisons = {}
    for size, arms in cells.items():
        for arm in arms:
            common = sorted(set(arms[arm]) & set(arms.get(LARGE, {})))
            if arm != LARGE and common:
                pair = [np.stack([getattr(arms[each][seed][1], score) for seed in common]) for each in (arm, LARGE)]
                comparisons[f"{size:,} | {arm}"] = (size, arm), compare(*pair)
    made = verdicts({name: comparison for name, (_, comparison) in comparisons.items()}, unit=unit)
    return {comparisons[name][0]: verdict for name, verdict in made.items()}


def _compared(cells: Found, score: str, unit: str) -> Iterator[list[str]]:
    for (size, _), verdict in verdicts_of(cells, score, unit).items():
        sentence = verdict.sentence.removeprefix(f"{size:,} | ")
        yield [f"{size:,}", sentence, f"{verdict.comparison.sign_flip_p:.3f}", f"{verdict.corrected_p:.4f}"]


def _errors(cells: Found) -> tuple[list[int], dict[str, np.ndarray]]:
    """Amounts of data, and each arm's errors [seeds, amounts], of seeds that all have."""
    sizes = list(cells)
    arms = [arm for arm in ARMS.values() if all(arm in cells[size] for size in sizes)]
    common = sorted(set.intersection(*(set(cells[size][arm]) for size in sizes for arm in arms)))
    return sizes, {
        arm: np.array([[1 - cells[size][arm][seed][1].correct.mean() for size in sizes] for seed in common])
        for arm in arms
    }


def _predicted(sizes: Sequence[int], errors: Mapping[str, np.ndarray]) -> Iterator[list[str]]:
    prediction = _prediction(sizes, errors)
    for arm, extrapolated in prediction.arms.items():
        interval = f"{100 * extrapolated.low:.2f} to {100 * extrapolated.high:.2f}"
        yield [arm, f"{100 * extrapolated.error:.2f}", interval, f"{100 * errors[arm][:, -1].mean():.2f}"]


def _prediction(sizes: Sequence[int], errors: Mapping[str, np.ndarray]) -> Any:
    return predict({arm: of_arm[:, :-1] for arm, of_arm in errors.items()}, sizes=sizes[:-1], images=sizes[-1])


def _winner(sizes: Sequence[int], errors: Mapping[str, np.ndarray]) -> str:
    prediction = _prediction(sizes, errors)
    measured = min(errors, key=lambda arm: errors[arm][:, -1].mean())
    return f"Predicted: {prediction.sentence} Measured: {measured} has the lowest error."


def page(text: str, cells: Found) -> str:
    """The page with the tables between the marks."""
    return filled(text, BEGIN, END, "\n\n".join(tables(cells)))


def draw(folder: pathlib.Path = FOLDER) -> None:
    """The pictures: what the arms differ by from S=1, against the amount of data, by three measures."""
    study = read_study(folder)
    named = tuple(dataclasses.replace(arm, name=_arm(arm.results[0].row)) for arm in study.arms)
    study = dataclasses.replace(study, arms=named, baseline=LARGE)
    for measure in MEASURES:
        for plot in difference_plots(study, measure, effects(study, measure)):
            drawing.save(plot, folder / f"{measure.name}.svg")


def main() -> None:
    """Writes the page and its pictures, or checks the page."""
    text = PAGE.read_text(encoding="utf-8")
    current = page(text, found())
    if "--check" in sys.argv[1:]:
        sys.exit(f"{PAGE} is not current; python -m tools.reports.study writes it" if text != current else 0)
    PAGE.write_text(current, encoding="utf-8")
    draw()


if __name__ == "__main__":
    main()
