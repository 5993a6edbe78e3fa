"""Tables as text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from divco_tf.analysis.robustness import Robustness
    from divco_tf.runs.evaluation import Evaluation


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell; the first is flush left, the others flush right."""
    cells = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        others = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        return "  ".join((row[0].ljust(widths[0]), *others)).rstrip()

    return "\n".join([line(cells[0]), "  ".join("-" * width for width in widths), *map(line, cells[1:])])


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def evaluation_table(evaluations: Mapping[str, "Evaluation"]) -> str:
    """One row a run and a row for each branch of it."""
    rows = []
    for name, evaluation in evaluations.items():
        images = f"{evaluation.images} {evaluation.split} images"
        if evaluation.split == "all":
            images = f"all {evaluation.images} images"
        rows.append(
            (
                f"{name}  ({evaluation.weights}, {images})",
                f"{100 * evaluation.accuracy:.2f}",
                f"{evaluation.negative_log_likelihood:.4f}",
                f"{evaluation.calibration_error:.4f}",
                "" if evaluation.seconds_per_step is None else f"{evaluation.seconds_per_step:.4f}",
            )
        )
        if len(evaluation.branch_accuracies) > 1:
            for branch, accuracy in enumerate(evaluation.branch_accuracies):
                rows.append((f"  branch {branch}", f"{100 * accuracy:.2f}", "", "", ""))
    return table(("", "accuracy %", "NLL", "ECE", "s / step"), rows)


def corruption_table(name: str, robustness: "Robustness") -> str:
    """The accuracies of one run under corruption, a row a family and a column a severity; means beside and below."""
    accuracy, severities = robustness.accuracy, [f"severity {severity}" for severity in robustness.severities]
    figures = [*zip(robustness.families, accuracy, strict=True), ("mean", accuracy.mean(axis=0))]
    rows = [(family, *(f"{100 * share:.2f}" for share in (*row, row.mean()))) for family, row in figures]
    clean = ("clean", *[""] * len(severities), f"{100 * robustness.clean_accuracy:.2f}")
    return table((f"{name}  ({robustness.images} images, accuracy %)", *severities, "mean"), [clean, *rows])
