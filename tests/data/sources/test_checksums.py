"""The checksum of TFRecord files."""

import importlib.resources
import struct

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.data.sources import checksums
from divco_tf.data.sources.checksums import masked_crc32c
from divco_tf.data.views.kernels.random_numbers import stamp


def unmasked(checksum: int) -> int:
    rotated = (checksum - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


# RFC 3720, appendix B.4, and the usual check value.
@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_the_checksum_is_that_of_the_standard(data, checksum):
    assert unmasked(masked_crc32c(np.frombuffer(bytearray(data), np.uint8))) == checksum


@settings(deadline=None, max_examples=30)
@given(data=st.binary(max_size=300))
def test_tensorflow_stores_the_same_checksums(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("records") / "one.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(data)
    stored = bytearray(path.read_bytes())
    lengths, content = (np.frombuffer(stored, np.uint8)[part] for part in (slice(8), slice(12, 12 + len(data))))
    assert masked_crc32c(lengths) == struct.unpack("<I", stored[8:12])[0]
    assert masked_crc32c(content) == struct.unpack("<I", stored[-4:])[0]


def test_the_kernel_is_compiled_anew_when_a_file_beside_it_or_beside_the_other_kernels_changes():
    folders = (
        importlib.resources.files(package) for package in ("divco_tf.data.sources", "divco_tf.data.views.kernels")
    )
    stamps = checksums._crc32c._cache._cache_file._source_stamp
    assert stamps == [stamp(folder) for folder in folders] and stamps[0] != stamps[1]
