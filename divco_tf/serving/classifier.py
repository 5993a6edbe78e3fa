"""A trained classifier that is asked for answers: files or arrays in, names of classes and probabilities out."""

import collections
import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from divco_tf import fields, files
from divco_tf.data import decoding_ops
from divco_tf.data.decoding import decode, image_info, is_whole
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources.listing import image_bytes
from divco_tf.data.streams import checked_threads
from divco_tf.errors import InputError
from divco_tf.fields import Positive
from divco_tf.runs.evaluation import predictor
from divco_tf.runs.model_dir import load, open_model_dir
from divco_tf.runs.records.experiment_json import RECORD
from divco_tf.runtime.strategy import make_strategy
from divco_tf.serving.evaluation import find_version, loaded
from divco_tf.serving.export import SAVED_MODEL, read_class_names, read_record, version_folders
from divco_tf.training import losses

_CHUNK = 16  # images a thread prepares at a time: small ones of one size are resized by one call
_LARGE = 3 * 2**18  # bytes of a decoded image, from which on it is resized by itself, and its memory is free again
_AHEAD = 2  # batches that are prepared while one is answered

BatchAnswers = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Of a batch: probabilities [N, K], disagreement [N] and branch probabilities [N, S, K], where they are known."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a classifier answers to N images, in their order. An image that cannot be read has NaN for all numbers.

    Attributes:
      class_names: K of them.
      probabilities: of the ensemble, float32 [N, K].
      disagreement: Jensen-Shannon divergence between the branches, in nats, float32 [N]: 0 (all agree) to log S.
      branch_probabilities: float32 [N, S, K]; None: an export that does not return them.
      errors: why an image cannot be read, and None for one that can; N of them.
    """

    class_names: tuple[str, ...]
    probabilities: np.ndarray
    disagreement: np.ndarray
    branch_probabilities: np.ndarray | None
    errors: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def classes(self) -> np.ndarray:
        """The number of the most probable class, int64 [N]; -1 for an image that cannot be read."""
        unread = np.array([error is not None for error in self.errors], bool)
        return np.where(unread, -1, self.probabilities.argmax(axis=1))

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The name of the most probable class; None for an image that cannot be read."""
        return tuple(None if number < 0 else self.class_names[number] for number in self.classes)


