"""Augmentations by name, and how often they are drawn."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from divco_tf.data.views.augmentations import get_augmentation, rand_augment
from divco_tf.data.views.kernels import augment
from divco_tf.data.views.schema import Step
from divco_tf.data.views.tables import RAND_AUGMENT
from divco_tf.errors import InputError
from tests.data.views import frequencies
from tests.data.views.kernels.operated import table_of
from tests.reference import load_json


def test_a_configuration_string_is_rand_augment_with_its_numbers():
    plain = get_augmentation("rand-m9-mstd0.5")
    assert plain == rand_augment(9, std=0.5)
    assert plain.draws == load_json("augmentation.json")["randaugment"]["num_layers"] == 2
    assert plain.sub_policies == tuple((Step(name, 0.5, 9.0, 0.5),) for name in RAND_AUGMENT.ranges)
    assert get_augmentation("rand-n3-mstd1-m4.5-inc1") == rand_augment(4.5, std=1, draws=3, increasing=True)
    assert get_augmentation("rand-m0") == rand_augment(0) == get_augmentation("rand-m0-inc0")


@pytest.mark.parametrize(
    "name", ["rand", "rand-n2", "rand-m9-x1", "rand-m9-m8", "rand-m", "rand-m9-mstd-1", "randm9", "rand-m9-n2.5"]
)
def test_what_is_no_configuration_string_is_refused_with_its_form(name):
    with pytest.raises(InputError, match=rf"Received: {name}\..*rand-m<magnitude>\[-mstd<std>\]") as error:
        get_augmentation(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "received"), [("rand-m11", "11;"), ("rand-m9-n0", "draws=0")])
def test_numbers_out_of_range_are_refused(name, received):
    with pytest.raises(InputError, match=f"Received: .*{received}.* would work"):
        get_augmentation(name)


@pytest.mark.parametrize("name", frequencies.POLICIES)
def test_draws_are_as_frequent_as_the_table_says(name):
    found = frequencies.p_values(name)
    assert len(found) >= 2 and min(found.values()) > 1e-3, found


@pytest.mark.parametrize("name", ["rand-m6-mstd101-n1", "rand-m6-mstd100.5-n1-inc1"])
def test_timms_infinite_std_draws_levels_uniformly_up_to_the_magnitude(name):
    """timm: above 100 it is infinite, and `random.uniform(0, magnitude)`."""
    augmentation = get_augmentation(name)
    assert {step.std for steps in augmentation.sub_policies for step in steps} == {np.inf}
    assert augmentation == rand_augment(6, std=np.inf, draws=1, increasing=name.endswith("inc1"))
    rotate = dataclasses.replace(augmentation, sub_policies=((Step("rotate", 1.0, 6.0, np.inf),),))
    table, records = table_of(rotate), np.empty((1, augment.RECORD))
    levels = []
    for key in range(2000):
        augment.draw_steps(np.uint64(key), 0, table, 1, records)
        levels.append(abs(records[0, 1]) / 30 * 10)
    assert stats.kstest(levels, stats.uniform(0, 6).cdf).pvalue > 1e-3
    assert get_augmentation("rand-m6-mstd100").sub_policies[0][0].std == 100


def test_draws_are_independent_of_each_other():
    found = frequencies.independence()
    assert len(found) == 5 and min(found.values()) > 1e-3, found


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (lambda: rand_augment(-1), "-1; 9"),
        (lambda: rand_augment("9"), "'9'"),
        (lambda: rand_augment(9, std=-1), "std=-1"),
        (lambda: get_augmentation("auto_augment_cifar"), "auto_augment_cifar. Did you mean auto_augment_cifar10"),
    ],
)
def test_what_is_no_augmentation_is_refused_in_one_line(make, received):
    with pytest.raises(InputError, match=f"Received: .*{received}") as error:
        make()
    assert "\n" not in str(error.value)
