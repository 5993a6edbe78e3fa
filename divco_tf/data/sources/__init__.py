"""Where images come from: sources with random access, opened by the name of a dataset and a split.

"train" and "held_out" are what is stored for training, parted by a stable hash of an example's index (of its path, in
a folder), so the parts are the same on every machine and in every run. "test" is what results are reported on.
"""

from divco_tf.data.sources.base import ArraySource, BadImage, Choose, Source
from divco_tf.data.sources.cache import cached
from divco_tf.data.sources.folder import ImageFolder
from divco_tf.data.sources.opening import check_class_names, check_on_error, open_source, open_splits
from divco_tf.data.sources.prepared import RecordSource
from divco_tf.data.sources.splits import in_split, shares

__all__ = [
    "ArraySource",
    "BadImage",
    "Choose",
    "ImageFolder",
    "RecordSource",
    "Source",
    "cached",
    "check_class_names",
    "check_on_error",
    "in_split",
    "open_source",
    "open_splits",
    "shares",
]
