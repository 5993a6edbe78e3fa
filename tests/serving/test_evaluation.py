import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import open_source
from divco_tf.errors import InputError
from divco_tf.runs.evaluation import Evaluation, evaluate
from divco_tf.serving.evaluation import evaluate_saved_model
from divco_tf.serving.export import export, export_stack
from divco_tf.training import losses
from tests.data.images import image_folder
from tests.tiny import lively, one_line, tiny_stack


@pytest.mark.parametrize(("split", "held_out"), [("test", 0.0), ("held_out", 0.1)])
def test_an_export_has_its_runs_figures_to_the_last_image(digits_run, digits_export, split, held_out):
    run = evaluate(digits_run, split=split)
    exported = evaluate_saved_model(digits_export, dataset="digits", split=split, held_out=held_out, batch_size=100)
    assert 0.1 < run.accuracy < 1 and len(run.branch_accuracies) == 2
    for name in ("split", "images", "accuracy", "branch_accuracies"):
        assert getattr(exported, name) == getattr(run, name), name
    for name in ("negative_log_likelihood", "calibration_error"):
        assert getattr(exported, name) == pytest.approx(getattr(run, name), abs=1e-6), name
    assert run.weights in exported.weights


def test_of_an_export_dir_the_highest_version_is_taken(digits_run, tmp_path):
    export(digits_run, export_dir=tmp_path, version=9, weights="best")
    export(digits_run, export_dir=tmp_path, version=10)
    (tmp_path / "11").mkdir()
    evaluation = evaluate_saved_model(tmp_path, dataset="digits")
    assert evaluation.weights.startswith(str(tmp_path / "10"))
    assert evaluation.branch_accuracies == ()


def test_images_of_any_size_go_in_as_they_are_stored(tmp_path):
    folder = str(image_folder(tmp_path / "images"))
    stack = lively(tiny_stack())
    preprocessing = Preprocessing(image_size=8, mean=(0.5,) * 3, std=(0.25,) * 3, resize="shorter_side_crop")
    source = open_source("image_folder", "test", data_dir=folder)
    export_stack(stack, preprocessing=preprocessing, class_names=source.class_names, export_dir=tmp_path / "exports")
    evaluation = evaluate_saved_model(tmp_path / "exports", dataset="image_folder", data_dir=folder)
    prepared = np.concatenate([preprocessing(source.read_stored(index)[None]) for index in range(len(source))])
    predicted = losses.ensemble(stack(prepared)).numpy().argmax(axis=1)
    assert evaluation.images == len(source) > 1
    assert evaluation.accuracy == np.mean(predicted == source.labels)


def test_what_does_not_fit_is_refused_in_one_line(digits_export, tmp_path):
    cases = [
        ((digits_export,), {"dataset": "image_folder", "data_dir": str(image_folder(tmp_path / "images"))}, "3 in"),
        ((digits_export,), {"dataset": "digtis"}, "digits"),
        ((tmp_path,), {"dataset": "digits"}, "No SavedModel"),
        ((tmp_path / "absent",), {"dataset": "digits"}, "No SavedModel"),
    ]
    for positional, named, says in cases:
        with pytest.raises(InputError) as caught:
            evaluate_saved_model(*positional, **named)
        assert one_line(caught.value, says=says)


def test_other_classes_or_another_order_of_them_are_refused_by_name(tmp_path):
    folder = image_folder(tmp_path / "images")  # of class0, class1, class2
    names = open_source("image_folder", "test", data_dir=str(folder)).class_names
    preprocessing = Preprocessing(image_size=8, mean=(0.5,) * 3, std=(0.25,) * 3)

    def evaluated(class_names: Sequence[str], name: str, **options: Any) -> Evaluation:
        version = export_stack(
            tiny_stack(), preprocessing=preprocessing, class_names=class_names, export_dir=tmp_path / name, **options
        )
        return evaluate_saved_model(version, dataset="image_folder", data_dir=str(folder))

    assert evaluated(names, "same").images > 1
    imported = {"imported": {"file": "net.pth"}}, {"weights_from": "run imported from net.pth, CC"}  # 0.1.0's
    for number, record in enumerate(imported):
        assert evaluated("012", f"numbered{number}", record=record).images > 1
    cases = [
        ((*names[:2], "owl"), f"are not the export's. Received: class 2 is {names[2]} in the data, and owl in"),
        (names[::-1], f"in another order. Received: class 0 is {names[0]} in the data, and {names[2]} in"),
        ("012", f"class 0 is {names[0]} in the data, and 0 in"),
    ]
    for number, (others, says) in enumerate(cases):
        with pytest.raises(InputError) as caught:
            evaluated(others, f"other{number}")
        assert one_line(caught.value, says=says)


def cut(part: float) -> Callable[[pathlib.Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])


