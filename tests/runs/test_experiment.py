import dataclasses

import numpy as np
import pytest

from divco_tf.runs.experiment import Experiment
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.learning_rate import LearningRate
from tests.runs import runs
from tests.runs.refusals import DIGITS, refusal


@pytest.mark.parametrize(
    "changes", [{"dataset": "digts"}, {"epochs": 0}, {"epochs": True}, {"batch_size": 1.5}, {"batch_size": -1}]
)
def test_what_no_run_can_be_is_refused_in_one_line(changes):
    (name,) = changes
    assert name in refusal(runs.experiment, **changes)


def test_data_of_another_number_of_classes_are_refused():
    said = refusal(Experiment(backbone="tiny", dataset="cifar100").check_classes, DIGITS)
    assert "cifar100 of 100 classes" in said and "10 classes" in said
    Experiment(backbone="tiny", dataset="image_folder").check_classes(DIGITS)


def test_a_run_is_as_long_as_steps_or_epochs_say():
    assert Experiment(backbone="tiny", dataset="digits").epochs == 1
    assert runs.experiment(epochs=3).total_steps(5) == 15
    in_steps = runs.experiment(epochs=None, steps=7)
    assert in_steps.total_steps(5) == 7
    said = refusal(runs.experiment, epochs=3, steps=7)
    assert said == "A run has one length. Received: epochs=3, steps=7; epochs=None would work."


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 7, 30])
def test_a_schedule_in_steps_is_the_same_whatever_the_amount_of_data(steps_per_epoch):
    rate = LearningRate(learning_rate=0.1, warmup_steps=3)
    described = runs.experiment(epochs=None, steps=21, learning_rate=rate, cotraining=CoTraining(warmup_steps=5))
    schedule = described.schedule(steps_per_epoch)
    expected = [0.1 * step / 3 for step in range(3)]
    expected += [0.05 * (1 + np.cos(np.pi * (step - 3) / 18)) for step in range(3, 22)]
    np.testing.assert_allclose([float(schedule.at(step)) for step in range(22)], expected, atol=1e-9)
    weights = [float(described.cotraining.weight_at(step, steps_per_epoch=steps_per_epoch)) for step in range(7)]
    np.testing.assert_allclose(weights, [0.005, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("config", [LearningRate, CoTraining])
def test_a_warm_up_has_one_length(config):
    said = refusal(config, warmup_epochs=1, warmup_steps=10)
    assert said == "A warm-up has one length. Received: warmup_epochs=1, warmup_steps=10; warmup_epochs=0 would work."


def test_a_share_of_the_training_images_is_the_seeds_and_a_part_of_what_the_run_is():
    described = runs.experiment(train_images=100, held_out=0.2)
    source, whole = described.open("train"), dataclasses.replace(described, train_images=None).open("train")
    assert len(source) == 100 < len(whole)
    assert np.bincount(source.labels, minlength=10).min() >= 8
    fewer = dataclasses.replace(described, train_images=50).open("train")
    names = [{each.name_of(index) for index in range(len(each))} for each in (fewer, source)]
    assert names[0] < names[1]
    other = dataclasses.replace(described, seed=1).open("train")
    assert {other.name_of(index) for index in range(100)} != names[1]
    assert len(described.open("held_out")) == len(dataclasses.replace(described, train_images=None).open("held_out"))
    assert described.identity(None)["train_images"] == 100
    assert "train_images=5 of" in refusal(dataclasses.replace(described, train_images=5).open, "train")


def test_branches_begin_alike_when_that_is_asked_for():
    stack = runs.experiment(split_factor=3, same_initialisation=True).build(10)
    apart = runs.experiment(split_factor=3).build(10)
    for name, value in stack.stacked_values().items():
        assert np.all(value == value[:1]), name
        np.testing.assert_array_equal(value[0], apart.stacked_values()[name][0])
    assert not np.all(apart.stacked_values()["conv.kernel"][0] == apart.stacked_values()["conv.kernel"][1])
