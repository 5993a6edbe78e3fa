"""Datasets that TensorFlow Datasets has prepared: in memory where they fit, else record by record."""

import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from divco_tf.data.datasets import Dataset
from divco_tf.data.decoding_ops import decode_jpeg_or_png
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources.base import ArraySource, BadImage, Source
from divco_tf.data.sources.encoded import EncodedSource
from divco_tf.data.sources.parallel import from_disk
from divco_tf.data.sources.records import ArrayRecords, DamagedRecord, Records, TFRecords
from divco_tf.data.sources.request import THREADS, Request, in_bytes
from divco_tf.data.sources.splits import in_split
from divco_tf.errors import InputError, shown

_CHUNK = 1024  # images
_VERSION = r"\.".join([r"(0|[1-9]\d*)"] * 3)


class RecordSource(EncodedSource):
    """Images and labels in records, each a `tf.train.Example`, read when they are asked for.

    Args:
      records: the files.
      numbers: which of their records make up the source, int64 [N].
      class_names: a name a class.
      preprocessing: brings an image to the size that `read` returns.
      stored_size: pixels a side, where all images are square and of one size.
      keys: the features that hold the encoded image and the label.
    """

    remedy = "prepare the data set anew with tensorflow_datasets"

    def __init__(
        self,
        records: Records,
        numbers: np.ndarray,
        class_names: Iterable[str],
        preprocessing: Preprocessing,
        *,
        stored_size: int | None = None,
        keys: tuple[str, str] = ("image", "label"),
    ) -> None:
        super().__init__(preprocessing, stored_size=stored_size)
        self.records, self.numbers, self.class_names, self.keys = records, numbers, tuple(class_names), keys
        self._labels = np.full(len(numbers), -1, np.int64)  # as far as they have been read

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def labels(self) -> np.ndarray:
        """All labels, int64 [N]: the first time, every record is read for them."""
        return self.labels_of(np.arange(len(self)))

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """The labels of the images at `indices`; those of images that were read before are known."""
        unknown = np.asarray(indices)[self._labels[indices] < 0]
        if len(unknown):
            all(from_disk(self._learn, unknown.tolist()))
        return self._labels[indices]

    def encoded(self, index: int) -> bytes:
        """The encoded image at `index`; its label is known from then on."""
        try:
            features = tf.train.Example.FromString(self.records.read(int(self.numbers[index]))).features.feature
        except OSError as error:
            raise self.bad(index, error.strerror or str(error)) from error
        except DamagedRecord as error:
            raise self.bad(index, str(error)) from error
        except DecodeError as error:
            raise self.bad(index, "the record is no tf.train.Example") from error
        images, labels = features[self.keys[0]].bytes_list.value, features[self.keys[1]].int64_list.value
        if len(images) != 1 or len(labels) != 1:
            raise self.bad(index, f"the record lacks its {self.keys[1 if len(images) == 1 else 0]}")
        if not 0 <= labels[0] < self.num_classes:
            raise self.bad(index, f"its label is {labels[0]}, of {self.num_classes} classes")
        self._labels[index] = labels[0]
        return images[0]

    def _learn(self, index: int) -> bool:
        self.encoded(index)
        return True

    def name_of(self, index: int) -> str:
        """The file, and the record in it."""
        return self.records.name_of(int(self.numbers[index]))

    def only(self, indices: np.ndarray) -> "RecordSource":
        """The records at `indices`; what is known of their labels stays known."""
        chosen = RecordSource(
            self.records,
            self.numbers[indices],
            self.class_names,
            self.preprocessing,
            stored_size=self.stored_size,
            keys=self.keys,
        )
        chosen._labels = self._labels[indices]
        return chosen

    def fingerprint(self) -> Mapping[str, Any]:
        """The labels' checksum where images are small, else that of the files' names and sizes.

        It does not depend on what fits into memory, so a run goes on on another machine.
        """
        if self.same_size:
            with contextlib.suppress(BadImage):  # left for reading, which may pass it over
                return super().fingerprint()
        shards = "".join(f"{name} {size}\n" for name, size, _ in self.records.sizes())
        return {"images": len(self), "shards_crc32": zlib.crc32(shards.encode())}

    def stamp(self) -> str:
        """A digest of the files' names, sizes and times of change, and of which records are meant."""
        digest = hashlib.blake2b(repr(self.records.sizes()).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(self.numbers, np.int64))
        return digest.hexdigest()


