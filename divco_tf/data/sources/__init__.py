"""Where images come from: sources with random access, opened by the name of a dataset and a split.

"train" and "held_out" are what is stored for training, parted by a stable hash of an example's index (of its path, in
a folder), so the parts are the same on every machine and in every run. "test" is what results are reported on.
"""

from divco_tf.data.sources.base import ArraySource as ArraySource
from divco_tf.data.sources.base import BadImage as BadImage
from divco_tf.data.sources.base import Choose as Choose
from divco_tf.data.sources.base import Source as Source
from divco_tf.data.sources.cache import cached as cached
from divco_tf.data.sources.folder import ImageFolder as ImageFolder
from divco_tf.data.sources.opening import check_on_error as check_on_error
from divco_tf.data.sources.opening import open_source as open_source
from divco_tf.data.sources.opening import open_splits as open_splits
from divco_tf.data.sources.prepared import RecordSource as RecordSource
from divco_tf.data.sources.subset import stratified as stratified
