"""Asks a trained run, or an export, what is in images: divco-predict --model_dir runs/photos photo.jpg folder/

An image a row: its most probable classes with their probabilities, and how far the branches disagree, in nats. Folders
are searched for images, at any depth. A file that cannot be read is named and passed over; then the exit status is 1.
"""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from absl import flags

from divco_tf import files
from divco_tf.errors import InputError, RunError, shown
from divco_tf.tools.shared import answers, app, configs, progress, streams

if TYPE_CHECKING:
    from divco_tf.serving.classifier import Classifier

_MODEL_DIR = app.model_dir_flag()
_SAVED_MODEL = flags.DEFINE_string("saved_model", None, "An exported SavedModel; it or --model_dir is required.")
_WEIGHTS = flags.DEFINE_enum("weights", "last", ["last", "best", "ema"], "Of a run.")
_TOP = flags.DEFINE_integer("top", 3, "So many of the most probable classes.", lower_bound=1)
_BRANCHES = flags.DEFINE_bool("branches", False, "Also each branch's answer, and its probability.")
_FORMAT = flags.DEFINE_enum("format", "table", list(answers.FORMATS), "How the answers are written.")
_OUT = flags.DEFINE_string("out", None, "A file for the answers, complete or not there; stdout unless given.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "Images at once; memory follows it, and no answer depends on it.", lower_bound=1
)
_QUIET = app.quiet_flag()
_JIT = flags.DEFINE_enum("jit", "auto", ["auto", "on", "off"], "Of a run: XLA.")


def main(*paths: str) -> None:
    """Answers to the images at `paths`."""
    _check_flags()
    for path in paths:
        if not os.path.exists(path):  # told before TensorFlow starts
            raise InputError(f"No such file or folder. Received: {shown(path)}; an image, or a folder of them, works.")
    app.load_tensorflow()
    from divco_tf.data.sources.search import find_images

    found = find_images(paths)
    if found.others:
        more = f" and {len(found.others) - 1:,} more" if len(found.others) > 1 else ""
        streams.note(f"left out: files that are no images, {shown(found.others[0])}{more}")
    with configs.modules_of(_MODEL_DIR.value) if _MODEL_DIR.value else contextlib.nullcontext():
        classifier = _classifier()
        with _opened() as out:
            unread = _answer(classifier, found.images, out)
    if _OUT.value:
        print(f"{_OUT.value}: {len(found.images) - unread:,} answers")
    if unread:
        raise RunError(f"{unread:,} of {len(found.images):,} images cannot be read.")


def _check_flags() -> None:
    if bool(_MODEL_DIR.value) == bool(_SAVED_MODEL.value):
        raise InputError(
            f"Give either --model_dir or --saved_model. Received: model_dir={_MODEL_DIR.value!r}, "
            f"saved_model={_SAVED_MODEL.value!r}."
        )
    if _MODEL_DIR.value:
        app.check_model_dir(_MODEL_DIR.value)
    for flag in (_WEIGHTS, _JIT):
        if _SAVED_MODEL.value and flags.FLAGS[flag.name].present:
            raise InputError(f"--{flag.name} is not of --saved_model. Received: {flag.value!r}; leaving it out works.")
    if _OUT.value and pathlib.Path(_OUT.value).is_dir():
        raise InputError(f"--out is a file. Received: {_OUT.value}, a folder; {_OUT.value}/answers.csv works.")


def _classifier() -> "Classifier":
    from divco_tf.serving.classifier import Classifier
    from divco_tf.serving.evaluation import find_version

    if _SAVED_MODEL.value:
        return Classifier.load(find_version(_SAVED_MODEL.value))
    return Classifier.load(_MODEL_DIR.value, weights=_WEIGHTS.value, jit=_JIT.value)


@contextlib.contextmanager
def _opened() -> Iterator[TextIO]:
    """stdout, or a file that has its name when all is written."""
    if not _OUT.value:
        yield sys.stdout
        return
    path = files.local_path(_OUT.value, "--out")
    files.make_writable(path.parent, "folder of --out")
    with files.unfinished_directory(path.parent, path.name) as folder:
        beside = folder / path.name
        with open(beside, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)


def _answer(classifier: "Classifier", paths: tuple[str, ...], out: TextIO) -> int:
    """Writes the answers batch by batch; returns how many images cannot be read."""
    writer = answers.FORMATS[_FORMAT.value](
        out, classifier.class_names, paths, top=_TOP.value, branches=_BRANCHES.value
    )
    done = unread = 0
    rows_shown = not _OUT.value and sys.stdout.isatty()  # they are progress themselves
    images = progress.counted(paths, len(paths), what="images", quiet=_QUIET.value or rows_shown)
    for predictions in classifier.stream(images, batch_size=_BATCH_SIZE.value):
        of_batch = paths[done : done + len(predictions)]
        for path, error in zip(of_batch, predictions.errors, strict=True):
            if error is not None:
                unread += 1
                progress.warn(f"cannot be read: {shown(path)} ({error})")
        writer.write(of_batch, predictions)
        done += len(predictions)
    writer.close()
    return unread


def run() -> None:
    """The console script."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what libjpeg says of a damaged file, without its name
    app.run(
        main,
        program="divco-predict",
        operand="FILE_OR_FOLDER ...",
        common=("model_dir", "saved_model", "weights", "top", "branches", "format", "out"),
        behind="--model_dir=DIR|--saved_model=DIR [--flag=value ...]",
        examples=(
            "divco-predict --model_dir runs/photos cat.jpg",
            "divco-predict --model_dir runs/photos --weights best --branches photos/",
            "divco-predict --saved_model export --format csv --out answers.csv photos/",
        ),
    )


if __name__ == "__main__":
    run()
