"""What is refused, in one line, and the training images of digits."""

import pytest

from divco_tf.data.sources import open_source
from divco_tf.errors import InputError
from tests.tiny import one_line

DIGITS = open_source("digits", "train")


def refusal(function, *arguments, **named) -> str:
    with pytest.raises(InputError) as caught:
        function(*arguments, **named)
    assert one_line(caught.value, says="")
    return str(caught.value)
