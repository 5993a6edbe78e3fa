"""What a configuration makes of itself: which optimizer, with which settings."""

import dataclasses
import math

import keras
import pytest

from divco_tf.errors import InputError
from divco_tf.training.optim.optimizer import OptimizerConfig
from divco_tf.training.optim.rules import SGD, AdamW, RMSprop, RMSpropTF
from tests.tiny import one_line

KINDS = {"sgd": SGD, "rmsprop": RMSprop, "rmsprop_tf": RMSpropTF, "adamw": AdamW}
SETTINGS = {
    "sgd": {"momentum": 0.8, "nesterov": False},
    "rmsprop": {"momentum": 0.8, "alpha": 0.5, "epsilon": 1e-5},
    "rmsprop_tf": {"momentum": 0.8, "alpha": 0.5, "epsilon": 1e-5},
    "adamw": {"betas": (0.8, 0.99), "epsilon": 1e-5},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_setting_reaches_the_optimizer(name):
    common = {"weight_decay": 1e-4, "exclude_from_decay": ("^stem",), "clipnorm": 2.0}
    built = OptimizerConfig(name, **SETTINGS[name], **common).build(0.25)
    assert type(built) is KINDS[name]
    assert {setting: getattr(built, setting) for setting in SETTINGS[name]} == SETTINGS[name]
    assert (built.decay, built.exclude_patterns, built.clipnorm) == (1e-4, ("^stem",), 2.0)
    assert OptimizerConfig(name, global_clipnorm=3.0).build(0.25).global_clipnorm == 3.0


@pytest.mark.parametrize("name", KINDS)
def test_what_is_not_set_is_the_optimizers_own(name):
    built, own = OptimizerConfig(name).build(0.25, split_factor=4), KINDS[name](0.25)
    unnamed = [{key: value for key, value in o.get_config().items() if key != "name"} for o in (built, own)]
    assert unnamed[0] == unnamed[1]


@pytest.mark.parametrize("name", KINDS)
def test_a_setting_of_another_optimizer_is_refused(name):
    for others in SETTINGS.values():
        for setting in set(others) - set(SETTINGS[name]):
            with pytest.raises(InputError) as error:
                OptimizerConfig(name, **{setting: others[setting]})
            assert one_line(error.value, says=f"{name} has no {setting}. Received: {setting}=")


def test_norm_scales_are_decayed_when_asked_for():
    names = ["conv.kernel", "norm.gamma", "norm.beta", "fc.bias"]
    for decay_norm_scales, decayed in [(False, {0}), (True, {0, 1})]:
        built = OptimizerConfig(weight_decay=0.5, decay_norm_scales=decay_norm_scales).build(0.1)
        variables = [keras.Variable([1.0], name=name) for name in names]
        built.build(variables)
        built.apply([keras.ops.zeros([1])] * len(names))
        assert {i for i, variable in enumerate(variables) if variable.numpy()[0] < 1} == decayed


def test_lists_as_gin_has_them_are_equal_to_tuples():
    lists = OptimizerConfig("adamw", betas=[0.8, 0.99], exclude_from_decay=["^stem"])
    assert lists == OptimizerConfig("adamw", betas=(0.8, 0.99), exclude_from_decay=("^stem",))
    assert hash(lists)


def test_weight_decay_is_divided_only_when_asked():
    config = OptimizerConfig(weight_decay=1e-4)
    assert config.build(0.1, split_factor=4).decay == 1e-4
    divided = dataclasses.replace(config, divide_weight_decay=True)
    assert divided.build(0.1, split_factor=4).decay == pytest.approx(1e-4 * math.exp(-3 / 4))
    assert divided.build(0.1).decay == pytest.approx(1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: OptimizerConfig("sdg"), "Received: sdg"),
        (lambda: OptimizerConfig("rmsprop-tf"), "Did you mean rmsprop_tf"),
        (lambda: OptimizerConfig(momentum=1.0), "Received: 1.0"),
        (lambda: OptimizerConfig("rmsprop", alpha=-0.1), "Received: -0.1"),
        (lambda: OptimizerConfig("adamw", betas=0.9), "Received: 0.9"),
        (lambda: OptimizerConfig("adamw", epsilon=0.0), "Received: 0.0"),
        (lambda: OptimizerConfig(weight_decay=-1e-4), "Received: -0.0001"),
        (lambda: OptimizerConfig(weight_decay=None), "Received: None"),
        (lambda: OptimizerConfig(exclude_from_decay="^stem"), "Received: '^stem'"),
        (lambda: OptimizerConfig(exclude_from_decay=("(",)), "Received: '('"),
        (lambda: OptimizerConfig(clipnorm=0), "Received: 0"),
        (lambda: OptimizerConfig(clipnorm=1.0, global_clipnorm=1.0), "one of the two"),
        (lambda: OptimizerConfig(divide_weight_decay=True).build(0.1, split_factor=0), "split factor"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert one_line(error.value, says=message), str(error.value)
