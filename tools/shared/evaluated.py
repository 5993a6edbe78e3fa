"""What divco-evaluate tells beyond its table: classes, confusions, mistakes, and runs beside each other."""

import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from divco_tf.errors import shown
from divco_tf.tools.shared.tables import table

if TYPE_CHECKING:
    import numpy as np

    from divco_tf.analysis.comparison import Compared
    from divco_tf.runs.evaluation import Answers, Evaluation

FEW = 20
"""Classes whose accuracies, and matrix, are told in full."""
_WORST = 10


_PROBABILITIES = ("probability", "probability_of_right")


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A run or an export, evaluated; its images and their probabilities need not be kept.

    Attributes:
      evaluation: its figures.
      class_names: as they can be printed.
      confusion: images of class i (row) that are taken for class j, int64 [K, K].
      mistakes: the surest wrong answers.
      correct: of each image, bool [N].
      images: what tells these images from others.
    """

    evaluation: "Evaluation"
    class_names: Sequence[str]
    confusion: "np.ndarray"
    mistakes: Sequence[Mapping[str, Any]]
    correct: "np.ndarray"
    images: Hashable

    def json(self, *, confusion: bool, mistakes: bool) -> dict[str, Any]:
        """The figures, and what else is asked for."""
        from divco_tf.analysis.comparison import accuracy_interval
        from divco_tf.analysis.mistakes import class_accuracies

        accuracies = [None if share != share else share for share in class_accuracies(self.confusion).tolist()]
        told = dataclasses.asdict(self.evaluation)
        told["accuracy_interval"] = accuracy_interval(int(self.correct.sum()), len(self.correct))
        told["class_accuracies"] = dict(zip(self.class_names, accuracies, strict=True))
        if confusion:
            told["confusion"] = self.confusion.tolist()
        if mistakes:
            told["mistakes"] = self.mistakes
        return told

    def sections(self, name: str, *, classes: bool, confusion: bool, mistakes: bool) -> Iterator[str]:
        """What is asked for, as tables."""
        if classes:
            yield class_table(name, self.confusion, self.class_names)
        if confusion:
            yield confusion_table(name, self.confusion, self.class_names)
        if mistakes:
            yield mistakes_table(name, self.mistakes)


def evaluated(evaluation: "Evaluation", answers: "Answers", *, mistakes: int) -> Evaluated:
    """What is told of answers; so many mistakes."""
    from divco_tf.analysis.metrics import confusion_matrix
    from divco_tf.analysis.mistakes import confident_mistakes

    names = [shown(each) for each in answers.source.class_names]
    surest = [
        {
            "image": answers.source.name_of(mistake.index),
            "right": names[mistake.label],
            "answer": names[mistake.answer],
            **dict(zip(_PROBABILITIES, (mistake.probability, mistake.probability_of_label), strict=True)),
        }
        for mistake in confident_mistakes(answers.probabilities, answers.labels, most=mistakes)
    ]
    confusion = confusion_matrix(answers.probabilities, answers.labels)
    return Evaluated(evaluation, names, confusion, surest, answers.correct, answers.images)


def comparison_table(compared: Mapping[str, "Compared"]) -> str:
    """Runs beside the first, a row each, and a line for each that differs from it in more than the split factor."""
    rows = []
    for name, run in compared.items():
        low, high = run.accuracy_interval
        difference = ("", "")
        if run.difference is not None and run.difference_interval is not None:
            of_low, of_high = run.difference_interval
            difference = f"{100 * run.difference:+.2f}", f"{100 * of_low:+.2f} to {100 * of_high:+.2f}"
        length = f"{run.steps:,} steps" if run.epochs is None else str(run.epochs)
        cost = f"{run.parameters:,}", f"{run.multiply_adds:,}"
        rows.append((name, str(run.split_factor), *cost, length, f"{100 * low:.2f} to {100 * high:.2f}", *difference))
    head = ("", "S", "parameters", "multiply-adds", "epochs", "accuracy %, 95 %", "difference, points", "95 %")
    first = next(iter(compared))
    told = [
        f"{name} differs from {first} in more than S: {', '.join(run.differs_in)}"
        for name, run in compared.items()
        if run.differs_in
    ]
    return "\n".join([table(head, rows), *told])


def class_table(name: str, confusion: "np.ndarray", names: Sequence[str]) -> str:
    """The accuracy of each class; of many classes the worst."""
    import numpy as np

    from divco_tf.analysis.mistakes import class_accuracies, frequent_confusions

    accuracies, count = class_accuracies(confusion), confusion.sum(axis=1)
    order, few = range(len(names)), len(names) <= FEW
    if not few:
        order = [number for number in np.argsort(accuracies, kind="stable") if count[number]][:_WORST]
    rows = []
    for number in order:
        only = np.zeros_like(confusion)
        only[number] = confusion[number]
        taken = [f"{names[j]} ({images:,})" for _, j, images in frequent_confusions(only, most=1)]
        accuracy = f"{100 * accuracies[number]:.2f}" if count[number] else "–"
        rows.append((names[number], accuracy, f"{count[number]:,}", *(taken or [""])))
    what = "class" if few else f"the {len(rows)} worst of {len(names)} classes"
    return table((f"{name}{what}", "accuracy %", "images", "mostly taken for"), rows)


def confusion_table(name: str, confusion: "np.ndarray", names: Sequence[str]) -> str:
    """How many images of a row's class got each answer; of many classes the pairs that are confused most often."""
    from divco_tf.analysis.mistakes import frequent_confusions

    if len(names) > FEW:
        pairs = frequent_confusions(confusion, most=FEW)
        rows = [(names[i], names[j], f"{count:,}", f"{100 * count / confusion[i].sum():.2f}") for i, j, count in pairs]
        return table((f"{name}right class", "answer", "images", "% of the class"), rows)
    rows = [(each, *(f"{count:,}" for count in row)) for each, row in zip(names, confusion, strict=True)]
    return table((f"{name}right class, then answers", *names), rows)


def mistakes_table(name: str, mistakes: Sequence[Mapping[str, Any]]) -> str:
    """The wrong answers that are surest."""
    rows = [
        (each["image"], each["right"], each["answer"], *(f"{each[key]:.4f}" for key in _PROBABILITIES))
        for each in mistakes
    ]
    head = (f"{name}surest mistakes", "right class", "answer", "its probability", "that of the right class")
    return table(head, rows)
