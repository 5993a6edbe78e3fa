"""Steps of tables: what the authors' operations make of an image, and how a step's argument is drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from divco_tf.data.views.kernels import augment, basic, view
from divco_tf.data.views.kernels.random_numbers import view_keys
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.policies import Erasing, ViewPolicy
from divco_tf.data.views.schema import Augmentation, Range, Space, Step
from divco_tf.data.views.tables import AUTO_AUGMENT, RAND_AUGMENT
from tests.data.views.kernels.operated import OPERATION, by_kernel, plain_argument, table_of
from tests.reference import load_json, load_npz

RESAMPLED = {"shear_x", "shear_y", "translate_x", "translate_y", "rotate"}
ARRAYS = [key for key in load_npz("augment_ops.npz") if key != "input"]


def difference(key: str) -> np.ndarray:
    """Grey levels between a kernel's view and one of the reference's arrays, int [32, 32, 3]."""
    kind, name, level, sign, *resampling = key.split("/")
    space = {"aa": AUTO_AUGMENT, "ra": RAND_AUGMENT}[kind]
    operation = OPERATION[name.lower()]
    span = space.ranges[operation]
    view = by_kernel(
        load_npz("augment_ops.npz")["input"],
        operation,
        plain_argument(span, space.top, int(level[1:]), negative=sign == "neg"),
        resampling=resampling[0] if resampling else span.resampling[0],
        fill=space.fill,
    )
    return np.abs(view.astype(int) - load_npz("augment_ops.npz")[key])


@pytest.mark.parametrize("key", ARRAYS)
def test_the_authors_operations_are_met(key):
    off, operation = difference(key), OPERATION[key.split("/")[1].lower()]
    assert off.max() <= 1
    # One unit in the last place of an argument decides where a value is a whole number, which Pillow cuts off.
    assert operation not in RESAMPLED or (off == 0).mean() >= 0.95


def test_every_operation_and_sign_of_the_reference_is_among_the_arrays():
    found = {tuple(key.split("/")[:2]) for key in ARRAYS}
    told = load_json("augmentation.json")
    expected = {("aa", name) for name in told["autoaugment"]["magnitude_value_by_index"]}
    expected |= {("ra", name) for name in told["randaugment"]["ops"]}
    assert {(kind, name.lower()) for kind, name in found} == {(kind, name.lower()) for kind, name in expected}


ranges = st.builds(
    Range,
    low=st.floats(-10, 10),
    high=st.floats(-10, 10),
    signed=st.booleans(),
    offset=st.sampled_from([0.0, 1.0]),
    rounding=st.sampled_from(["none", "down", "up", "nearest"]),
    resampling=st.sampled_from([("nearest",), ("bilinear", "bicubic"), ("nearest", "bilinear", "bicubic")]),
)


@settings(deadline=None, max_examples=100)
@given(span=ranges, top=st.integers(1, 30), share=st.floats(0, 1), key=st.integers(0, 2**64 - 1))
def test_a_drawn_step_is_the_range_at_its_level(span, top, share, key):
    step = Step("rotate", level=share * top)
    table = table_of(Augmentation(Space(top, (1, 2, 3), {"rotate": span}), ((step,),)))
    records = np.empty((1, augment.RECORD))
    assert augment.draw_steps(np.uint64(key), 0, table, 1, records) == 1
    _, argument, resampling, *fill = records[0]
    either = [plain_argument(span, top, share * top, negative=negative) for negative in (False, True)]
    assert min(abs(argument - value) for value in either) < 1e-9
    assert ("nearest", "bilinear", "bicubic")[int(resampling)] in span.resampling
    assert fill == [1, 2, 3]


def test_sub_policies_may_differ_in_length_and_steps_come_in_order():
    rows = ((Step("invert"), Step("equalize"), Step("color", 0.0), Step("posterize")), (Step("solarize"),), ())
    space = Space(1, (0, 0, 0), {name: Range() for name in ("invert", "equalize", "color", "posterize", "solarize")})
    table = table_of(Augmentation(space, rows))
    records = np.empty((4, augment.RECORD))
    found = set()
    for key in range(60):
        count = augment.draw_steps(np.uint64(key), 0, table, 1, records)
        found.add(tuple(records[:count, 0]))
    codes = {name: float(augment.BUILT_IN.index(name)) for name in space.ranges}
    assert found == {(codes["invert"], codes["equalize"], codes["posterize"]), (codes["solarize"],), ()}


def test_every_kernel_is_compiled_for_one_set_of_types():
    """Whoever calls it: processes that fill the cache at once then write the same code."""
    image = np.asarray(Image.linear_gradient("L").convert("RGB").resize((9, 7)))
    for operation in augment.BUILT_IN:
        by_kernel(image, operation, 1.0)
        if operation in RESAMPLED:
            by_kernel(image, operation, 1.0, resampling="bicubic")
    keys = view_keys(seed=0, step=0, batch_size=1, split_factor=2)
    for augmentations in ((), ("trivial_augment",), ("trivial_augment", "rand-m9")):
        policy = ViewPolicy(pad=1, augment=augmentations, erasing=Erasing())
        ViewMaker(policy, mean=(0.5,) * 3, std=(0.2,) * 3)(image[None], keys)
    called = (augment.apply_step, augment.draw_steps, view.fill_views, view.fill_plain_views)
    called += (basic.crop_flip, basic.normalise, basic.erase)
    assert {kernel.__name__: len(kernel.signatures) for kernel in called} == {kernel.__name__: 1 for kernel in called}
