"""Where images come from: sources with random access, opened by the name of a dataset and a split.

"train" and "held_out" are what is stored for training, parted by a stable hash of an example's index (of its path, in
a folder), so the parts are the same on every machine and in every run. "test" is what results are reported on.
"""

import abc
import concurrent.futures
import hashlib
import os
import pathlib
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from divco_tf.data.datasets import SPLITS, Dataset, get_dataset
from divco_tf.data.decoding import PREFIX_BYTES, Box, decode, is_image
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean

ON_ERROR = ("raise", "skip")


class BadImage(InputError):
    """An image that cannot be read."""


class Source(abc.ABC):
    """Labelled images with random access."""

    labels: np.ndarray  # int64 [N]
    class_names: tuple[str, ...]
    image_size: int  # pixels a side, of what `read` returns
    same_size: bool = False  # whether that is also the size of all stored images

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """The number of classes, K."""
        return len(self.class_names)

    @abc.abstractmethod
    def read(self, index: int) -> np.ndarray:
        """The image at `index` as training sees it, uint8 [image_size, image_size, 3] RGB."""

    def read_region(self, index: int, choose: Callable[[int, int], Box] | None = None) -> np.ndarray:
        """The part of the stored image that `choose(height, width)` names, all by default: uint8 [h, w, 3] RGB."""
        image = self.read(index)
        top, left, height, width = (0, 0, *image.shape[:2]) if choose is None else choose(*image.shape[:2])
        return np.ascontiguousarray(image[top : top + height, left : left + width])

    def encoded(self, index: int) -> bytes | None:
        """The encoded image at `index`, or None where images are kept decoded."""
        return None

    def read_stored(self, index: int) -> np.ndarray:
        """The image at `index` in the size it is stored in, uint8 [H, W, 3] RGB."""
        return self.read_region(index)

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """The labels of the images at `indices` (int [n]), int64 [n]."""
        return self.labels[indices]

    def read_batch(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices` (int [n]), uint8 [n, image_size, image_size, 3]."""
        return np.stack([self.read(int(index)) for index in indices])


class ArraySource(Source):
    """Images in memory.

    Args:
      images: uint8 [N, H, H, 3] RGB.
      labels: integers [N], 0 <= label < number of classes.
      class_names: a name a class.

    Raises:
      InputError: shapes, types or labels do not fit together.
    """

    same_size = True

    def __init__(self, images: np.ndarray, labels: np.ndarray, class_names: Iterable[str]) -> None:
        self.images, self.labels = images, np.asarray(labels, np.int64)
        self.class_names = tuple(class_names)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
            raise InputError(
                f"Images are square and RGB. Received: {images.dtype} {list(images.shape)}; "
                "uint8 [N, size, size, 3] would work."
            )
        if self.labels.shape != (len(images),):
            raise InputError(f"A label an image. Received: labels {list(self.labels.shape)} for {len(images)} images.")
        if len(images) and not 0 <= self.labels.min() <= self.labels.max() < self.num_classes:
            raise InputError(
                f"Labels do not fit the number of classes. Received: {self.labels.min()} to {self.labels.max()}; "
                f"0 to {self.num_classes - 1} would work."
            )
        self.image_size = images.shape[1]

    def read(self, index: int) -> np.ndarray:
        """The image at `index`, uint8 [H, H, 3]."""
        return self.images[index]

    def read_batch(self, indices: np.ndarray) -> np.ndarray:
        """The images at `indices`, uint8 [n, H, H, 3]."""
        return self.images[indices]


def shares(keys: Iterable[str], *, purpose: str) -> np.ndarray:
    """A stable pseudo-random number in [0, 1) for each key, float64; independent between purposes.

    A split by these depends neither on the order of the keys nor on the machine.
    """
    # Unicode spells "é" in two ways, and file systems differ in which one they hand out.
    texts = (f"{purpose}/{unicodedata.normalize('NFC', key)}" for key in keys)
    encoded = (text.encode("utf-8", "surrogateescape") for text in texts)  # a file's name may be no UTF-8
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in encoded)
    # 53 bits, so that the largest one stays below 1 in float64.
    return (np.frombuffer(digests, np.dtype("<u8")) >> np.uint64(11)) * 2.0**-53


def in_split(keys: list[str], split: str, *, held_out: float, test_share: float) -> np.ndarray:
    """Which of the stored examples, named by `keys`, belong to `split`: bool [N].

    `test_share` is set apart first (0 where test images are stored on their own), then `held_out` of the rest.
    """
    tested = shares(keys, purpose="test") < test_share
    held = shares(keys, purpose="held_out") < held_out
    return {"test": tested, "held_out": ~tested & held, "train": ~tested & ~held}[split]


def open_source(
    dataset: str,
    split: str,
    *,
    data_dir: str | None = None,
    held_out: float = 0.0,
    image_size: int | None = None,
    on_error: str = "raise",
) -> Source:
    """Opens a split of a dataset.

    Args:
      dataset: a name of `datasets.DATASETS`.
      split: "train", "held_out" or "test".
      data_dir: where the data is: the folder that TensorFlow Datasets prepared it in, or the user's folder of images.
        Digits need none.
      held_out: the share of the training images, in [0, 1), that is kept from training and makes up "held_out".
      image_size: pixels a side; the dataset's own unless given.
      on_error: "raise", or "skip": a file in a folder of images that is none is not refused here; reading it raises
        `BadImage`.

    Raises:
      InputError: no such dataset, split or data; the data is not as it should be.
    """
    facts = get_dataset(dataset)
    _check_split(split, held_out)
    size = facts.image_size if image_size is None else image_size
    if size < 1:
        raise InputError(f"An image size in pixels. Received: {size}; {facts.image_size} would work.")
    if on_error not in ON_ERROR:
        raise InputError(f"What to do about a bad image. Received: {on_error!r}; {' or '.join(ON_ERROR)} would work.")
    if facts.reader == "folder":
        return _open_folder(facts, split, held_out=held_out, data_dir=data_dir, image_size=size, on_error=on_error)
    return _READERS[facts.reader](facts, split, held_out=held_out, data_dir=data_dir, image_size=size)


def _check_split(split: str, held_out: float) -> None:
    if split not in SPLITS:
        raise InputError(f"Unknown split. Received: {split}.{did_you_mean(split, SPLITS)}")
    if not 0 <= held_out < 1:
        raise InputError(f"The held-out share of the training images. Received: {held_out}; 0 <= share < 1 would work.")
    if split == "held_out" and held_out == 0:
        raise InputError(
            "No images are held out. Received: split=held_out with held_out=0; held_out=0.1 would set a tenth of the "
            "training images apart."
        )


def _open_digits(facts: Dataset, split: str, *, held_out: float, data_dir: str | None, image_size: int) -> Source:
    """Scikit-learn's digits, embedded in the package: 1,797 images of 8x8 pixels, grey levels 0 to 16."""
    del data_dir
    from sklearn.datasets import load_digits

    grey, labels = load_digits(return_X_y=True)
    mine = in_split([str(index) for index in range(len(labels))], split, held_out=held_out, test_share=facts.test_share)
    grey = np.rint(grey[mine].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return ArraySource(_stretched(np.repeat(grey, 3, axis=3), image_size), labels[mine], facts.class_names)


def _open_tfds(facts: Dataset, split: str, *, held_out: float, data_dir: str | None, image_size: int) -> Source:
    """A dataset that TensorFlow Datasets has prepared, read into memory whole, without the network."""
    folder = _prepared_folder(facts, data_dir)
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    stored = facts.test_splits if split == "test" else facts.train_splits
    missing = [name for name in stored if name not in builder.info.splits]
    if missing:
        raise InputError(
            f"{facts.name} lacks split {missing[0]}. Received: {folder}, with {', '.join(builder.info.splits)}"
            f"; {' and '.join(stored)} are needed."
        )
    size = sum(builder.info.splits[name].num_examples for name in stored)
    mine = np.ones(size, bool)
    if split != "test":
        mine = in_split([str(index) for index in range(size)], split, held_out=held_out, test_share=0.0)
    try:
        images, labels = _read_tfds(builder, "+".join(stored), mine, facts.image_size)
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(
            f"{facts.name} cannot be read ({_first_line(error)}). Received: {folder}; prepare it anew with "
            "tensorflow_datasets."
        ) from error
    return ArraySource(_stretched(images, image_size), labels, facts.class_names)


def _prepared_folder(facts: Dataset, data_dir: str | None) -> str:
    """The newest prepared version of a dataset under `data_dir`."""
    prepare = f'tensorflow_datasets.load("{facts.tfds_name}", data_dir=...) prepares it once'
    if data_dir is None:
        raise InputError(
            f"{facts.name} is read from a folder prepared by TensorFlow Datasets. Received: no data_dir; {prepare}, "
            "then give that data_dir."
        )
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        raise InputError(f"The data_dir does not exist. Received: {data_dir}; {prepare}.")
    versions = [info.parent for info in (root / facts.tfds_name).glob("*/dataset_info.json")]
    if not versions:
        found = ", ".join(sorted({info.parents[1].name for info in root.glob("*/*/dataset_info.json")})) or "nothing"
        raise InputError(f"{facts.tfds_name} is not prepared. Received: data_dir {data_dir}, with {found}; {prepare}.")
    return str(max(versions, key=lambda folder: [int(part) for part in re.findall(r"\d+", folder.name)]))


def _read_tfds(builder: Any, splits: str, mine: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The examples of `splits` where `mine` holds: images uint8 [n, size, size, 3], labels int64 [n]."""
    import tensorflow_datasets as tfds

    options = tf.data.Options()
    options.autotune.enabled = False  # its thread delays the iterator's end
    examples = builder.as_dataset(
        split=splits,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},  # decoded as everywhere else, by Preprocessing.decode
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False, options=options),
    )
    keep = tf.constant(mine)
    examples = examples.enumerate().filter(lambda index, _: keep[index]).map(lambda _, example: example)
    examples = examples.map(
        lambda example: (tf.ensure_shape(Preprocessing.decode(example["image"]), [size, size, 3]), example["label"]),
        num_parallel_calls=min(os.cpu_count() or 1, 16),
    )
    images, labels = np.empty((mine.sum(), size, size, 3), np.uint8), np.empty(mine.sum(), np.int64)
    start = 0
    for batch, batch_labels in examples.batch(1024).prefetch(2).as_numpy_iterator():
        images[start : start + len(batch)], labels[start : start + len(batch)] = batch, batch_labels
        start += len(batch)
    if start != len(images):
        raise ValueError(f"{start} examples are there, {len(images)} were expected")
    return images, labels


def _stretched(images: np.ndarray, image_size: int) -> np.ndarray:
    """uint8 [N, H, W, 3] at another size, as evaluation would bring them to it."""
    if images.shape[1] == images.shape[2] == image_size:
        return images
    resize = Preprocessing(image_size=image_size, mean=(0.0,) * 3, std=(1.0,) * 3).resized
    stretched = np.empty((len(images), image_size, image_size, 3), np.uint8)
    for start in range(0, len(images), 1024):
        stretched[start : start + 1024] = resize(images[start : start + 1024]).numpy()
    return stretched


class ImageFolder(Source):
    """Image files of any size, decoded when they are read.

    Args:
      root: the folder that `paths` are relative to.
      paths: of the files, with forward slashes.
      labels: integers [N].
      class_names: a name a class.
      preprocessing: brings an image to the size that training sees; evaluation uses the same.
    """

    def __init__(
        self,
        root: pathlib.Path,
        paths: Iterable[str],
        labels: Iterable[int],
        class_names: Iterable[str],
        preprocessing: Preprocessing,
    ) -> None:
        self.root, self.paths = root, tuple(paths)
        self.labels, self.class_names = np.asarray(list(labels), np.int64), tuple(class_names)
        self.image_size = preprocessing.image_size
        self._preprocessing = preprocessing

    def read(self, index: int) -> np.ndarray:
        """The image at `index`, its shorter side resized and its centre cut out, uint8 [size, size, 3]."""
        # Plain operations, not a tf.function: in a thread of tf.data a function would wait for that pool's threads.
        with tf.device("CPU:0"):
            return self._preprocessing.resized(self.read_region(index)[None])[0].numpy().astype(np.uint8)

    def read_region(self, index: int, choose: Callable[[int, int], Box] | None = None) -> np.ndarray:
        """The part of the stored image that `choose(height, width)` names, all by default: uint8 [h, w, 3] RGB."""
        data = self.encoded(index)
        try:
            return decode(data, choose)
        except ValueError as error:
            raise self._bad(index, str(error)) from error

    def encoded(self, index: int) -> bytes:
        """What the file at `index` holds."""
        try:
            return (self.root / self.paths[index]).read_bytes()
        except OSError as error:
            raise self._bad(index, error.strerror or str(error)) from error

    def _bad(self, index: int, cause: str) -> BadImage:
        return BadImage(
            f"An image cannot be read ({cause}). Received: {self.root / self.paths[index]}; replace or remove the file."
        )


def _open_folder(
    facts: Dataset, split: str, *, held_out: float, data_dir: str | None, image_size: int, on_error: str
) -> Source:
    """A folder with a subfolder a class, or with train/ and validation/ that have them.

    Without validation/, a share of the images is set apart as "test", by a hash of their paths.
    """
    layout = "a folder with a subfolder of images for each class, or with train/ and validation/ that have them"
    if data_dir is None:
        raise InputError(f"{facts.name} needs a data_dir. Received: none; {layout} would work.")
    root = pathlib.Path(data_dir).expanduser()
    if not root.is_dir():
        raise InputError(f"The folder of images does not exist. Received: {data_dir}; {layout} would work.")
    if facts.tfds_name is not None and (root / facts.tfds_name).is_dir():
        raise InputError(
            f"{facts.name} is too large to be read into memory from TensorFlow Datasets. Received: "
            f"{root / facts.tfds_name}; {layout} would work."
        )
    parted = (root / "train").is_dir() and (root / "validation").is_dir()
    train = root / "train" if parted else root
    class_names = _class_names(train, layout)
    if parted and split == "test":
        root, test_share = root / "validation", 1.0
        surplus = sorted(set(_class_names(root, layout)) - set(class_names))
        if surplus:
            raise InputError(
                f"A class of validation/ is not in train/. Received: {root / surplus[0]}; train/ has "
                f"{len(class_names)} classes, {class_names[0]} to {class_names[-1]}."
            )
    else:
        root, test_share = train, 0.0 if parted else facts.test_share
    paths = _image_paths(root, strict=on_error == "raise")
    mine = in_split(paths, split, held_out=held_out, test_share=test_share)
    paths = [path for path, chosen in zip(paths, mine, strict=True) if chosen]
    labels = [class_names.index(path.split("/")[0]) for path in paths]
    absent = sorted(set(range(len(class_names))) - set(labels)) if split == "train" else []
    if absent or not paths:
        raise InputError(
            f"Too few images for split {split}{f' of class {class_names[absent[0]]}' if absent else ''}. Received: "
            f"{len(paths)} from {root}, held_out={held_out}; more images, or a smaller held_out, would work."
        )
    preprocessing = Preprocessing.for_dataset(facts, image_size)
    return ImageFolder(root, paths, labels, class_names, preprocessing)


def _class_names(folder: pathlib.Path, layout: str) -> tuple[str, ...]:
    """The subfolders' names in the order of their code points, which no locale changes."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        what = f"only one class, {names[0]}" if names else "no classes"
        raise InputError(f"The folder of images has {what}. Received: {folder}; {layout} would work.")
    return tuple(names)


def _image_paths(root: pathlib.Path, *, strict: bool) -> list[str]:
    """The files in the subfolders of `root`, at any depth, relative to it and sorted; hidden ones are left out.

    What is no image is refused, if `strict`, or left for reading to stumble over.
    """
    paths = []
    for name in sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        found = [
            file.relative_to(root).as_posix()
            for file in (root / name).rglob("*")
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)
        ]
        if not found:
            raise InputError(f"A class has no images. Received: {root / name}; image files in it would work.")
        paths += found
    with concurrent.futures.ThreadPoolExecutor(16) as pool:  # mostly waiting for the disk
        for path, is_image in zip(paths, pool.map(lambda path: _is_image(root / path), paths), strict=True):
            if not is_image and strict:
                raise InputError(
                    f"A file is no JPEG, PNG, WebP, GIF or BMP image. Received: {root / path}; remove or convert it."
                )
    return sorted(paths)


def _is_image(path: pathlib.Path) -> bool:
    """Whether the first bytes are those of an image: cheap, whatever the file is called."""
    try:
        with path.open("rb") as file:
            return is_image(file.read(PREFIX_BYTES))
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    text = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
    # TensorFlow puts the name of its operation before, and after, the message.
    text = re.sub(r"^\{\{.*?\}\} |\s*\[Op:.*", "", text.strip())
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


_READERS = {"digits": _open_digits, "tfds": _open_tfds}
