"""keras-cv has ended: where it is absent or does not import, only its own backbones and layers are refused."""

import subprocess
import sys

import pytest

from tests.test_architecture import ROOT, SOURCES, imported_modules

PROGRAM = """
import sys

class Finder:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "keras_cv":
            raise {error}("not\\nhere")

sys.meta_path.insert(0, Finder)
import numpy as np
import divco_tf
from divco_tf.models.backbones.registry import BACKBONES
from tests import tiny

assert "keras_cv_resnet50_v2" in BACKBONES.names()
model = divco_tf.CoTrainingModel(tiny.tiny_stack())
model.compile(divco_tf.SGD(0.1))
model.fit(*tiny.batch(4), verbose=0)
model.export({folder!r}, verbose=False)
operation = divco_tf.KerasLayer("keras.layers.RandomBrightness", {{"factor": 0.1}}).build(image_size=8)
operation(np.zeros((2, 2, 8, 8, 3), np.float32), np.zeros((2, 3)), 1)
data = {{"num_classes": 10, "input_shape": (32, 32, 3)}}
for asked in (
    lambda: divco_tf.build("keras_cv_resnet50_v2", **data),
    lambda: divco_tf.summarize("keras_cv_mobilenet_v3_small", split_factor=2, rule="budget", **data),
    lambda: divco_tf.KerasLayer("keras_cv.layers.GridMask").build(image_size=8),
    lambda: divco_tf.KerasLayer("RandomBrightness").build(image_size=8),
):
    try:
        asked()
    except divco_tf.InputError as error:
        print(error)
"""


@pytest.mark.parametrize("error", ["ImportError", "AttributeError"])
def test_all_else_works_where_it_does_not_import_and_its_own_is_refused_in_one_line(error, tmp_path):
    program = PROGRAM.format(error=error, folder=str(tmp_path / "export"))
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 0, process.stderr
    *its_own, unknown = [line for line in process.stdout.splitlines() if "Received: " in line]
    assert its_own == 3 * [
        f"keras-cv cannot be imported ({error}: not here). Received: TF_USE_LEGACY_KERAS=None; pip install "
        "'keras-cv==0.9.*' would work, and only its own backbones and layers need it."
    ]
    assert unknown.endswith("Did you mean keras.layers.RandomBrightness?")


def test_one_module_imports_it():
    importers = [path for path in SOURCES if any(name.split(".")[0] == "keras_cv" for name in imported_modules(path))]
    assert importers == [ROOT / "divco_tf" / "compat.py"]