def open_prepared(facts: Dataset, request: Request) -> Source:
    """A dataset that TensorFlow Datasets has prepared as TFRecord or ArrayRecord; nothing is downloaded."""
    folder = _prepared_folder(facts, request.data_dir)
    builder = _builder(facts, folder)
    names = facts.test_splits if request.split == "test" else facts.train_splits
    missing = [name for name in names if name not in builder.info.splits]
    if missing:
        raise InputError(
            f"{facts.name} lacks split {missing[0]}. Received: {folder}, with {', '.join(builder.info.splits)}"
            f"; {' and '.join(names)} are needed."
        )
    records = _records(facts, builder, names, request)
    numbers = np.arange(len(records))
    if request.split != "test":
        keys = [str(number) for number in range(len(records))]
        numbers = numbers[in_split(keys, request.split, held_out=request.held_out, test_share=0.0)]
    if not len(numbers):
        raise InputError(
            f"Split {request.split} of {facts.name} has no images. Received: {folder}, with {len(records)} in "
            f"{' and '.join(names)}, held_out={request.held_out}; a data set with images would work."
        )
    keys = tuple(builder.info.supervised_keys or ("image", "label"))
    height, width, _ = builder.info.features[keys[0]].shape
    source = RecordSource(
        records,
        numbers,
        facts.class_names or builder.info.features[keys[1]].names,
        Preprocessing.for_dataset(facts, request.image_size),
        stored_size=height if height == width else None,
        keys=keys,
    )
    return _in_memory_if_it_fits(facts, source, request) if source.same_size else source


def has_prepared(facts: Dataset, data_dir: pathlib.Path | None) -> bool:
    """Whether a folder of TensorFlow Datasets for this dataset lies in `data_dir`."""
    return None not in (facts.tfds_name, data_dir) and os.path.isdir(data_dir / facts.tfds_name)


def _prepared_folder(facts: Dataset, root: pathlib.Path | None) -> pathlib.Path:
    """The newest prepared version of a dataset under `data_dir`."""
    prepare = f'tensorflow_datasets.load("{facts.tfds_name}", data_dir=...) prepares it once'
    if root is None:
        raise InputError(
            f"{facts.name} is read from a folder prepared by TensorFlow Datasets. Received: no data_dir; {prepare}, "
            "then give that data_dir."
        )
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise InputError(f"The data_dir {what}. Received: {root}; {prepare}.")
    try:
        versions = _versions(root / facts.tfds_name)
        found = "" if versions else ", ".join(name for name in sorted(os.listdir(root)) if _versions(root / name))
    except OSError as error:
        raise InputError(
            f"The data_dir cannot be listed ({error.strerror}). Received: {error.filename}; a folder that can be read "
            "would work."
        ) from error
    if not versions:
        others = _folders(root / facts.tfds_name)
        found = found or (f"only {', '.join(sorted(others)[:3])} in {facts.tfds_name}" if others else "nothing")
        raise InputError(
            f"{facts.tfds_name} is not prepared. Received: data_dir {root}, with {shown(found)}; {prepare}."
        )
    return max(versions.items())[1]


def _versions(folder: pathlib.Path) -> dict[tuple[int, ...], pathlib.Path]:
    """Whole versions of a dataset; TFDS calls them x.y.z, and what is unfinished, or a backup, otherwise."""
    matches = [(re.fullmatch(_VERSION, name, re.ASCII), folder / name) for name in _folders(folder)]
    return {
        tuple(map(int, found.groups())): path
        for found, path in matches
        if found and (path / "dataset_info.json").is_file()
    }


