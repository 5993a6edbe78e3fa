import numpy as np
import pytest

from divco_tf.data.preprocessing import Preprocessing
from divco_tf.data.sources import open_source
from divco_tf.errors import InputError
from divco_tf.serving.evaluation import evaluate_saved_model
from divco_tf.serving.export import export, export_stack
from divco_tf.training import losses
from divco_tf.training.evaluation import evaluate
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


def test_a_damaged_image_is_named(tmp_path, digits_export):
    folder = image_folder(tmp_path / "images")
    preprocessing = Preprocessing(image_size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    export_stack(tiny_stack(), preprocessing=preprocessing, class_names="abc", export_dir=tmp_path / "exports")
    source = open_source("image_folder", "test", data_dir=str(folder))
    damaged = folder / source.paths[0]
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(InputError) as caught:
        evaluate_saved_model(tmp_path / "exports", dataset="image_folder", data_dir=str(folder))
    assert one_line(caught.value, says=str(damaged))
