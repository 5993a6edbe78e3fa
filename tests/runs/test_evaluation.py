import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf

from divco_tf.data.sources import ArraySource, open_source
from divco_tf.data.streams import evaluation_dataset
from divco_tf.errors import InputError
from divco_tf.runs.evaluation import Answers, Predictor, evaluate, figures
from divco_tf.runs.model_dir import load
from divco_tf.runtime.strategy import make_strategy
from divco_tf.training import losses, metrics
from tests.data.images import image_folder
from tests.runs import runs
from tests.tiny import lively, one_line, tiny_stack

ENSEMBLING = "max_probabilities"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """Of a run with held-out images whose best weights are not the last, of 387 test images."""
    folder = tmp_path_factory.mktemp("run")
    described = runs.experiment(held_out=0.2, ensembling=ENSEMBLING)
    runs.run(folder, described)
    records = json.loads((folder / "metrics.json").read_text())
    records[0]["accuracy"] = 1.0
    (folder / "metrics.json").write_text(json.dumps(records))
    return folder


def same_figures(one, other) -> bool:
    kept = [dataclasses.asdict(dataclasses.replace(evaluation, seconds=0.0)) for evaluation in (one, other)]
    close = [
        {name: evaluation.pop(name) for name in ("negative_log_likelihood", "calibration_error")} for evaluation in kept
    ]
    return kept[0] == kept[1] and close[0] == pytest.approx(close[1], rel=1e-5)


def test_evaluate_gives_what_training_recorded(model_dir):
    evaluation = evaluate(model_dir)
    recorded = runs.records(model_dir)[-1]
    fields = {name: value for name, value in dataclasses.asdict(evaluation).items() if not name.startswith("seconds")}
    assert {**fields, "branch_accuracies": list(fields["branch_accuracies"])} == {
        name: value for name, value in recorded.items() if name not in ("step", "epoch")
    }
    assert evaluation.seconds_per_step > 0


@pytest.mark.parametrize(("split", "images"), [("test", 387), ("held_out", 268), ("train", 1142)])
def test_figures_are_those_of_every_image_of_the_split(model_dir, split, images):
    evaluation = evaluate(model_dir, split=split, batch_size=100)
    source = open_source("digits", split, held_out=0.2)
    prepared = runs.experiment().preprocessing(source.read_batch(np.arange(len(source))))
    logits = load(model_dir)(prepared)
    probabilities = losses.ensemble_probabilities(logits, ENSEMBLING).numpy()
    assert evaluation.images == len(source) == images
    assert evaluation.accuracy == np.mean(probabilities.argmax(axis=1) == source.labels)
    assert evaluation.branch_accuracies == tuple(
        np.mean(logits.numpy().argmax(axis=2) == source.labels[:, None], axis=0)
    )
    nll = -np.mean(np.log(probabilities[np.arange(images), source.labels]))
    assert evaluation.negative_log_likelihood == pytest.approx(nll, rel=1e-5)
    assert evaluation.calibration_error == pytest.approx(
        metrics.expected_calibration_error(probabilities, source.labels), rel=1e-4
    )


@pytest.mark.parametrize(
    "options",
    [
        *({"batch_size": 1000}, {"batch_size": 43}, {"jit": "on"}),
        {"strategy": "mirrored", "batch_size": 386},  # the last batch is smaller than the number of replicas
        {"strategy": "mirrored", "batch_size": 43},  # no batch divides by two
        {"strategy": "mirrored", "batch_size": 9, "jit": "on"},
    ],
    ids=str,
)
def test_figures_depend_neither_on_batches_nor_on_devices(model_dir, options):
    assert same_figures(evaluate(model_dir, **options), evaluate(model_dir))


def test_best_weights_are_those_of_their_step(model_dir):
    best, last = evaluate(model_dir, weights="best"), evaluate(model_dir)
    assert last.weights == "last step 8"
    assert best.weights.startswith("best step ") and best.weights != "best step 8"
    assert best.negative_log_likelihood != last.negative_log_likelihood


@pytest.mark.parametrize("batches", [[3, 3, 1], [1], [2, 5]])
@pytest.mark.parametrize("strategy", ["one_device", "mirrored"])
def test_a_predictor_keeps_the_images_order(batches, strategy):
    placement = make_strategy(strategy)
    with placement.scope():
        stack = lively(tiny_stack())
    images = np.random.default_rng(0).standard_normal((sum(batches), 8, 8, 3)).astype(np.float32)
    predict = Predictor(stack, "mean_logits", strategy=placement)
    results = list(predict(tf.constant(part) for part in np.split(images, np.cumsum(batches)[:-1])))
    assert [len(probabilities) for probabilities, _ in results] == batches
    logits = stack(images)
    probabilities = np.concatenate([result[0] for result in results])
    np.testing.assert_allclose(probabilities, losses.ensemble_probabilities(logits, "mean_logits"), rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([result[1] for result in results]), logits, rtol=1e-5, atol=1e-6)


