"""The published augmentations are the papers'."""

import numpy as np
import pytest

from divco_tf.data.views.augmentations import get_augmentation
from divco_tf.data.views.schema import Space, Step
from divco_tf.data.views.tables import RAND_AUGMENT, RAND_AUGMENT_INCREASING, TRIVIAL_AUGMENT
from tests.data.views.kernels.operated import OPERATION, plain_argument
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
