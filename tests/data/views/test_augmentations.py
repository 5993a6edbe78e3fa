"""The policies are the papers' tables, and are drawn as often as they say."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from divco_tf.data.views.augmentations import (
    AUGMENTATIONS,
    RAND_AUGMENT,
    RAND_AUGMENT_INCREASING,
    TRIVIAL_AUGMENT,
    Augmentation,
    Range,
    Space,
    Step,
    get_augmentation,
    rand_augment,
    register_augmentation,
)
from divco_tf.data.views.kernels import augment
from divco_tf.data.views.operations import OWN
from divco_tf.errors import InputError
from tests.data.views import frequencies
from tests.data.views.kernels.operated import OPERATION, plain_argument, table_of
from tests.reference import load_json

AUTO = {"auto_augment_cifar10": "CIFAR10Policy", "auto_augment_svhn": "SVHNPolicy"}
AUTO["auto_augment_imagenet"] = "ImageNetPolicy"
CHANGES_NOTHING = {
    "posterize": 8,
    "solarize": 256,
    **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), 1),
}


@pytest.mark.parametrize(("name", "theirs"), AUTO.items())
def test_sub_policies_and_their_arguments_are_the_authors(name, theirs):
    augmentation = get_augmentation(name)
    rows = load_json("augmentation.json")["autoaugment"]["policies"][theirs]
    assert len(augmentation.sub_policies) == len(rows) == 25 and augmentation.draws == 1
    for steps, row in zip(augmentation.sub_policies, rows, strict=True):
        for step, (operation, probability, level, argument) in zip(steps, row, strict=True):
            assert step == Step(OPERATION[operation.lower()], probability, level)
            span = augmentation.space.ranges[step.operation]
            assert plain_argument(span, 9, level) - span.offset == pytest.approx(argument, abs=1e-12)


def test_auto_augments_magnitudes_are_the_authors_at_every_level():
    space = get_augmentation("auto_augment_cifar10").space
    for name, arguments in load_json("augmentation.json")["autoaugment"]["magnitude_value_by_index"].items():
        span = space.ranges[OPERATION[name.lower()]]
        found = [plain_argument(span, space.top, level) - span.offset for level in range(10)]
        np.testing.assert_allclose(found, arguments, atol=1e-9)
    bicubic = {name for name, span in space.ranges.items() if span.resampling == ("bicubic",)}
    assert bicubic == {"shear_x", "shear_y"} and space.fill == (128, 128, 128)
    assert not space.ranges["rotate"].signed


def test_rand_augments_operations_and_arguments_are_the_authors():
    told = load_json("augmentation.json")["randaugment"]
    assert [OPERATION[name.lower()] for name in told["ops"]] == list(RAND_AUGMENT.ranges)
    for name, by_level in told["argument_at_integer_levels_positive_sign"].items():
        for level, argument in by_level.items():
            found = plain_argument(RAND_AUGMENT.ranges[OPERATION[name.lower()]], RAND_AUGMENT.top, int(level))
            assert argument in ([], [pytest.approx(found, abs=1e-9)])
    assert RAND_AUGMENT.fill == (124, 116, 104)
    for name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
        assert RAND_AUGMENT.ranges[name].signed and RAND_AUGMENT.ranges[name].resampling == ("bilinear", "bicubic")


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


def test_increasing_variants_grow_with_the_level_and_the_plain_ones_do_not():
    def grows(space: Space, name: str) -> bool:
        arguments = [plain_argument(space.ranges[name], 10, level) for level in np.linspace(0, 10, 101)]
        strength = np.abs(np.array(arguments) - CHANGES_NOTHING.get(name, 0))
        return bool((np.diff(strength) >= -1e-12).all())

    assert all(grows(RAND_AUGMENT_INCREASING, name) for name in RAND_AUGMENT_INCREASING.ranges)
    assert {name for name in RAND_AUGMENT.ranges if not grows(RAND_AUGMENT, name)} == set(CHANGES_NOTHING)
    assert list(RAND_AUGMENT_INCREASING.ranges) == list(RAND_AUGMENT.ranges)


def test_increasing_variants_are_timms():
    for level in np.linspace(0, 10, 41):
        found = {
            name: plain_argument(RAND_AUGMENT_INCREASING.ranges[name], 10, level, negative=True)
            for name in CHANGES_NOTHING
        }
        assert found.pop("posterize") == 4 - int(level / 10 * 4)
        assert found.pop("solarize") == 256 - int(level / 10 * 256)
        assert list(found.values()) == pytest.approx([max(0.1, 1 - level / 10 * 0.9)] * 4)


def test_trivial_augments_space_is_torchvisions_wide_one():
    levels = np.arange(31)
    tables = {
        **dict.fromkeys(("identity", "auto_contrast", "equalize"), 0 * levels),
        **dict.fromkeys(("shear_x", "shear_y"), np.linspace(0, 0.99, 31)),
        **dict.fromkeys(("translate_x_pixels", "translate_y_pixels"), np.linspace(0, 32, 31).astype(int)),
        "rotate": np.linspace(0, 135, 31),
        **dict.fromkeys(("color", "contrast", "brightness", "sharpness"), 1 + np.linspace(0, 0.99, 31)),
        "posterize": 8 - np.round(levels / (30 / 6)),
        "solarize": np.linspace(255, 0, 31),
    }
    assert set(tables) == set(TRIVIAL_AUGMENT.ranges)
    for name, arguments in tables.items():
        span = TRIVIAL_AUGMENT.ranges[name]
        found = [plain_argument(span, TRIVIAL_AUGMENT.top, level) for level in levels]
        np.testing.assert_allclose(found, arguments, atol=1e-9)
        assert span.resampling == ("nearest",)
        unsigned = ("identity", "auto_contrast", "equalize", "posterize", "solarize")
        assert span.signed == (name not in unsigned)
    augmentation = get_augmentation("trivial_augment")
    assert augmentation.sub_policies == tuple((Step(name),) for name in TRIVIAL_AUGMENT.ranges)
    assert augmentation.draws == 1 and TRIVIAL_AUGMENT.fill == (0, 0, 0)


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


SPACE = Space(10, (0, 0, 0), {"invert": Range()})


def _space(**ranges: Range) -> Space:
    return Space(10, (0, 0, 0), ranges)


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (lambda: Range(rounding="upwards"), "upwards"),
        (lambda: Range(resampling=("cubic",)), "cubic"),
        (lambda: Range(resampling=()), r"\(\)"),
        (lambda: Range(resampling="bilinear"), "'bilinear'"),
        (lambda: Range(0, float("nan")), "nan"),
        (lambda: Range(float("-inf"), 0), "-inf"),
        (lambda: Range(0, "30"), "'30'"),
        (lambda: Range(signed=1), "1; pass True"),
        (lambda: Space(0, (0, 0, 0), {}), "top=0"),
        (lambda: Space(2.5, (0, 0, 0), {}), "2.5"),
        (lambda: Space(10, (0, 0, 0.5), {}), "0.5"),
        (lambda: Space(10, 0, {}), "0"),
        (lambda: Space(10, (0, 0, 0), {"rotate": 30}), "30"),
        (lambda: Space(10, (0, 0, 0), {"shear_xx": Range()}), "'shear_xx'. Did you mean shear_x"),
        (lambda: _space(posterize=Range(12, 12)), "12 to 12; within 0 to 8"),
        (lambda: _space(posterize=Range(0, 4, signed=True)), "-4 to 4; within 0 to 8"),
        (lambda: _space(posterize=Range(8, 7.5, offset=1)), "8.5 to 9; within 0 to 8"),
        (lambda: _space(posterize=Range(-3, -3)), "-3 to -3"),
        (lambda: _space(posterize=Range(8.2, 0, rounding="up")), "0 to 9"),
        (lambda: _space(solarize=Range(257, 0)), "0 to 257; within 0 to 256"),
        (lambda: _space(solarize_add=Range(-20, -20)), "-20 to -20; within 0 to 255"),
        (lambda: _space(brightness=Range(0, 1.2, signed=True, offset=1)), "-0.2 to 2.2; within 0 to 100"),
        (lambda: _space(translate_x=Range(0, 1e30)), r"0 to 1e\+30; within -10 to 10"),
        (lambda: Augmentation(None, ((Step("invert"),),)), "None"),
        (lambda: Augmentation(SPACE, (Step("invert"),)), r"Step\(operation='invert'"),
        (lambda: Augmentation(SPACE, (("invert",),)), "'invert'"),
        (lambda: Augmentation(SPACE, ((Step("invert"),),), draws=1.5), "1.5"),
        (lambda: Augmentation(SPACE, ((Step("invert", float("nan")),),)), "nan"),
        (lambda: Augmentation(SPACE, ((Step("invert", -0.1),),)), "probability=-0.1"),
        (lambda: Augmentation(SPACE, ((Step("invert", True),),)), "True"),
        (lambda: Augmentation(SPACE, ((Step("invert", level="9"),),)), "'9'"),
        (lambda: Augmentation(SPACE, ((Step("invert", level=float("nan")),),)), "nan"),
        (lambda: Augmentation(SPACE, ((Step("invert", level=5, std=float("nan")),),)), "nan"),
        (lambda: rand_augment(-1), "-1; 9"),
        (lambda: rand_augment("9"), "'9'"),
        (lambda: rand_augment(9, std=-1), "std=-1"),
        (lambda: register_augmentation("mine", 3), "3"),
        (lambda: register_augmentation("a+b", get_augmentation("trivial_augment")), "'a.b'"),
        (lambda: register_augmentation("rotate", get_augmentation("trivial_augment")), "'rotate'"),
        (lambda: register_augmentation("rand-m9", get_augmentation("trivial_augment")), "rand-m9"),
        (lambda: register_augmentation("cifar10", get_augmentation("trivial_augment")), "cifar10; another name"),
        (lambda: Space(10, (0, 0, 256), {}), "256"),
        (lambda: Augmentation(SPACE, ()), "0 sub-policies"),
        (lambda: Augmentation(SPACE, ((Step("invert"),),), draws=0), "draws=0"),
        (lambda: Augmentation(SPACE, ((Step("rotate"),),)), "rotate; the space has invert"),
        (lambda: Augmentation(SPACE, ((Step("inverse"),),)), "inverse"),
        (lambda: Augmentation(SPACE, ((Step("invert", 1.5),),)), "probability=1.5"),
        (lambda: Augmentation(SPACE, ((Step("invert", level=11),),)), "level=11"),
        (lambda: Augmentation(SPACE, ((Step("invert", level=-1),),)), "level=-1"),
        (lambda: Augmentation(SPACE, ((Step("invert", std=-0.5),),)), "std=-0.5"),
        (lambda: get_augmentation("auto_augment_cifar"), "auto_augment_cifar. Did you mean auto_augment_cifar10"),
    ],
)
def test_tables_that_make_no_sense_are_refused_in_one_line(make, received):
    with pytest.raises(InputError, match=f"Received: .*{received}") as error:
        make()
    assert "\n" not in str(error.value)


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
