"""`import divco_tf` lets Keras find our classes in its files, and imports nothing for it."""

import importlib
import importlib.util
import pathlib
import subprocess
import sys

import keras

import divco_tf
from divco_tf import saved_classes

ROOT = pathlib.Path(divco_tf.__file__).parent


def test_every_class_of_ours_is_announced_and_is_the_one_that_is_registered():
    for path in ROOT.rglob("*.py"):
        if "register_keras_serializable" in path.read_text():
            importlib.import_module("divco_tf." + ".".join(path.relative_to(ROOT).with_suffix("").parts))
    registered = {name: cls for name, cls in keras.saving.get_custom_objects().items() if name.startswith("divco_tf>")}
    assert set(registered) == {f"divco_tf>{name}" for name in saved_classes.CLASSES}
    for name, module in saved_classes.CLASSES.items():
        assert getattr(importlib.import_module(module), name) is registered[f"divco_tf>{name}"]


def test_a_placeholder_makes_the_class_and_gives_way_to_it(monkeypatch):
    objects = keras.saving.get_custom_objects()
    ours = objects["divco_tf>ShakeDrop"]
    monkeypatch.delitem(objects, "divco_tf>ShakeDrop")
    saved_classes.announce()
    assert objects["divco_tf>ShakeDrop"] is not ours
    layer = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(ours(0.25, name="drop")))
    assert type(layer) is ours and layer.rate == 0.25 and layer.name == "drop"
    monkeypatch.setitem(objects, "divco_tf>ShakeDrop", ours)
    saved_classes.announce()
    assert objects["divco_tf>ShakeDrop"] is ours


def test_keras_is_found_as_ever_and_announced_to_when_it_is_executed(monkeypatch):
    monkeypatch.delitem(sys.modules, "keras")
    saved_classes.announce(), saved_classes.announce()
    (finder,) = [each for each in sys.meta_path if isinstance(each, saved_classes._WhenKerasIsImported)]
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    told = []
    monkeypatch.setattr(saved_classes, "_register", told.append)
    assert importlib.util.find_spec("keras").origin == keras.__file__  # whoever only asks
    assert finder.find_spec("keras_cv", None) is None
    spec = finder.find_spec("keras", None)
    monkeypatch.setattr(type(spec.loader), "exec_module", lambda loader, module: told.append("executed"))
    again = finder.find_spec("keras", None)
    again.loader.exec_module("module")
    assert told == ["executed", "module"]
    assert finder not in sys.meta_path


def test_a_new_process_loads_a_file_and_imports_nothing_before():
    code = (
        "import sys, divco_tf; light = not {'keras', 'tensorflow', 'numpy'} & set(sys.modules)\n"
        "import keras; ours = [name for name in sys.modules if name.startswith('divco_tf.models')]\n"
        "layer = keras.saving.deserialize_keras_object({'class_name': 'ShakeShake', 'config': {'name': 'it'}, "
        "'module': 'divco_tf.models.layers.stochastic', 'registered_name': 'divco_tf>ShakeShake'})\n"
        "print(light, ours, type(layer).__module__, layer.name)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.stdout == "True [] divco_tf.models.layers.stochastic it\n", process.stderr
