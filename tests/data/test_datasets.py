"""The table of datasets."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from divco_tf.data.datasets import DATASETS, get_dataset
from divco_tf.errors import InputError
from tests.reference import load_json


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "imagenet"])
def test_normalisation_is_the_references(name):
    facts = load_json("augmentation.json")["normalisation"][name]
    assert list(get_dataset(name).mean) == facts["mean"]
    assert list(get_dataset(name).std) == facts["std"]


def test_digits_normalisation_is_that_of_its_pixels():
    pixels = np.rint(load_digits().images * 255 / 16) / 255
    assert get_dataset("digits").mean == pytest.approx([pixels.mean()] * 3, abs=5e-5)
    assert get_dataset("digits").std == pytest.approx([pixels.std()] * 3, abs=5e-5)


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=lambda dataset: dataset.name)
def test_class_names_are_as_many_as_classes_and_differ(dataset):
    if dataset.class_names is not None:
        assert len(set(dataset.class_names)) == len(dataset.class_names) == dataset.num_classes


def test_a_misspelt_name_is_answered_with_a_suggestion():
    with pytest.raises(InputError, match=r"Received: cifar_10\. Did you mean cifar10"):
        get_dataset("cifar_10")


def test_the_tables_load_without_tensorflow_and_numba():
    code = (
        "import sys, divco_tf.data.datasets, divco_tf.data.views.policies;"
        "print([m for m in ('tensorflow', 'numba', 'keras') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
