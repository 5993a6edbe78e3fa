"""What the user registers has a name of its own."""

import dataclasses

import numpy as np
import pytest

from divco_tf.data.views.augmentations import AUGMENTATIONS, get_augmentation
from divco_tf.data.views.operations import OWN
from divco_tf.data.views.registration import register_augmentation, register_operation
from divco_tf.errors import InputError
from tests.data.views.test_operations import views_of


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("auto_augment_cifar10", "An augmentation has that name"),
        ("trivial_augment", "An augmentation has that name"),
        ("cifar10", "A view policy has that name"),
        (3, "No name for an operation"),
    ],
)
def test_what_has_a_name_already_keeps_it(name, told):
    before = views_of("auto_augment_cifar10")
    with pytest.raises(InputError, match=f"{told}. Received: {name}; .* would work"):
        register_operation(name)(lambda image, key: np.zeros_like(image))
    np.testing.assert_array_equal(views_of("auto_augment_cifar10"), before)


def test_what_is_no_function_is_refused():
    with pytest.raises(InputError, match="Received: 3 as three"):
        register_operation("three")(3)


@pytest.mark.parametrize("name", ["rotate", "my-own", "a+b", "a, b", ""])
def test_names_that_would_be_something_else_are_refused(name):
    with pytest.raises(InputError, match=f"Received: '{name}'".replace("+", r"\+")):
        register_operation(name)


def test_a_name_is_given_once_and_a_misspelt_one_is_helped():
    register_operation("blurred")(lambda image, key: image)
    with pytest.raises(InputError, match="blurred is registered already"):
        register_operation("blurred")(lambda image, key: image)
    with pytest.raises(InputError, match="Received: blured"):
        views_of("blured")


def test_a_registered_augmentation_is_found_and_its_name_taken(monkeypatch):
    monkeypatch.setattr(AUGMENTATIONS, "_entries", dict(AUGMENTATIONS._entries))
    mine = dataclasses.replace(get_augmentation("auto_augment_cifar10"), draws=2)
    assert register_augmentation("twice", mine) is mine is get_augmentation("twice")
    with pytest.raises(InputError, match="twice is registered already"):
        register_augmentation("twice", mine)


def test_an_augmentation_takes_no_operations_name(monkeypatch):
    monkeypatch.setattr(OWN, "_entries", {**OWN._entries, "speckle": lambda image, key: image})
    with pytest.raises(InputError, match="An operation has that name. Received: speckle"):
        register_augmentation("speckle", get_augmentation("trivial_augment"))


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (lambda: register_augmentation("mine", 3), "3"),
        (lambda: register_augmentation("a+b", get_augmentation("trivial_augment")), "'a.b'"),
        (lambda: register_augmentation("rotate", get_augmentation("trivial_augment")), "'rotate'"),
        (lambda: register_augmentation("rand-m9", get_augmentation("trivial_augment")), "rand-m9"),
        (lambda: register_augmentation("cifar10", get_augmentation("trivial_augment")), "cifar10; another name"),
    ],
)
def test_what_is_no_augmentation_and_no_name_for_one_is_refused_in_one_line(make, received):
    with pytest.raises(InputError, match=f"Received: .*{received}") as error:
        make()
    assert "\n" not in str(error.value)
