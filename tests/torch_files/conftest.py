"""Reading and refusing a file of some bytes."""

import pytest

from divco_tf.errors import InputError
from divco_tf.torch_files.checkpoint import read_checkpoint
from tests import tiny


@pytest.fixture
def read(tmp_path):
    """Reads a file of these bytes."""

    def read(content: bytes):
        path = tmp_path / "net.pth.tar"
        path.write_bytes(content)
        return read_checkpoint(path)

    return read


@pytest.fixture
def refused(read):
    """The one line with which a file of these bytes is refused."""

    def refused(content: bytes) -> str:
        with pytest.raises(InputError) as error:
            read(content)
        assert tiny.one_line(error.value, says="net.pth.tar"), error.value
        return str(error.value)

    return refused
