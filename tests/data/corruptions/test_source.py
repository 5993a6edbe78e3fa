import numpy as np
import pytest

from divco_tf.data.corruptions import CorruptedSource, corrupt
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import ArraySource, ImageFolder, open_source
from divco_tf.data.streams import evaluation_dataset
from divco_tf.errors import InputError
from tests.data.images import image_folder

DIGITS = open_source("digits", "test", image_size=16)
CORRUPTION = {"family": "shot_noise", "severity": 4, "seed": 7}
NOISY = CorruptedSource(DIGITS, **CORRUPTION)


def test_images_are_corrupted_by_their_index_however_they_are_read():
    indices = np.array([40, 3, 41])
    expected = corrupt(DIGITS.images[indices], **CORRUPTION, indices=indices)
    assert (expected != DIGITS.images[indices]).any()
    np.testing.assert_array_equal(NOISY.read_batch(indices), expected)
    np.testing.assert_array_equal(NOISY.read(3), expected[1])
    np.testing.assert_array_equal(NOISY.read_stored(3), expected[1])
    np.testing.assert_array_equal(NOISY.read_region(3, lambda height, width: (1, 2, 5, 6)), expected[1][1:6, 2:8])


def test_labels_and_names_are_the_clean_ones():
    assert len(NOISY) == len(DIGITS) and NOISY.num_classes == 10 and NOISY.image_size == 16
    np.testing.assert_array_equal(NOISY.labels, DIGITS.labels)
    np.testing.assert_array_equal(NOISY.labels_of(np.array([5])), DIGITS.labels[[5]])
    assert NOISY.name_of(5) == "digits test[5]"
    assert NOISY.fingerprint() != DIGITS.fingerprint()
    assert NOISY.fingerprint() == CorruptedSource(DIGITS, **CORRUPTION).fingerprint()


def test_evaluation_reads_corrupted_images_in_order():
    preprocessing = Preprocessing(image_size=16, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    batches = list(evaluation_dataset(NOISY, batch_size=100, preprocess=preprocessing.normalise))
    images = np.concatenate([images for images, _ in batches])
    np.testing.assert_allclose(images, corrupt(DIGITS.images, **CORRUPTION), atol=1e-4)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), DIGITS.labels)


def test_images_of_a_folder_are_corrupted_after_resizing(tmp_path):
    folder = open_source("image_folder", "test", data_dir=str(image_folder(tmp_path)), image_size=12)
    assert isinstance(folder, ImageFolder)
    source = CorruptedSource(folder, family="fog", severity=2)
    np.testing.assert_array_equal(
        source.read(1), corrupt(folder.read(1)[None], family="fog", severity=2, indices=[1])[0]
    )
    names = source.class_names
    turned = source.ordered_as(names[::-1])
    assert isinstance(turned, CorruptedSource) and turned.class_names == names[::-1]
    np.testing.assert_array_equal(turned.labels, len(names) - 1 - source.labels)
    assert source.holds(tmp_path / "class0" / "new.png")


@pytest.mark.parametrize(
    ("source", "changed", "says"),
    [
        (DIGITS, {"family": "rain"}, "Unknown family"),
        (DIGITS, {"severity": 9}, "1 to 5"),
        (ArraySource(np.zeros((1, 4, 4, 3), np.uint8), [0], ("a",)), {}, "image_size=4"),
    ],
)
def test_bad_input_is_refused_in_one_line(source, changed, says):
    with pytest.raises(InputError, match=says) as error:
        CorruptedSource(source, **CORRUPTION | changed)
    assert "\n" not in str(error.value)
