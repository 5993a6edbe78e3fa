"""The images on which branches disagree most, and those that an ensemble gets wrong with most confidence."""

import base64
import io
from collections.abc import Sequence

import numpy as np

from divco_tf.analysis.judged import Judged
from divco_tf.analysis.report.markup import Markup, escaped, paragraph
from divco_tf.analysis.report.study import SPLITS, Arm, Study, class_names
from divco_tf.data.datasets import get_dataset
from divco_tf.data.sources import Source, open_source
from divco_tf.errors import InputError

MOST_IMAGES = 12  # of each kind

_LARGEST = 96  # pixels a side of a thumbnail
_SMALL = 48  # up to so many pixels every one of them is shown as a square


def pictures(study: Study, arm: Arm, *, data_dir: str | None) -> list[str]:
    """HTML of both kinds for the first seed of an arm; without the images, what is wrong with them is said instead.

    Args:
      study: of the arm.
      arm: one of it that has kept its answers.
      data_dir: where its dataset lies, if it is not embedded.
    """
    result = next(result for result in arm.results if result.judged is not None)
    judged = result.judged
    source, why = _source(study, arm, judged, data_dir)
    count = 1 + int(max(judged.labels.max(), judged.classes.max(), judged.branch_classes.max()))
    names = class_names(study, arm.task, count) if source is None else source.class_names
    parts = [paragraph(f"Of {study.label(arm)}, seed {result.seed}.{f' Images are not shown: {why}' * bool(why)}")]
    differ = np.argsort(-judged.disagreement, kind="stable")[:MOST_IMAGES]
    differ = [index for index in differ if len(set(judged.branch_classes[index])) > 1]
    if judged.branch_classes.shape[1] > 1:
        parts.append(Markup("<h3>Where branches disagree most</h3>\n"))
        parts.append(_cards(differ, judged, names, source) or paragraph("All branches answer alike to every image."))
    wrong = np.flatnonzero(~judged.correct)
    wrong = wrong[np.argsort(-judged.confidence[wrong], kind="stable")][:MOST_IMAGES]
    parts.append(Markup("<h3>Wrong, with most confidence</h3>\n"))
    parts.append(_cards(wrong, judged, names, source) or paragraph("No image is answered wrongly."))
    return parts


def thumbnail(image: np.ndarray) -> str:
    """A small picture of an image (uint8 [H, W, 3]) as an address that holds it."""
    from PIL import Image

    picture, content = Image.fromarray(image), io.BytesIO()
    small = max(picture.size) <= _SMALL
    picture.thumbnail((_LARGEST, _LARGEST))
    picture.save(content, "PNG" if small else "JPEG", **({} if small else {"quality": 85}))
    encoded = base64.b64encode(content.getvalue()).decode("ascii")
    return f"data:image/{'png' if small else 'jpeg'};base64,{encoded}"


def _source(study: Study, arm: Arm, judged: Judged, data_dir: str | None) -> tuple[Source | None, str]:
    """The images that were judged, or why they are not there."""
    settings = {**study.experiment, **arm.results[0].row["arguments"]}
    if get_dataset(arm.task.dataset).reader != "digits" and data_dir is None:
        return None, "where they lie is not told (--data_dir)."
    try:
        source = open_source(
            arm.task.dataset,
            study.split,
            data_dir=data_dir,
            held_out=settings.get("held_out") or 0.0,
            image_size=settings.get("image_size"),
        )
    except InputError as error:
        return None, str(error)
    if study.class_names is not None:
        source = source.ordered_as(study.class_names)
    if not np.array_equal(source.labels, judged.labels):
        return None, f"the {SPLITS[study.split]} images that are there are not those that were judged."
    return source, ""


def _cards(indices: Sequence[int], judged: Judged, names: Sequence[str], source: Source | None) -> str:
    cards = [_card(int(index), judged, names, source) for index in indices]
    return f'<ul class="cards">{"".join(cards)}</ul>\n' if cards else ""


def _card(index: int, judged: Judged, names: Sequence[str], source: Source | None) -> str:
    label, answer = names[judged.labels[index]], names[judged.classes[index]]
    picture = ""
    if source is not None:
        image = source.read(index)
        kind = " class=small" * (max(image.shape) <= _SMALL)
        alt = escaped(f"{label}, answered {answer}")
        picture = f'<img{kind} alt="{alt}" width="96" height="96" src="{thumbnail(image)}">'
    lines = {"Right": escaped(label)}
    sure = f", {100 * judged.confidence[index]:.0f}\N{NO-BREAK SPACE}%"
    lines["Answer"] = _answer(answer, judged.correct[index], sure)
    if judged.branch_classes.shape[1] > 1:
        answers = judged.branch_classes[index]
        lines["Branches"] = ", ".join(_answer(names[each], each == judged.labels[index]) for each in answers)
    told = "".join(f"<div><dt>{key}</dt><dd>{value}</dd></div>" for key, value in lines.items())
    return f'<li title="image {index}">{picture}<dl>{told}</dl></li>'


def _answer(name: str, right: bool, more: str = "") -> str:
    return f"<span{'' if right else ' class=wrong'}>{escaped(name)}{more}</span>"
