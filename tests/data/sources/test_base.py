"""Images in memory."""

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.sources import ArraySource, open_source
from divco_tf.errors import InputError


@pytest.mark.parametrize("labels", [[0.9, 1.2], [0, float("nan")], ["0", "1"], [None, 1]])
def test_labels_that_are_no_class_numbers_are_refused(labels):
    with pytest.raises(InputError, match="Labels are class numbers. Received: ") as error:
        ArraySource(np.zeros((2, 8, 8, 3), np.uint8), labels, ("a", "b"))
    assert "\n" not in str(error.value)
    assert ArraySource(np.zeros((2, 8, 8, 3), np.uint8), [1.0, 0.0], ("a", "b")).labels.tolist() == [1, 0]


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_region_of_an_image_in_memory_is_a_copy_of_that_part(data):
    source = ArraySource(np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3), [0], ("a", "b"))
    top, left = data.draw(st.integers(0, 7)), data.draw(st.integers(0, 7))
    box = (top, left, data.draw(st.integers(1, 8 - top)), data.draw(st.integers(1, 8 - left)))
    region = source.read_region(0, lambda height, width: box)
    np.testing.assert_array_equal(region, source.images[0, top : top + box[2], left : left + box[3]])
    region[:] = 0
    assert source.images.any() and source.read_stored(0).any()
    for wrong in ((0, 0, 9, 1), (-1, 0, 1, 1), (0, 0, 0, 1), (0, 8, 1, 1)):
        with pytest.raises(InputError, match="A part .* of an image. Received: "):
            source.read_region(0, lambda height, width, wrong=wrong: wrong)


def test_sources_in_memory_have_names_labels_and_a_fingerprint():
    source = open_source("digits", "test")
    assert source.name_of(12) == "digits test[12]" and source.encoded(0) is None
    np.testing.assert_array_equal(source.labels_of(np.array([3, 1])), source.labels[[3, 1]])
    assert source.fingerprint() == {"images": len(source), "labels_crc32": zlib.crc32(source.labels.tobytes())}
    assert source.fingerprint() != open_source("digits", "train").fingerprint()


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 4, 4, 3)), [0, 1]),
        (np.zeros((2, 4, 5, 3), np.uint8), [0, 1]),
        (np.zeros((2, 4, 4, 3), np.uint8), [0]),
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 2]),
    ],
    ids=["float", "not square", "a label missing", "label out of range"],
)
def test_arrays_that_do_not_fit_are_refused(images, labels):
    with pytest.raises(InputError, match="Received"):
        ArraySource(images, np.array(labels), ("a", "b"))
