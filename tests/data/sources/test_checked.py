"""What a source of the user's gives."""

import numpy as np
import pytest

from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import Source
from divco_tf.data.streams import evaluation_dataset, reading
from divco_tf.data.views.policies import POLICIES
from divco_tf.errors import InputError
from tests.data.batches import MEAN, STD, pipeline


class Mine(Source):
    """What a user's source may be like."""

    image_size, class_names, labels = 8, ("a", "b"), np.arange(16) % 2

    def __init__(self, read=lambda: np.zeros((8, 8, 3), np.uint8), labels=None) -> None:
        self._read = read
        self.labels = self.labels if labels is None else labels

    def read(self, index):
        return self._read()


@pytest.mark.parametrize("policy", [POLICIES["none"], POLICIES["resized_crop"]])
@pytest.mark.parametrize(
    ("source", "told"),
    [
        (Mine(lambda: np.full((8, 8, 3), 0.8, np.float32)), r"float32 \[\d, \d, 3\] from the source Mine; uint8"),
        (Mine(lambda: np.zeros((8, 8, 4), np.uint8)), r"uint8 \[\d, \d, 4\] from the source Mine"),
        (Mine(lambda: np.zeros((8, 8), np.uint8)), r"uint8 \[\d, \d\] from the source Mine"),
        (Mine(lambda: np.zeros((8, 8, 3), np.int64)), r"int64 \[\d, \d, 3\] from the source Mine"),
        (Mine(labels=np.arange(16) % 2 * 1.0), r"float64 \[4\] from the source Mine; integers \[4\]"),
        (Mine(labels=np.arange(16) % 2 - 1), "-1 to 0 from the source Mine; 0 to 1"),
        (Mine(labels=np.arange(16) % 2 + 1), "1 to 2 from the source Mine; 0 to 1"),
    ],
)
def test_what_a_source_of_the_users_gives_is_checked(source, told, policy):
    with pytest.raises(InputError, match=f"Received: {told}.* would work") as error:
        pipeline(source, batch_size=4, policy=policy).views_at(0)
    assert "\n" not in str(error.value)


def test_evaluation_checks_what_a_source_gives_too():
    for source, told in ((Mine(lambda: np.zeros((8, 8, 3))), "float64"), (Mine(labels=np.arange(16)), "2 to 2 from")):
        dataset = evaluation_dataset(source, batch_size=16, preprocess=Preprocessing(8, MEAN, STD))
        with pytest.raises(InputError, match=f"Received: {told}"), reading():
            list(dataset)
