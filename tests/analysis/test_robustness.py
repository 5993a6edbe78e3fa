import collections
import itertools

import numpy as np
import pytest

from divco_tf.analysis.robustness import Robustness, evaluate_robustness, robustness
from divco_tf.data.corruptions import CORRUPTIONS, SEVERITIES, CorruptedSource, corrupt
from divco_tf.data.sources import ArraySource, open_source
from divco_tf.data.streams import evaluation_dataset
from divco_tf.errors import InputError
from divco_tf.runs.evaluation import evaluate
from divco_tf.runs.model_dir import load
from divco_tf.training import losses, metrics
from tests.data.images import image_folder
from tests.runs import runs

DIGITS = open_source("digits", "test", image_size=16)
FAMILIES = ("fog", "impulse_noise", "pixelate")


def predict(images: np.ndarray) -> np.ndarray:
    """A poor classifier: probabilities [n, 10] from the brightness of ten parts of each image."""
    rows = images.reshape(len(images), -1)[:, :760].reshape(len(images), 10, -1).mean(axis=2)
    exponentials = np.exp((rows - rows.max(axis=1, keepdims=True)) / 20)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def test_figures_are_those_of_each_corruption_alone():
    found = robustness(predict, DIGITS, families=FAMILIES, severities=(2, 5), seed=3, batch_size=100)
    assert (found.families, found.severities, found.images) == (FAMILIES, (2, 5), len(DIGITS))
    for i, family in enumerate(FAMILIES):
        for j, severity in enumerate((2, 5)):
            probabilities = predict(corrupt(DIGITS.images, family=family, severity=severity, seed=3))
            assert found.accuracy[i, j] == pytest.approx(metrics.accuracy(probabilities, DIGITS.labels))
            expected = metrics.negative_log_likelihood(probabilities, DIGITS.labels)
            assert found.negative_log_likelihood[i, j] == pytest.approx(expected)
    clean = predict(DIGITS.images)
    assert found.clean_accuracy == pytest.approx(metrics.accuracy(clean, DIGITS.labels))
    assert found.clean_negative_log_likelihood == pytest.approx(metrics.negative_log_likelihood(clean, DIGITS.labels))
    assert len(np.unique(found.accuracy)) > 3


def test_figures_do_not_depend_on_batches():
    one, other = (robustness(predict, DIGITS, families=FAMILIES, batch_size=size) for size in (37, 1000))
    np.testing.assert_allclose(one.accuracy, other.accuracy, rtol=1e-12)
    np.testing.assert_allclose(one.negative_log_likelihood, other.negative_log_likelihood, rtol=1e-12)
    np.testing.assert_array_equal(one.severities, SEVERITIES)


class Counting(ArraySource):
    """Counts how often each image is read."""

    def __init__(self, count: int) -> None:
        super().__init__(DIGITS.images[:count], DIGITS.labels[:count], DIGITS.class_names)
        self.read_counts = collections.Counter()

    def read_batch(self, indices):
        self.read_counts.update(indices.tolist())
        return super().read_batch(indices)


def test_all_families_are_the_default_and_each_image_is_read_once():
    source, lines = Counting(20), []
    found = robustness(predict, source, severities=(1,), batch_size=8, report=lines.append)
    assert found.families == tuple(CORRUPTIONS) and found.accuracy.shape == (15, 1)
    assert source.read_counts == dict.fromkeys(range(20), 1)
    assert lines == [f"corrupted: {count} of 20 images" for count in (8, 16, 20)]


def test_fewer_images_are_always_the_same_among_more():
    chosen = []
    for images in (1, 7, 20, 33, 49):
        source = Counting(50)
        found = robustness(predict, source, families=("fog",), severities=(1,), images=images)
        chosen.append(np.sort(list(source.read_counts)))
        assert found.images == len(chosen[-1]) == images
        expected = metrics.accuracy(predict(source.images[chosen[-1]]), source.labels[chosen[-1]])
        assert found.clean_accuracy == pytest.approx(expected)
    assert all(set(fewer) < set(more) for fewer, more in itertools.pairwise(chosen))
    assert chosen[1].tolist() != list(range(7))


