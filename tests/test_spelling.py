import pytest

from divco_tf.errors import InputError
from divco_tf.spelling import also_spelt
from tests.tiny import one_line


def test_keras_words_are_taken_for_ours_and_not_both():
    @also_spelt(dtype="precision")
    def function(precision="float32", **others):
        return precision, others

    assert function(dtype="float16", other=1) == ("float16", {"other": 1})
    assert function("bfloat16") == ("bfloat16", {})
    with pytest.raises(InputError) as error:
        function(dtype="float16", precision="float16")
    assert one_line(error.value, says="dtype is precision in Keras's words")