def _folders(folder: pathlib.Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _builder(facts: Dataset, folder: pathlib.Path) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder_from_directory(folder)
    except Exception as error:  # whatever it stumbles over in its JSON files
        raise InputError(
            f"{facts.name} cannot be read ({type(error).__name__} in its dataset_info.json or features.json). "
            f"Received: {folder}; prepare it anew with tensorflow_datasets."
        ) from error


def _records(facts: Dataset, builder: Any, names: Iterable[str], request: Request) -> Records:
    """The files of some stored splits, in their order."""
    splits = [builder.info.splits[name] for name in names]
    shards = [shard for split in splits for shard in zip(split.filepaths, split.shard_lengths, strict=True)]
    shards = [(pathlib.Path(path), count) for path, count in shards if count]  # an empty one may have no file
    paths, counts = [path for path, _ in shards], [count for _, count in shards]
    file_format = builder.info.file_format.value
    if file_format == "array_record":
        return ArrayRecords(paths, counts)
    if file_format != "tfrecord":
        raise InputError(
            f"{facts.name} is prepared in a format without random access. Received: {file_format} in "
            f"{builder.data_path}; file_format=tfrecord or array_record would work."
        )
    return TFRecords(paths, counts, index_dir=request.index_dir, report=request.report)


def _in_memory_if_it_fits(facts: Dataset, source: RecordSource, request: Request) -> Source:
    """The same images as an `ArraySource`, if they fit into the budget of memory."""
    sizes = {source.stored_size, source.image_size}  # both are held for a while
    needed = sum(3 * size**2 for size in sizes) * len(source)
    name = f"{facts.name} {request.split}"
    said = f"{name}: {len(source):,} images, {in_bytes(needed)} of a budget of {in_bytes(request.memory_budget)}"
    if needed > request.memory_budget:
        request.report(f"{said}, read from the disk when they are needed")
        return source
    try:
        images = _read_all(source)
    except BadImage as error:
        if request.on_error == "raise":
            raise
        request.report(f"{said}, read from the disk when they are needed, since one cannot be read: {error.name}")
        return source
    request.report(f"{said}, kept in memory")
    return ArraySource(stretched(images, source.image_size), source.labels, source.class_names, name=name)


def _read_all(source: RecordSource) -> np.ndarray:
    """The images in the size they are stored in, uint8 [N, stored_size, stored_size, 3]."""
    size = source.stored_size
    images = np.empty((len(source), size, size, 3), np.uint8)

    # One function for many small images: 40 us each, against 100 for an operation at a time (CIFAR-10).
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode(encoded: tf.Tensor) -> tf.Tensor:
        return tf.map_fn(
            lambda data: tf.ensure_shape(decode_jpeg_or_png(data), [size, size, 3]),
            encoded,
            fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8),
            parallel_iterations=16,
        )

    def fill(start: int) -> None:
        chunk = range(start, min(start + _CHUNK, len(source)))
        encoded = [source.encoded(index) for index in chunk]
        try:
            with tf.device("CPU:0"):
                images[chunk.start : chunk.stop] = decode(tf.constant(encoded))
        except tf.errors.OpError:
            for index in chunk:  # finds out which one it was
                source.read(index)
            raise

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fill, range(0, len(source), _CHUNK)))
    return images


def stretched(images: np.ndarray, image_size: int) -> np.ndarray:
    """uint8 [N, H, W, 3] at another size, as evaluation would bring them to it."""
    if images.shape[1] == images.shape[2] == image_size:
        return images
    resize = Preprocessing(image_size=image_size, mean=(0.0,) * 3, std=(1.0,) * 3).resized
    stretched = np.empty((len(images), image_size, image_size, 3), np.uint8)
    for start in range(0, len(images), _CHUNK):
        stretched[start : start + _CHUNK] = resize(images[start : start + _CHUNK]).numpy()
    return stretched