def test_errors_are_means_of_a_worked_example():
    found = Robustness(
        families=("fog", "snow"),
        severities=(1, 2),
        images=10,
        accuracy=np.array([[0.9, 0.7], [0.8, 0.4]]),
        negative_log_likelihood=np.ones((2, 2)),
        clean_accuracy=0.95,
        clean_negative_log_likelihood=0.5,
    )
    assert found.mean_corruption_error == pytest.approx((0.1 + 0.3 + 0.2 + 0.6) / 4)
    assert found.relative_corruption_error == pytest.approx((0.05 + 0.25 + 0.15 + 0.55) / 4)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"families": ("fog", "rain")}, "Unknown family"),
        ({"families": ()}, "nothing to corrupt by"),
        ({"severities": ()}, "nothing to corrupt by"),
        ({"severities": (0,)}, "1 to 5"),
        ({"images": 0}, "images is out of range"),
        ({"images": 388}, "1 to 387 would work"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": None}, "seed has another type"),
        ({"predict": lambda images: predict(images)[:, :3]}, "no class of the probabilities"),
        ({"predict": lambda images: predict(images)[:1]}, "Labels do not fit"),
        ({"predict": lambda images: predict(images) * 9}, "outside 0..1"),
        ({"source": ArraySource(np.zeros((1, 4, 4, 3), np.uint8), [0], ("a",))}, "image_size=4"),
    ],
)
def test_bad_input_is_refused_in_one_line(options, says):
    options = {"predict": predict, "source": DIGITS, "families": ("fog",), "severities": (1,)} | options
    with pytest.raises(InputError, match=says) as error:
        robustness(options.pop("predict"), options.pop("source"), **options)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    runs.run(folder, runs.experiment(epochs=2))
    return folder


def test_a_run_is_judged_like_its_evaluation(model_dir):
    found = evaluate_robustness(model_dir, families=("fog", "contrast"), severities=(2, 4), batch_size=150)
    evaluation = evaluate(model_dir)
    assert found.images == evaluation.images
    assert found.clean_accuracy == pytest.approx(evaluation.accuracy)
    assert found.clean_negative_log_likelihood == pytest.approx(evaluation.negative_log_likelihood, rel=1e-4)
    source = CorruptedSource(open_source("digits", "test"), family="contrast", severity=4)
    dataset = evaluation_dataset(source, batch_size=387, preprocess=runs.experiment().preprocessing.normalise)
    ((images, labels),) = dataset
    probabilities = losses.ensemble_probabilities(load(model_dir)(images), runs.experiment().ensembling).numpy()
    assert found.accuracy[1, 1] == pytest.approx(metrics.accuracy(probabilities, labels.numpy()))
    expected = metrics.negative_log_likelihood(probabilities, labels.numpy())
    assert found.negative_log_likelihood[1, 1] == pytest.approx(expected, rel=1e-4)
    assert found.clean_accuracy != found.accuracy[1, 1]


def test_images_of_a_folder_are_cropped_once(tmp_path):
    folder = str(image_folder(tmp_path / "images"))
    runs.run(
        tmp_path / "run", runs.experiment(dataset="image_folder", image_size=8, batch_size=8, epochs=1), data_dir=folder
    )
    found = evaluate_robustness(tmp_path / "run", data_dir=folder, families=("fog",), severities=(1,))
    evaluation = evaluate(tmp_path / "run", data_dir=folder)
    assert found.clean_negative_log_likelihood == pytest.approx(evaluation.negative_log_likelihood, rel=0.02)


def test_what_cannot_be_evaluated_is_refused(model_dir, tmp_path):
    for wrong in ({"model_dir": tmp_path}, {"weights": "ema"}, {"split": "tets"}, {"strategy": "one"}):
        with pytest.raises(InputError) as error:
            evaluate_robustness(**{"model_dir": model_dir, "families": ("fog",)} | wrong)
        assert "\n" not in str(error.value)
