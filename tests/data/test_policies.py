"""The tables of view policies."""

import dataclasses
import json

import pytest

from divco_tf.data.policies import MISSING, POLICIES, Erasing, ViewPolicy, get_policy
from divco_tf.errors import InputError
from tests.reference import load_json


@pytest.mark.parametrize(
    ("name", "area", "aspect"),
    [
        ("cifar10", "0.125-0.2", "0.99-1.0"),
        ("cifar100", "0.0625-0.1", "0.99-1.0"),
        ("svhn", "0.125-0.25", "0.9-1.1"),
    ],
)
def test_erasing_ranges_are_the_references(name, area, aspect):
    [told] = [row for row in load_json("augmentation.json")["train_transforms_in_order"][name] if "erasing" in row]
    erasing = POLICIES[f"{name}_no_autoaugment"].erasing
    assert area in told and aspect in told
    assert erasing.area == tuple(map(float, area.split("-")))
    assert erasing.aspect == tuple(map(float, aspect.split("-")))
    assert erasing.probability == 0.5


def test_policies_survive_json():
    for policy in POLICIES.values():
        record = json.loads(json.dumps(dataclasses.asdict(policy)))
        erasing = record.pop("erasing")
        if erasing is not None:
            erasing = Erasing(**{name: tuple(v) if isinstance(v, list) else v for name, v in erasing.items()})
        assert ViewPolicy(**record, erasing=erasing) == policy


def test_values_out_of_range_are_refused():
    for wrong in ({"probability": 1.5}, {"area": (0.3, 0.2)}, {"area": (0.5, 1.5)}, {"aspect": (0.0, 1.0)}):
        with pytest.raises(InputError, match="Received"):
            Erasing(**wrong)
    with pytest.raises(InputError, match="Received: -1"):
        ViewPolicy(pad=-1)
    with pytest.raises(InputError, match=r"Received: crop_flop\. Did you mean crop_flip"):
        get_policy("crop_flop")


@pytest.mark.parametrize("name", MISSING)
def test_a_policy_that_is_not_there_yet_names_one_that_is(name):
    with pytest.raises(InputError) as caught:
        get_policy(name)
    message = str(caught.value)
    assert (
        name not in POLICIES
        and f"Received: {name};" in message
        and "which is not there yet. " in message
        and "\n" not in message
    )
    closest = MISSING[name][1]
    assert f'views="{closest}" works now' in message and get_policy(closest) == POLICIES[closest]