class Classifier:
    """A trained network that answers to images: `Classifier.load("runs/photos").predict(["cat.jpg", "dog.png"])`.

    Attributes:
      class_names: K of them.
      preprocessing: what images go through before the network sees them; it is all done inside.
      weights_from: whose weights these are, for people.
    """

    def __init__(
        self,
        answer: Callable[[Iterable[tf.Tensor]], Iterable[BatchAnswers]],
        *,
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        weights_from: str,
    ) -> None:
        """From a function of batches of normalised images, float32 [N, s, s, 3]; `load` makes it."""
        self._answer = answer
        self.class_names, self.preprocessing, self.weights_from = tuple(class_names), preprocessing, weights_from

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)], autograph=False)
        def resized(images: tf.Tensor) -> tf.Tensor:
            with tf.device("CPU:0"):
                return tf.cast(preprocessing.resized(images), tf.uint8)

        # An image by itself costs a call of the runtime, as much as decoding a small one does; a loop does not.
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def from_files(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            def one(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                pixels = decoding_ops.decode_jpeg_or_png(file)
                return tf.cast(preprocessing.resized(pixels[tf.newaxis])[0], tf.uint8), pixels[-1, -1]

            size = preprocessing.image_size
            kinds = tuple(tf.TensorSpec(shape, tf.uint8) for shape in ([size, size, 3], [3]))
            with tf.device("CPU:0"):  # threads are outside, so that no more images are decoded at once than they are
                return tf.map_fn(one, data, fn_output_signature=kinds, parallel_iterations=1)

        self._resized, self._from_files = resized, from_files

    @classmethod
    def load(cls, path: str | pathlib.Path, *, weights: str = "last", jit: str = "auto") -> "Classifier":
        """The classifier of a run, or of a SavedModel that we exported.

        Args:
          path: a run's model_dir; or an export_dir, of which the highest version is taken, or a version's folder.
          weights: of a run: "last", "best" or "ema".
          jit: of a run: XLA, see `runtime.compute`.

        Raises:
          InputError: neither lies there, it is damaged, or has no such weights.
        """
        folder = files.local_path(path, "the path of a run or an export")
        if (folder / RECORD).is_file():
            return cls._of_run(folder, weights=weights, jit=jit)
        if not _is_export(folder):
            raise InputError(
                f"Neither a run nor an export lies there. Received: {folder}; a model_dir of divco-train or an "
                "export_dir of divco-export would work."
            )
        if weights != "last":
            raise InputError(
                f"An export has one set of weights. Received: weights={weights!r} for {folder}; choose them when you "
                "export the run."
            )
        return cls._of_export(find_version(folder))

    @classmethod
    def _of_run(cls, model_dir: pathlib.Path, *, weights: str, jit: str) -> "Classifier":
        run = open_model_dir(model_dir)
        stack = load(model_dir, weights=weights)
        predict = predictor(stack, run.experiment, strategy=make_strategy("one_device"), jit=jit)

        def answer(batches: Iterable[tf.Tensor]) -> Iterator[BatchAnswers]:
            for probabilities, logits in predict(batches):
                yield probabilities, losses.jensen_shannon(logits).numpy(), tf.nn.softmax(logits).numpy()

        return cls(
            answer,
            class_names=run.class_names,
            preprocessing=run.experiment.preprocessing,
            weights_from=stack.weights_from,
        )

    @classmethod
    def _of_export(cls, folder: pathlib.Path) -> "Classifier":
        model, signature = loaded(folder)
        record, names = read_record(folder), read_class_names(folder)
        # The function within both signatures, of images that are prepared: threads do that faster than a graph, name
        # an image that is damaged, and notice more of them. All releases have it, under this name.
        if not hasattr(model, "_predict") or not isinstance(record.get("preprocessing"), dict) or names is None:
            raise InputError(f"The SavedModel is none that we exported. Received: {folder}; divco-export makes one.")
        if len(names) != signature.structured_outputs["probabilities"].shape[-1]:
            raise InputError(f"The export's record is damaged. Received: {folder}; export the run anew.")

        def answer(batches: Iterable[tf.Tensor]) -> Iterator[BatchAnswers]:
            for images in batches:
                outputs = {name: output.numpy() for name, output in model._predict(images).items()}
                yield outputs["probabilities"], outputs["disagreement"], outputs.get("branch_probabilities")

        return cls(
            answer,  # which holds the model: a function alone does not hold its weights
            class_names=names,
            preprocessing=Preprocessing(**record["preprocessing"]),
            weights_from=f"{folder} of {record.get('weights_from') or 'a stack'}",
        )

    def predict(self, images: Any, *, batch_size: int = 64, threads: int | None = None) -> Predictions:
        """The answers to images.

        Images are decoded, resized and normalised as evaluation and an export do: of an animation the first frame
        counts, transparency is dropped, grey is RGB of three equal channels, and EXIF rotation is not applied.

        Args:
          images: one image, or any iterable of them, of any sizes and kinds: a path; bytes of a file; a uint8 array
            [H, W, 3] (or [H, W], [H, W, 1], [H, W, 4]), or other numbers in 0..255, which are rounded; a tensor or an
            image of Pillow's. An array [N, H, W, C] is N images.
          batch_size: images that are answered at once; memory follows it.
          threads: that read, decode and resize; one a core unless given.

        Returns:
          The answers in the images' order. A file that cannot be read has its reason in `errors`.

        Raises:
          InputError: an array that is no image, or no image at all.
        """
        parts = list(self.stream(images, batch_size=batch_size, threads=threads))
        if not parts:
            raise InputError("There is no image. Received: nothing; a path or an array would work.")
        branches = [part.branch_probabilities for part in parts]
        return Predictions(
            self.class_names,
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.disagreement for part in parts]),
            None if branches[0] is None else np.concatenate(branches),
            tuple(itertools.chain.from_iterable(part.errors for part in parts)),
        )

    def stream(self, images: Any, *, batch_size: int = 64, threads: int | None = None) -> Iterator[Predictions]:
        """The same batch by batch, as they are answered: memory does not grow with the number of images.

        Args:
          images, batch_size, threads: as `predict`'s. An iterator is read a few batches ahead.

        Yields:
          The answers to `batch_size` images, at last to fewer.

        Raises:
          InputError: an array that is no image.
        """
        batch_size, threads = fields.checked(batch_size, Positive, "batch_size"), checked_threads(threads)
        errors: collections.deque[tuple[str | None, ...]] = collections.deque()

        def batches() -> Iterator[tf.Tensor]:
            for prepared in self._prepared(images, batch_size, threads):
                errors.append(tuple(one if isinstance(one, str) else None for one in prepared))
                size = self.preprocessing.image_size
                black = np.zeros((size, size, 3), np.uint8)  # in the place of what cannot be read
                pixels = np.stack([black if isinstance(one, str) else one for one in prepared])
                yield self.preprocessing.normalise(pixels)

        for answers in self._answer(batches()):
            yield self._predictions(answers, errors.popleft())

    def _predictions(self, answers: BatchAnswers, errors: tuple[str | None, ...]) -> Predictions:
        unread = np.array([error is not None for error in errors], bool)
        if not np.isfinite(answers[0]).all():
            raise InputError(
                f"The network's answers are not finite, so its weights are not. Received: {self.weights_from}; weights "
                "of an earlier step would work."
            )
        for values in answers:
            if values is not None and unread.any():
                values[unread] = np.nan
        probabilities, disagreement, branches = answers
        return Predictions(self.class_names, probabilities, np.maximum(disagreement, 0), branches, errors)

    def _prepared(self, images: Any, batch_size: int, threads: int) -> Iterator[list[np.ndarray | str]]:
        """Batches of images as the network's size has them, uint8 [s, s, 3], or why there is none."""
        numbered, waiting = enumerate(_each(images)), collections.deque()
        pool = concurrent.futures.ThreadPoolExecutor(threads)
        try:
            while True:
                while len(waiting) <= _AHEAD and (batch := [*itertools.islice(numbered, batch_size)]):
                    checked = [_pixels_or_file(*image) for image in batch]
                    chunks = [checked[start : start + _CHUNK] for start in range(0, len(checked), _CHUNK)]
                    waiting.append([pool.submit(self._prepare, chunk) for chunk in chunks])
                if not waiting:
                    return
                yield [image for chunk in waiting.popleft() for image in chunk.result()]
        finally:
            pool.shutdown(cancel_futures=True)

    def _prepare(self, chunk: list[Any]) -> list[np.ndarray | str]:
        """A chunk of them."""
        found: list[Any] = [None] * len(chunk)
        plain: dict[int, bytes] = {}  # JPEG and PNG files by their place
        others: dict[int, Any] = {}
        for place, image in enumerate(chunk):
            try:
                content = image if isinstance(image, np.ndarray) else _bytes(image)
                is_plain = isinstance(content, bytes) and image_info(content).format in ("JPEG", "PNG")
                (plain if is_plain else others)[place] = content
            except ValueError as error:
                found[place] = str(error)
        prepared = self._prepare_files(plain)
        others |= {place: content for place, content in plain.items() if place not in prepared}
        for place, image in (prepared | self._prepare_each(others)).items():
            found[place] = image
        return found

    def _prepare_files(self, plain: dict[int, bytes]) -> dict[int, np.ndarray]:
        """Those JPEG and PNG files that are surely whole; none where one of them is damaged."""
        try:
            images, last_pixels = (part.numpy() for part in self._from_files(tf.constant([*plain.values()], tf.string)))
        except tf.errors.InvalidArgumentError:
            return {}
        every = zip(plain.items(), images, last_pixels.tolist(), strict=True)
        return {place: image for (place, data), image, last in every if is_whole(data, tuple(last))}

    def _prepare_each(self, contents: dict[int, Any]) -> dict[int, np.ndarray | str]:
        """Arrays and files of any kind, decoded one by one as training does."""
        found: dict[int, Any] = {}
        by_shape: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = collections.defaultdict(list)
        for place, content in contents.items():
            try:
                pixels = content if isinstance(content, np.ndarray) else decode(content)
            except ValueError as error:
                found[place] = str(error)
                continue
            if pixels.size >= _LARGE:
                found[place] = self._resized(pixels[np.newaxis])[0].numpy()
            else:
                by_shape[pixels.shape].append((place, pixels))
        for group in by_shape.values():
            places, same_size = zip(*group, strict=True)
            found |= zip(places, self._resized(np.stack(same_size)).numpy(), strict=True)
        return found


