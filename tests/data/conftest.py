"""Image files that several tests read."""

import pytest

from tests.data.images import image_folder


@pytest.fixture
def photos(tmp_path):
    return image_folder(tmp_path / "photos", classes=2, images=10)
