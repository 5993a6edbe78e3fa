"""A run and its export, once for all tests here."""

import pathlib

import pytest

from divco_tf.runs.experiment import Experiment
from divco_tf.runs.loop import train
from divco_tf.runs.options import Options
from divco_tf.serving.export import export
from divco_tf.training.optim.learning_rate import LearningRate


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The model_dir of two branches trained on digits for two epochs, with held-out images."""
    experiment = Experiment(
        backbone="wide_resnet10_2",
        dataset="digits",
        split_factor=2,
        held_out=0.1,
        epochs=2,
        batch_size=64,
        ensembling="mean_probabilities",
        learning_rate=LearningRate(learning_rate=0.1),
    )
    model_dir = tmp_path_factory.mktemp("runs") / "digits"
    train(experiment, model_dir=model_dir, options=Options(evaluate_every=2, threads=1), report=lambda line: None)
    return model_dir


@pytest.fixture(scope="session")
def digits_export(digits_run: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The run's export with each branch's probabilities; a version's folder."""
    return export(digits_run, export_dir=tmp_path_factory.mktemp("exports") / "digits", branch_probabilities=True)
