"""Small data sets that TensorFlow Datasets prepares, for the tests."""

import io
import pathlib
import typing
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds

Example = tuple[bytes, int]  # an encoded image and its label


def prepare(
    data_dir: pathlib.Path,
    name: str,
    splits: Mapping[str, Sequence[Example]],
    *,
    class_names: Sequence[str] = tuple("0123456789"),
    size: int | None = None,
    file_format: str = "tfrecord",
    shards: int = 3,
) -> pathlib.Path:
    """Prepares `splits` (each split's images of `size`, or of any) as TFDS does it, in several files; their folder."""

    with tfds.core.registered.skip_registration():

        class Builder(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("5.1.0")

            def _info(self):
                features = {
                    "file_name": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(size, size, 3)),
                    "label": tfds.features.ClassLabel(names=list(class_names)),
                }
                features = tfds.features.FeaturesDict(features)
                return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=("image", "label"))

            def _split_generators(self, manager):
                return {split: self._examples(examples) for split, examples in splits.items()}

            def _generate_examples(self):
                raise NotImplementedError

            def _examples(self, examples):
                for number, (data, label) in enumerate(examples):
                    yield number, {"file_name": f"{number}.jpg", "image": io.BytesIO(data), "label": label}

    Builder.name = name
    builder = Builder(data_dir=data_dir, file_format=file_format)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    return pathlib.Path(builder.data_path)


def as_tfds_reads(folder: pathlib.Path, splits: str) -> tuple[list[np.ndarray], list[int]]:
    """The images and labels of prepared TFRecord files in their stored order, by TFDS's own reader."""
    config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    dataset = tfds.builder_from_directory(folder).as_dataset(split=splits, shuffle_files=False, read_config=config)
    examples = list(typing.cast(typing.Iterable, dataset.as_numpy_iterator()))
    return [example["image"] for example in examples], [int(example["label"]) for example in examples]
