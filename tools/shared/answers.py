"""A classifier's answers as text, written batch by batch: a table for people, CSV, JSON."""

import csv
import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from divco_tf.errors import InputError, shown

if TYPE_CHECKING:
    from divco_tf.serving.classifier import Predictions


@dataclasses.dataclass(frozen=True)
class Answer:
    """To one image: classes with their probabilities, the most probable first; or why there is none."""

    file: str
    top: Sequence[tuple[str, float]] = ()
    disagreement: float = 0.0
    branches: Sequence[tuple[str, float]] = ()
    error: str | None = None


class Writer:
    """Writes answers in a format: `write` for each batch, `close` at last.

    Args:
      out: where to.
      class_names: of the classifier.
      paths: of all images.
      top: classes of an answer.
      branches: whether each branch's answer is told.
    """

    def __init__(
        self, out: TextIO, class_names: Sequence[str], paths: Sequence[str], *, top: int, branches: bool
    ) -> None:
        self.out, self.class_names, self.paths = out, [shown(name) for name in class_names], paths
        self.top, self.branches = min(top, len(class_names)), branches
        self.begun = False

    def write(self, paths: Sequence[str], predictions: "Predictions") -> None:
        """Writes the answers of a batch.

        Raises:
          InputError: the branches' are asked for, and not known.
        """
        each = predictions.branch_probabilities
        if self.branches and each is None:
            raise InputError(
                "The export does not return each branch's probabilities. Received: --branches; divco-export "
                "--branch_probabilities makes one that does."
            )
        answers = list(self._answers(paths, predictions))
        if not self.begun:
            self._head(each.shape[1] if self.branches else 0)
        self._rows(answers)
        self.begun = True
        self.out.flush()

    def close(self) -> None:
        """Ends the document."""

    def _head(self, branches: int) -> None:
        raise NotImplementedError

    def _rows(self, answers: Sequence[Answer]) -> None:
        raise NotImplementedError

    def _answers(self, paths: Sequence[str], predictions: "Predictions") -> Iterator[Answer]:
        names, best = self.class_names, (-predictions.probabilities).argsort(axis=1, kind="stable")
        for index, (path, error) in enumerate(zip(paths, predictions.errors, strict=True)):
            if error is not None:
                yield Answer(shown(path), error=error)
                continue
            of_image = predictions.probabilities[index]
            each = predictions.branch_probabilities[index] if self.branches else ()
            yield Answer(
                shown(path),
                [(names[number], float(of_image[number])) for number in best[index, : self.top]],
                float(predictions.disagreement[index]),
                [(names[of_branch.argmax()], float(of_branch.max())) for of_branch in each],
            )


class Table(Writer):
    """Columns for people; what cannot be read is told elsewhere."""

    def _head(self, branches: int) -> None:
        self._file = max(len("file"), *(len(shown(path)) for path in self.paths))
        self._class = max(len("branch 10"), *(len(name) for name in self.class_names)) + len("  0.123")
        head = [f"{place + 1}." for place in range(self.top)]
        self._line("file", head, "disagreement", [f"branch {number}" for number in range(branches)])

    def _rows(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            if answer.error is None:
                top, branches = (
                    [f"{name}  {probability:.3f}" for name, probability in named]
                    for named in (answer.top, answer.branches)
                )
                self._line(answer.file, top, f"{answer.disagreement:.4f}", branches)

    def _line(self, file: str, top: Sequence[str], disagreement: str, branches: Sequence[str]) -> None:
        cells = [*(cell.rjust(self._class) for cell in top), disagreement.rjust(len("disagreement"))]
        cells += [cell.rjust(self._class) for cell in branches]
        print("  ".join([file.ljust(self._file), *cells]), file=self.out)


class Csv(Writer):
    """A line an image, one that cannot be read with its reason in the last column."""

    def _head(self, branches: int) -> None:
        self._csv = csv.writer(self.out, lineterminator="\n")
        top = [f"{what}_{place + 1}" for place in range(self.top) for what in ("class", "probability")]
        each = [f"branch_{number}{what}" for number in range(branches) for what in ("", "_probability")]
        self._cells = len(top), len(each)
        self._csv.writerow(["file", *top, "disagreement", *each, "error"])

    def _rows(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            top, each = (_flat(named) for named in (answer.top, answer.branches))
            disagreement = f"{answer.disagreement:.6g}"
            if answer.error is not None:
                top, disagreement, each = [""] * self._cells[0], "", [""] * self._cells[1]
            self._csv.writerow([answer.file, *top, disagreement, *each, answer.error or ""])


class Json(Writer):
    """A list with an object a line."""

    def _head(self, branches: int) -> None:
        del branches
        self.out.write("[")

    def _rows(self, answers: Sequence[Answer]) -> None:
        for place, answer in enumerate(answers):
            self.out.write(",\n" if self.begun or place else "\n")
            self.out.write(json.dumps(self._object(answer), ensure_ascii=False))

    def close(self) -> None:
        """Ends the list."""
        self.out.write("\n]\n")

    def _object(self, answer: Answer) -> dict[str, Any]:
        if answer.error is not None:
            return {"file": answer.file, "error": answer.error}
        told = {"file": answer.file, "top": _named(answer.top), "disagreement": _rounded(answer.disagreement)}
        return told | ({"branches": _named(answer.branches)} if self.branches else {})


FORMATS: dict[str, type[Writer]] = {"table": Table, "csv": Csv, "json": Json}


def _flat(named: Sequence[tuple[str, float]]) -> list[str]:
    return [cell for name, probability in named for cell in (name, f"{probability:.6g}")]


def _named(named: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    return [{"class": name, "probability": _rounded(probability)} for name, probability in named]


def _rounded(number: float) -> float:
    return float(f"{number:.6g}")  # float32 knows no more digits