DATA = "variables/variables.data-00000-of-00001"
DAMAGES = {
    "half the weights": (DATA, cut(0.5)),
    "no weights": (DATA, pathlib.Path.unlink),
    "an empty index": ("variables/variables.index", cut(0)),
    "no index": ("variables/variables.index", pathlib.Path.unlink),
    "half a graph": ("saved_model.pb", cut(0.5)),
    "most of a graph": ("saved_model.pb", cut(0.999)),
    "an empty graph": ("saved_model.pb", cut(0)),
    "a text for a graph": ("saved_model.pb", lambda path: path.write_text("not a graph")),
    "half a record": ("assets.extra/divco.json", cut(0.5)),
    "a list for a record": ("assets.extra/divco.json", lambda path: path.write_text("[1]")),
    "a record that is no text": ("assets.extra/divco.json", lambda path: path.write_bytes(b"\xff\xfe")),
    "names that are none": ("assets.extra/divco.json", lambda path: path.write_text('{"class_names": 7}')),
}


@pytest.mark.parametrize(("name", "damage"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_export_is_refused_in_one_line_that_names_it(tmp_path, exported, name, damage):
    shutil.copytree(exported, tmp_path / "1")
    damage(tmp_path / "1" / name)
    with pytest.raises(InputError) as caught:
        evaluate_saved_model(tmp_path, dataset="digits")
    assert one_line(caught.value, says=str(tmp_path / "1"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> pathlib.Path:
    preprocessing = Preprocessing(image_size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    names = "0123456789"
    folder = tmp_path_factory.mktemp("exported")
    return export_stack(tiny_stack(num_classes=10), preprocessing=preprocessing, class_names=names, export_dir=folder)


class Foreign(tf.Module):
    """A SavedModel of somebody else's."""

    def __init__(self, taken: tf.TensorSpec, **given: Sequence[int]) -> None:
        super().__init__()

        @tf.function
        def answer(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            nothing = 0 * tf.reduce_sum(tf.ensure_shape(inputs[taken.name], taken.shape))
            return {name: nothing + tf.zeros(shape, nothing.dtype) for name, shape in given.items()}

        self.images = answer.get_concrete_function(**{taken.name: taken})


IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32, "images")
FOREIGN = {
    "another input": (Foreign(tf.TensorSpec([None, 8, 8, 3], tf.float32, "x"), probabilities=[4, 10]), "x: float32"),
    "bytes": (Foreign(tf.TensorSpec([None], tf.uint8, "images"), probabilities=[4, 10]), "images: uint8 of 1 axes"),
    "other outputs": (Foreign(IMAGES, logits=[4, 10]), "-> logits: float32 of 2 axes"),
    "one axis": (Foreign(IMAGES, probabilities=[10]), "probabilities: float32 of 1 axes"),
    "other branches": (Foreign(IMAGES, probabilities=[4, 10], branch_probabilities=[4, 10]), "is another than ours"),
    "other images": (
        Foreign(tf.TensorSpec([None, 9, 9, 3], tf.float32, "images"), probabilities=[4, 10]),
        "does not take the images",
    ),
    "fewer answers": (Foreign(IMAGES, probabilities=[4, 10]), "gives 4 answers"),
    "no signature": (tf.Module(), "no signature images"),
}


@pytest.mark.parametrize(("model", "says"), FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_saved_model_is_refused_in_one_line_that_names_it(tmp_path, model, says):
    signatures = {"images": model.images} if hasattr(model, "images") else {}
    tf.saved_model.save(model, str(tmp_path / "1"), signatures=signatures)
    with pytest.raises(InputError) as caught:
        evaluate_saved_model(tmp_path, dataset="digits")
    assert one_line(caught.value, says=says) and str(tmp_path / "1") in str(caught.value)


def test_a_folder_may_be_called_what_tensorflow_takes_for_a_pattern_and_a_version_have_zeros_in_front(
    digits_export, tmp_path
):
    for name in ("lr=[0.1]", "a\\b"):
        shutil.copytree(digits_export, tmp_path / name / "007")
        shutil.copytree(digits_export, tmp_path / name / "1")
        evaluation = evaluate_saved_model(tmp_path / name, dataset="digits", batch_size=1000)
        assert evaluation.images == 387 and evaluation.weights.startswith(str(tmp_path / name / "007"))


def test_a_damaged_image_is_named(tmp_path, digits_export):
    folder = image_folder(tmp_path / "images")
    preprocessing = Preprocessing(image_size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    source = open_source("image_folder", "test", data_dir=str(folder))
    names = source.class_names
    export_stack(tiny_stack(), preprocessing=preprocessing, class_names=names, export_dir=tmp_path / "exports")
    damaged = folder / source.paths[0]
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(InputError) as caught:
        evaluate_saved_model(tmp_path / "exports", dataset="image_folder", data_dir=str(folder))
    assert one_line(caught.value, says=str(damaged))