def _is_export(folder: pathlib.Path) -> bool:
    return (folder / SAVED_MODEL).is_file() or bool(version_folders(folder))


def _each(images: Any) -> Iterable[Any]:
    """The images one by one, whatever the user calls images.

    Raises:
      InputError: what has no images in it.
    """
    if isinstance(images, str | os.PathLike | bytes):
        return [images]
    if hasattr(images, "__array__") or hasattr(images, "__array_interface__"):  # a tensor, or Pillow's image
        array = np.asarray(images)
        return array if array.ndim in (1, 4) else [array]  # a list of paths is an array of pandas's
    if not isinstance(images, Iterable):
        raise InputError(f"There are no images. Received: {fields.shown(images)}; paths or arrays would work.")
    return images


def _pixels_or_file(index: int, image: Any) -> Any:
    """An array as uint8 [H, W, 3]; a path, or a file's bytes, as it is.

    Raises:
      InputError: neither.
    """
    if isinstance(image, str | os.PathLike | bytes):
        return image
    try:
        array = np.asarray(image)
    except ValueError:  # rows of different lengths
        array = np.empty(0, object)
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or array.size == 0 or array.dtype.kind not in "iuf":
        raise InputError(
            f"An image is a path, a file's bytes, or an array [H, W, 3] of levels 0..255. Received: image {index}, "
            f"{type(image).__name__} {array.dtype} {list(np.shape(array))}; uint8 [H, W, 3] would work."
        )
    if array.dtype != np.uint8:
        array = _levels(index, array)
    return np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]


def _levels(index: int, array: np.ndarray) -> np.ndarray:
    """Numbers in 0..255 as uint8."""
    least, most = array.min(), array.max()
    if not (least >= 0 and most <= 255):  # or NaN
        raise InputError(
            f"Pixels lie outside of 0..255. Received: image {index}, {least:g} to {most:g}; RGB in 0..255 that is "
            "not normalised would work: that is done inside."
        )
    if array.dtype.kind == "f" and 0 < most <= 1:
        warnings.warn(
            f"An image's pixels lie in 0..1, which is black here: levels are 0..255. Received: image {index}, "
            f"{least:g} to {most:g}; multiply by 255.",
            stacklevel=2,
        )
    return np.rint(array).astype(np.uint8)


def _bytes(image: str | os.PathLike[str] | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    if os.path.exists(image) and not os.path.isfile(image):  # opening a pipe would wait for ever
        raise ValueError("it is no file")
    return image_bytes(image)
