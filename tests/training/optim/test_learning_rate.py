"""Learning rates against every point of the reference's before the end of training, and at their edges."""

import dataclasses
import itertools
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from divco_tf.errors import InputError
from divco_tf.runs.assemble import make_model
from divco_tf.training.optim.learning_rate import RULES, EpochSchedule, LearningRate
from tests.reference import load_json
from tests.runs import runs

FACTS = load_json("schedules.json")
FIELDS = {
    "mode": "rule",
    "init_lr": "learning_rate",
    "slow_start_epochs": "warmup_epochs",
    "slow_start_lr": "warmup_learning_rate",
    "end_lr": "final_learning_rate",
    "lr_milestones": "milestones",
    "lr_step": "step_epochs",
    "lr_step_multiplier": "step_factor",
    "decay_factor": "decay_factor",
    "decay_epochs": "decay_epochs",
    "staircase": "staircase",
}
NAMES = [record["name"] for record in FACTS["schedules"]]


def reference_schedule(name):
    """Our schedule of that name, and its points before the end: (step, learning rate)."""
    record = next(record for record in FACTS["schedules"] if record["name"] == name)
    settings_ = {FIELDS[key]: value for key, value in record.items() if key in FIELDS}
    settings_["rule"] = settings_["rule"].lower()
    epochs, steps = record["num_epochs"], record["iters_per_epoch"]
    schedule = LearningRate(**settings_).resolve(epochs=epochs, steps_per_epoch=steps)
    points = [(epoch * steps + i, rate) for epoch, i, rate in record["table_epoch_iter_lr"] if epoch < epochs]
    return schedule, points


def test_the_points_are_all_those_before_the_end_of_training():
    assert sum(len(reference_schedule(name)[1]) for name in NAMES) == 1024
    assert sum(len(record["table_epoch_iter_lr"]) for record in FACTS["schedules"]) == 1088


