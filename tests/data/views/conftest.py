"""What tests register is gone after them."""

import pytest

from divco_tf.data.views.augmentations import AUGMENTATIONS
from divco_tf.data.views.operations import OWN


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test registers is gone after it."""
    for registry in (OWN, AUGMENTATIONS):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
