"""`divco_tf.X`: every name is there, and imports only what it needs."""

import importlib.metadata
import os
import subprocess
import sys

import keras
import pytest

import divco_tf
from divco_tf.errors import InputError
from tests.tiny import one_line


def test_the_version_and_the_public_names_are_there():
    assert divco_tf.__version__ == importlib.metadata.version("divco_tf")
    assert "__version__" in dir(divco_tf)
    assert {"by_split", "by_sqrt_split", "by_table", "register_backbones", "spec_to_json"} <= set(divco_tf.__all__)
    for name in divco_tf.__all__:
        assert getattr(divco_tf, name).__module__.startswith("divco_tf.")
    scope = {}
    exec("from divco_tf import *", scope)
    assert set(divco_tf.__all__) <= set(scope)
    with pytest.raises(AttributeError, match="'divco_tf' has no attribute 'bulid'"):
        divco_tf.bulid  # noqa: B018


@pytest.mark.parametrize("name", ["divide", "build", "BranchStack", "InputError"])
def test_only_what_needs_keras_asks_for_its_backend(name, monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    if name in ("divide", "InputError"):
        assert getattr(divco_tf, name)
        return
    with pytest.raises(InputError) as error:
        getattr(divco_tf, name)
    assert one_line(error.value, says="'jax'")


def test_with_another_backend_only_what_does_not_import_keras_is_imported():
    code = (
        "import sys, divco_tf\n"
        "for name in divco_tf.__all__:\n"
        "    try: getattr(divco_tf, name)\n"
        "    except divco_tf.InputError as error: assert 'torch' in str(error)\n"
        "    else: print(name)\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    found = {name for name, module in divco_tf._MODULES.items() if module.startswith(divco_tf._WITHOUT_KERAS)}
    assert set(process.stdout.split()) == found, process.stderr
    assert {"InputError", "divide", "read_checkpoint", "register_backbone", "spec_to_json"} <= found
