import pytest
import tensorflow as tf

from divco_tf.runtime.job import Job
from divco_tf.runtime.strategy import make_strategy


def test_alone_a_process_is_the_first_of_one():
    for name in ("one_device", "mirrored"):
        job = Job(make_strategy(name))
        assert job.chief and job.part == (0, 1)
        job.check_same("step", 3, at="here")
        with pytest.raises(tf.errors.UnavailableError), job.watched(lambda: "told"):
            raise tf.errors.UnavailableError(None, None, "as it was")
