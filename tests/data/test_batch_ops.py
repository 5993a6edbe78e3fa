"""The user's operations on a batch, by name."""

import numpy as np
import pytest

from divco_tf.data.batch_ops import BATCH_OPERATIONS, register_batch_operation
from divco_tf.errors import InputError
from tests.data.batch_operations import labels, normalised, operations, pixels


def test_a_registered_function_is_found_by_name(monkeypatch):
    monkeypatch.setattr(BATCH_OPERATIONS, "_entries", {})

    @register_batch_operation("negative")
    def negative(views, labels, key):
        return 255 - views, labels

    views, _ = operations("negative")(normalised(pixels()), labels(), seed=0, step=0)
    np.testing.assert_allclose(views, normalised(255 - pixels()), atol=1e-5)
    with pytest.raises(InputError, match="Unknown batch operation. Received: negatve. Did you mean negative?"):
        operations("negatve")
    with pytest.raises(InputError, match="registered already"):
        register_batch_operation("negative")(negative)
