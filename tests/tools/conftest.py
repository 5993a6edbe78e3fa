"""Toy configs in place of the shipped ones, and the programs in this process."""

import sys

import gin
import pytest

from divco_tf.tools.shared import configs, includes
from tests.tools.in_process import Programs

BASE = """
from __gin__ import dynamic_registration
from tests.tools import toy_library as toy

epochs = 3
toy.train.epochs = %epochs
toy.train.rate = @toy.Rate()
"""

ROW = """
from __gin__ import dynamic_registration
from tests.tools import toy_library as toy

include "base.gin"
toy.Rate.peak = 0.1
"""


@pytest.fixture
def toy_configs(tmp_path, monkeypatch):
    """A folder with toy configs (base, digits/row), taken for the shipped one."""
    folder = tmp_path / "configs"
    (folder / "digits").mkdir(parents=True)
    (folder / "base.gin").write_text(BASE)
    (folder / "digits" / "row.gin").write_text(ROW)
    for module in (configs, includes):
        monkeypatch.setattr(module, "configs_dir", lambda: folder)
    monkeypatch.setattr(sys, "path", [*sys.path])  # what a config may import is added
    monkeypatch.chdir(folder)
    yield folder
    gin.clear_config()


@pytest.fixture
def divco(monkeypatch, capfd) -> Programs:
    """Calls a program: divco("train", "--config=...")."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield Programs(monkeypatch, capfd)
    gin.clear_config()