@pytest.mark.parametrize("name", NAMES)
def test_learning_rates_are_the_references(name):
    schedule, points = reference_schedule(name)
    rates = [float(schedule.at(step)) for step, _ in points]
    np.testing.assert_allclose(rates, [rate for _, rate in points], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_traced_step_tensor_gives_the_float32_of_the_same_value(name):
    schedule, points = reference_schedule(name)
    traced = tf.function(schedule, input_signature=[tf.TensorSpec([], tf.int64)])
    for step, rate in points[:: len(points) // 8]:
        result = traced(step)
        assert result.dtype == tf.float32
        assert result.numpy() == np.float32(schedule.at(step).numpy())
        np.testing.assert_allclose(result, rate, rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_rises_breaks_or_passes_the_floor_after_the_end(rule):
    config = LearningRate(rule, warmup_epochs=2, final_learning_rate=1e-4)
    schedule = config.resolve(epochs=10, steps_per_epoch=7)
    rates = [float(schedule.at(step)) for step in range(15, 3 * 70)]
    assert all(1e-4 <= later <= earlier for earlier, later in itertools.pairwise(rates))


@pytest.mark.parametrize("rule", RULES)
def test_a_schedule_goes_through_keras_config_and_json(rule):
    config = LearningRate(rule, milestones=[3, 6], warmup_epochs=1)
    schedule = config.resolve(epochs=10, steps_per_epoch=7)
    stored = json.loads(json.dumps(keras.optimizers.schedules.serialize(schedule)))
    restored = keras.optimizers.schedules.deserialize(stored)
    assert isinstance(restored, EpochSchedule)
    assert restored.config == config
    assert restored.config.milestones == (3, 6)
    assert [float(restored.at(s)) for s in range(80)] == [float(schedule.at(s)) for s in range(80)]


FORMULAS = {
    "cos": lambda epoch: 0.05 * (1 + math.cos(math.pi * epoch / 100)),
    "htd": lambda epoch: 0.05 * (1 - math.tanh(-6 + 9 * epoch / 100)),
    "step": lambda epoch: 0.1 * 0.1 ** (epoch // 30),
    "poly": lambda epoch: 0.1 * (1 - epoch / 100) ** 0.9,
    "exponential": lambda epoch: 0.1 * 0.97 ** (epoch // 2.4),
    "constant": lambda epoch: 0.1,
}
"""The rate at an epoch of 100, with the defaults of every field."""


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_its_formula(rule):
    schedule = LearningRate(rule).resolve(epochs=100, steps_per_epoch=3)
    rates = [float(schedule.at(3 * epoch)) for epoch in range(0, 100, 7)]
    assert rates == pytest.approx([FORMULAS[rule](epoch) for epoch in range(0, 100, 7)], rel=1e-12)


def test_numbers_of_numpy_and_lists_are_taken():
    taken = LearningRate("step", np.float32(0.5), milestones=[np.int64(3), 6], base_batch_size=np.int32(128))
    assert taken == LearningRate("step", 0.5, milestones=(3, 6), base_batch_size=128)
    assert json.loads(json.dumps(dataclasses.asdict(taken)))["milestones"] == [3, 6]


def test_the_warm_up_is_linear_and_includes_its_last_step():
    schedule = LearningRate(learning_rate=1.0, warmup_epochs=2, warmup_learning_rate=0.2).resolve(
        epochs=4, steps_per_epoch=2
    )
    np.testing.assert_allclose([schedule.at(step) for step in range(5)], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert float(schedule.at(5)) < 1


@settings(deadline=None, max_examples=40)
@given(
    rule=st.sampled_from(sorted(RULES)),
    base=st.integers(1, 2048),
    batch_size=st.integers(1, 2048),
    warmup=st.integers(-1, 4),
    step=st.integers(0, 50),
)
def test_the_whole_schedule_is_in_proportion_to_the_batch(rule, base, batch_size, warmup, step):
    plain = LearningRate(rule, 0.3, warmup, warmup_learning_rate=0.02, final_learning_rate=0.01)
    scaled = dataclasses.replace(plain, base_batch_size=base)
    length = {"epochs": 5, "steps_per_epoch": 9}
    rate = float(scaled.resolve(**length, batch_size=batch_size).at(step))
    assert rate == pytest.approx(batch_size / base * float(plain.resolve(**length).at(step)), rel=1e-12)
    assert float(plain.resolve(**length, batch_size=batch_size).at(step)) == float(plain.resolve(**length).at(step))


def test_a_runs_rate_is_in_proportion_to_its_batch():
    described = runs.experiment(learning_rate=LearningRate(learning_rate=0.05, base_batch_size=128), batch_size=256)
    model = make_model(described, num_classes=10, steps_per_epoch=runs.STEPS_PER_EPOCH)
    assert float(model.optimizer.learning_rate) == np.float32(0.1)


def test_a_scaled_schedule_goes_through_keras_config():
    schedule = LearningRate(base_batch_size=256).resolve(epochs=2, steps_per_epoch=3, batch_size=1024)
    restored = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    assert [float(restored.at(s)) for s in range(6)] == [float(schedule.at(s)) for s in range(6)]
    assert float(restored.at(0)) == 0.4


@settings(deadline=None, max_examples=40)
@given(
    rule=st.sampled_from(sorted(RULES)),
    warmup=st.integers(-1, 4),
    steps_per_epoch=st.integers(1, 9),
    step=st.integers(0, 100),
)
def test_the_rate_stays_between_floor_and_peak(rule, warmup, steps_per_epoch, step):
    config = LearningRate(rule, learning_rate=0.3, warmup_epochs=warmup, final_learning_rate=0.01)
    rate = float(config.resolve(epochs=5, steps_per_epoch=steps_per_epoch).at(step))
    assert 0.01 <= rate <= 0.3 + 1e-15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LearningRate("cosine"), "Received: cosine"),
        (lambda: LearningRate(learning_rate=0), "learning_rate"),
        (lambda: LearningRate(learning_rate="0.1"), "Received: '0.1'"),
        (lambda: LearningRate(learning_rate=float("nan")), "Received: nan"),
        (lambda: LearningRate(warmup_epochs=-2), "warmup_epochs"),
        (lambda: LearningRate(warmup_epochs=1e-309), "Received: 1e-309 epochs; pass 0 or 0.001 and more"),
        (lambda: LearningRate(final_learning_rate=0.2), "at most 0.1"),
        (lambda: LearningRate(warmup_epochs=1, warmup_learning_rate=0.2), "at most 0.1"),
        (
            lambda: LearningRate("step", milestones=[-1]),
            r"milestones is out of range. Received: \[-1\]; pass a list",
        ),
        (lambda: LearningRate("step", milestones=(1.5,)), r"Received: \(1.5,\); pass a list, each a whole number"),
        (lambda: LearningRate("step", milestones=3), "Received: 3; pass a list"),
        (
            lambda: LearningRate(htd_lower=3, htd_upper=-6),
            "Received: -6; pass more than 3",
        ),
        (lambda: LearningRate(htd_upper=float("nan")), "htd_upper is out of range. Received: nan"),
        (lambda: LearningRate(warmup_epochs=5).resolve(epochs=5, steps_per_epoch=2), "warm-up"),
        (lambda: LearningRate().resolve(epochs=0, steps_per_epoch=2), "epochs"),
        (lambda: LearningRate().resolve(epochs=1, steps_per_epoch=0), "Received: 0"),
        (lambda: LearningRate(base_batch_size=0), "Received: 0; pass a whole number, 1 or more"),
        (lambda: LearningRate(base_batch_size=True), "Received: True; pass a whole number"),
        (lambda: LearningRate(base_batch_size=128.0), "Received: 128.0"),
        (lambda: LearningRate(base_batch_size=256).resolve(epochs=1, steps_per_epoch=2), "Received: None"),
        (lambda: EpochSchedule(LearningRate(base_batch_size=256), epochs=1, steps_per_epoch=2), "Received: None"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