def test_samples_of_dropout_are_those_of_the_seed_and_the_image_whatever_the_batches():
    images = np.random.default_rng(0).standard_normal((7, 8, 8, 3)).astype(np.float32)

    def logits(strategy, sizes, **how):
        placement = make_strategy(strategy)
        with placement.scope():
            stack = lively(tiny_stack(dropout=0.5))
        predict = Predictor(stack, "mean_logits", strategy=placement, samples=3, **how)
        parts = np.split(images, np.cumsum(sizes)[:-1])
        return np.concatenate([found for _, found in predict(tf.constant(part) for part in parts)])

    sampled = logits("one_device", [7])
    assert sampled.shape == (7, 6, 3)
    assert np.abs(sampled[:, :2] - sampled[:, 2:4]).max() > 0.01
    np.testing.assert_allclose(logits("one_device", [3, 4]), sampled, atol=1e-5)
    np.testing.assert_allclose(logits("mirrored", [5, 2]), sampled, atol=1e-5)
    assert np.abs(logits("one_device", [7], seed=1) - sampled).max() > 0.01
    without = lively(tiny_stack(dropout=0.5))(images).numpy()
    many = logits("one_device", [7])  # the classifier is linear, so that dropout before it changes no mean
    many = np.concatenate([many, *(logits("one_device", [7], seed=seed) for seed in range(1, 12))], axis=1)
    samples = many.reshape(7, 36, 2, 3)
    error = samples.std(axis=1) / 6
    assert np.all(np.abs(samples.mean(axis=1) - without) < 5 * error + 1e-4)


def test_a_network_without_dropout_is_not_sampled():
    with pytest.raises(InputError, match="The network has no dropout to sample"):
        Predictor(tiny_stack(), "mean_logits", strategy=make_strategy("one_device"), samples=2)


def test_figures_of_a_worked_example():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]])
    branch_classes = np.array([[0, 0], [1, 0], [1, 1]])
    source = ArraySource(np.zeros((3, 8, 8, 3), np.uint8), [0, 1, 1], ("a", "b"))
    evaluation = figures(Answers(probabilities, branch_classes, source), split="test", seconds=2.0, weights="x")
    assert (evaluation.images, evaluation.split, evaluation.seconds, evaluation.weights) == (3, "test", 2.0, "x")
    assert evaluation.accuracy == pytest.approx(2 / 3)
    assert evaluation.branch_accuracies == pytest.approx((1.0, 2 / 3))
    assert evaluation.negative_log_likelihood == pytest.approx(-np.log([0.9, 0.6, 0.2]).mean())
    assert evaluation.calibration_error == pytest.approx((0.1 + 0.4 + 0.8) / 3)


def refusal(*arguments, **named) -> str:
    with pytest.raises(InputError) as caught:
        evaluate(*arguments, **named)
    assert one_line(caught.value, says="")
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "tets"}, "test"),
        ({"weights": "bets"}, "best"),
        ({"weights": "ema"}, "no moving average"),
        ({"strategy": "one"}, "one_device"),
        ({"jit": "maybe"}, "auto, on, off"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
    ids=str,
)
def test_bad_input_is_refused_in_one_line(model_dir, options, says):
    assert says in refusal(model_dir, **options)


def test_what_is_no_run_is_refused(tmp_path):
    assert str(tmp_path) in refusal(tmp_path)


@pytest.fixture(scope="module")
def own_images(tmp_path_factory):
    """A run on a folder of three classes, and the folder."""
    root = tmp_path_factory.mktemp("own")
    folder = image_folder(root / "images")
    described = runs.experiment(dataset="image_folder", image_size=8, batch_size=8, epochs=1)
    runs.run(root / "run", described, data_dir=str(folder))
    return root / "run", folder


def test_images_are_counted_once_whatever_their_sizes(own_images):
    model_dir, folder = own_images
    evaluation = evaluate(model_dir, data_dir=str(folder), batch_size=5)
    images = sum(len(open_source("image_folder", split, data_dir=str(folder))) for split in ("train", "test"))
    assert images == 36 and 0 < evaluation.images < images
    assert evaluation.images + evaluate(model_dir, data_dir=str(folder), split="train").images == images


def test_data_of_other_classes_are_refused(own_images, tmp_path):
    model_dir, _ = own_images
    said = refusal(model_dir, data_dir=str(image_folder(tmp_path / "four", classes=4)))
    assert "4 classes" in said and "3 classes" in said
    assert "needs a data_dir" in refusal(model_dir)


def test_an_image_that_cannot_be_read_is_named(own_images, tmp_path):
    model_dir, _ = own_images
    folder = image_folder(tmp_path / "images")
    source = open_source("image_folder", "test", data_dir=str(folder))
    broken = source.root / source.paths[-1]
    broken.write_bytes(broken.read_bytes()[:60])
    assert str(broken) in refusal(model_dir, data_dir=str(folder))


def test_evaluation_reads_each_image_once():
    source = open_source("digits", "test")
    dataset = evaluation_dataset(source, batch_size=100, preprocess=runs.experiment().preprocessing)
    assert [len(labels) for _, labels in dataset] == [100, 100, 100, 87]
