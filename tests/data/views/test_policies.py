"""The tables of view policies."""

import dataclasses

import pytest

from divco_tf.data.views.policies import POLICIES, Erasing, ResizedCrop, ViewPolicy, get_policy
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


def test_values_out_of_range_are_refused():
    for wrong in ({"probability": 1.5}, {"area": (0.3, 0.2)}, {"area": (0.5, 1.5)}, {"aspect": (0.0, 1.0)}):
        with pytest.raises(InputError, match="Received"):
            Erasing(**wrong)
    with pytest.raises(InputError, match="Received: -1"):
        ViewPolicy(pad=-1)
    nan, infinite = float("nan"), float("inf")
    for wrong in (
        *({"probability": value} for value in (-0.1, nan, "0.5", True)),
        *({name: value} for name in ("area", "aspect") for value in (0.5, (0.5,), (0.1, nan), ("a", "b"), (-1, 0.5))),
        {"aspect": (1.0, infinite)},
    ):
        for kind in (Erasing, ResizedCrop) if "probability" not in wrong else (Erasing,):
            with pytest.raises(InputError, match="Received: "):
                kind(**wrong)
    for wrong in (
        *({"pad": value} for value in (1.5, True, "4", None)),
        *({name: 1} for name in ("flip", "erasing", "resized_crop", "augment")),
        {"augment": (3,)},
    ):
        with pytest.raises(InputError, match="Received: "):
            ViewPolicy(**wrong)
    with pytest.raises(InputError, match="Received: 3"):
        get_policy(3)
    with pytest.raises(InputError, match=r"Received: crop_flop\. Did you mean crop_flip"):
        get_policy("crop_flop")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_the_authors_policy_is_the_one_without_autoaugment_and_their_table(name):
    table = "auto_augment_svhn" if name == "svhn" else "auto_augment_cifar10"
    assert POLICIES[name] == dataclasses.replace(POLICIES[f"{name}_no_autoaugment"], augment=(table,))


def test_a_plus_adds_augmentations_to_a_policy():
    policy = get_policy("cifar10+trivial_augment+rand-m9-mstd0.5")
    assert policy.augment == ("auto_augment_cifar10", "trivial_augment", "rand-m9-mstd0.5")
    assert dataclasses.replace(policy, augment=()) == POLICIES["cifar10_no_autoaugment"]
    with pytest.raises(InputError, match=r"Received: trivial_argument\. Did you mean trivial_augment"):
        get_policy("cifar10+trivial_argument")
    with pytest.raises(InputError, match=r"Received: cifar1\+trivial_augment\. Did you mean cifar10"):
        get_policy("cifar1+trivial_augment")


def test_a_policy_of_the_users_has_a_name_of_its_own(monkeypatch):
    monkeypatch.setitem(POLICIES, "mine", ViewPolicy(pad=2))
    assert get_policy("mine+trivial_augment").pad == 2
    for taken in ("trivial_augment", "rotate", "rand-m9"):
        monkeypatch.setitem(POLICIES, taken, ViewPolicy())
        with pytest.raises(InputError, match=f"Received: .?{taken}.* would work"):
            get_policy(taken)


def test_a_view_is_cropped_in_one_way():
    with pytest.raises(InputError, match="pad=4 and resized_crop"):
        ViewPolicy(resized_crop=ResizedCrop())
