"""The user's operations, and views made an operation at a time, as they are with several tables or own operations."""

import concurrent.futures

import numba
import numpy as np
import pytest
from PIL import Image, ImageFilter

from divco_tf.data.views.augmentations import get_augmentation as table
from divco_tf.data.views.kernels import augment
from divco_tf.data.views.kernels.random_numbers import view_keys
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.policies import Erasing, ViewPolicy, get_policy
from divco_tf.data.views.registration import register_augmentation, register_operation
from divco_tf.data.views.schema import Augmentation, Range, Space, Step
from divco_tf.errors import InputError
from tests.data.views.kernels.operated import by_kernel

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), np.uint8)
KEYS = view_keys(seed=1, step=5, batch_size=12, split_factor=4)
BARE = ViewPolicy(pad=0, flip=False)


def views_of(*augment: str, policy: ViewPolicy = BARE, images: np.ndarray = IMAGES, keys: np.ndarray = KEYS):
    """Views as uint8 [B, S, H, W, 3]."""
    maker = ViewMaker(_with(policy, augment), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    return np.rint(maker(images, keys)).astype(np.uint8)


def _with(policy: ViewPolicy, augment: tuple[str, ...]) -> ViewPolicy:
    return ViewPolicy(pad=policy.pad, flip=policy.flip, augment=augment, erasing=policy.erasing)


@pytest.mark.parametrize(
    "name", ["auto_augment_cifar10", "auto_augment_svhn", "rand-m9-mstd0.5", "rand-m5-n3-inc1", "trivial_augment"]
)
def test_an_operation_at_a_time_gives_what_the_compiled_pass_gives(name):
    @register_operation("nothing")
    def nothing(image, key):
        return image

    policy = ViewPolicy(pad=2, augment=(name,), erasing=Erasing())
    normalisation = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    compiled = ViewMaker(policy, **normalisation)(IMAGES, KEYS)
    singly = ViewMaker(_with(policy, (name, "nothing")), **normalisation)(IMAGES, KEYS)
    np.testing.assert_array_equal(singly, compiled)


def applied(drawn: list[tuple[str, float]], image: np.ndarray, space: Space) -> np.ndarray:
    for operation, argument in drawn:
        [resampling, *_] = space.ranges[operation].resampling
        image = by_kernel(image, operation, argument, resampling=resampling, fill=space.fill)
    return image


@pytest.mark.parametrize("name", ["auto_augment_cifar10", "auto_augment_svhn", "trivial_augment"])
def test_what_is_told_to_be_drawn_is_what_is_applied(name):
    maker = ViewMaker(_with(BARE, (name,)), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    views = views_of(name)
    drawn = {place: maker.drawn(key) for place, key in np.ndenumerate(KEYS)}
    assert len({operation for steps in drawn.values() for operation, _ in steps}) >= 8
    for (position, branch), steps in drawn.items():
        np.testing.assert_array_equal(views[position, branch], applied(steps, IMAGES[position], table(name).space))


def test_several_tables_are_applied_in_their_order_and_drawn_apart():
    space = Space(10, (0, 0, 0), {"color": Range(0, 2), "posterize": Range(1, 7, rounding="down"), "invert": Range()})
    register_augmentation("one", Augmentation(space, ((Step("color"),), (Step("posterize"),), (Step("invert", 0.5),))))
    maker = ViewMaker(_with(BARE, ("one", "one")), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    views, drawn = views_of("one", "one"), [maker.drawn(key) for key in KEYS.ravel()]
    for view, steps, image in zip(views.reshape(-1, 16, 16, 3), drawn, np.repeat(IMAGES, 4, axis=0), strict=True):
        np.testing.assert_array_equal(view, applied(steps, image, space))
    assert {len(steps) for steps in drawn} == {0, 1, 2}
    assert any(steps[0] != steps[1] for steps in drawn if len(steps) == 2)


def test_a_plain_python_operation_is_called_for_every_view_with_a_key_of_its_own():
    seen = []

    @register_operation("noted")
    def noted(image, key):
        seen.append(key)
        assert type(key) is int and image.dtype == np.uint8 and image.shape == (16, 16, 3)
        image[:] = key % 256  # its own to write into
        return image

    before = IMAGES.copy()
    views = views_of("noted", "noted")
    assert len(set(seen)) == len(seen) == 2 * KEYS.size  # another key at each place of the policy
    assert min(seen) >= 0 and max(seen) < 2**63
    np.testing.assert_array_equal(views[..., 0, 0, 0].ravel(), [key % 256 for key in seen[1::2]])
    np.testing.assert_array_equal(IMAGES, before)
    again, seen[:] = list(seen), []
    np.testing.assert_array_equal(views_of("noted", "noted"), views)
    assert seen == again
    assert not set(seen) & {int(key) for key in KEYS.ravel()}


def test_a_numba_function_is_an_operation_and_compiled_for_one_set_of_types():
    @register_operation("shifted")
    @numba.njit(nogil=True)
    def shifted(image, key):
        moved = image.copy()
        rows = key % image.shape[0]
        moved[rows:] = image[: image.shape[0] - rows]
        return moved[:, ::-1]  # need not be contiguous

    views = views_of("shifted", "auto_augment_svhn")
    assert len(shifted.signatures) == 1
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for other in pool.map(lambda _: views_of("shifted", "auto_augment_svhn"), range(4)):
            np.testing.assert_array_equal(other, views)


def test_an_operation_may_use_pillow_whose_arrays_are_read_only():
    @register_operation("smooth")
    def smooth(image, key):
        return np.asarray(Image.fromarray(image).filter(ImageFilter.SMOOTH))

    views = views_of("smooth", "auto_augment_cifar10")
    assert views.shape == (12, 4, 16, 16, 3)
    kernels = [value for value in vars(augment).values() if hasattr(value, "signatures")]
    assert all(len(kernel.signatures) <= 1 for kernel in kernels)


def test_own_operations_are_steps_of_tables_beside_built_in_ones():
    @register_operation("zero")
    def zero(image, key):
        return np.zeros_like(image)

    space = Space(10, (0, 0, 0), {"invert": Range(), "brightness": Range(1, 3)})
    rows = ((Step("zero"), Step("invert")), (Step("invert", 0.0), Step("zero", 0.5)), (Step("brightness", level=10),))
    register_augmentation("mine", Augmentation(space, rows))
    maker = ViewMaker(_with(BARE, ("mine",)), mean=(0.0,) * 3, std=(1 / 255,) * 3)
    for (position, branch), view in zip(np.ndindex(KEYS.shape), views_of("mine").reshape(-1, 16, 16, 3), strict=True):
        image = IMAGES[position]
        match maker.drawn(KEYS[position, branch]):
            case [("zero", _), ("invert", _)]:
                assert (view == 255).all()
            case [("zero", _)]:
                assert not view.any()
            case [("brightness", 3.0)]:
                np.testing.assert_array_equal(view, np.minimum(3 * image.astype(int), 255))
            case drawn:
                assert drawn == [] and (view == image).all()


def test_a_policy_names_own_operations():
    @register_operation("negative")
    def negative(image, key):
        return 255 - image

    assert get_policy("none+negative").augment == ("negative",)
    np.testing.assert_array_equal(views_of("negative"), 255 - np.repeat(IMAGES[:, None], 4, axis=1))


def fails(image, key):
    raise ValueError("not\ntoday")


@numba.njit
def mistyped(image, key):
    return image + "a"


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (fails, r"failed \(ValueError: not today\)\. Received: an image of \[16, 16, 3\]"),
        (mistyped, "failed .TypingError"),
        (lambda image, key: image[:-1], r"Received: uint8 \[15, 16, 3\] for \[16, 16, 3\]"),
        (lambda image, key: image / 255, r"Received: float64 \[16, 16, 3\]"),
        (lambda image, key: None, "Received: NoneType"),
        (lambda image: image, "failed .TypeError"),
    ],
)
def test_an_operation_that_does_not_do_as_told_is_refused_in_one_line(operation, told):
    register_operation("broken")(operation)
    with pytest.raises(InputError, match=f"The operation broken .*{told}") as error:
        views_of("broken")
    assert "\n" not in str(error.value)


def test_what_an_operation_keeps_is_not_written_into_by_the_next():
    kept = np.full((16, 16, 3), 9, np.uint8)
    register_operation("kept")(lambda image, key: kept)

    @register_operation("written")
    def written(image, key):
        image[:] = 200
        return image

    assert (views_of("kept", "written") == 200).all() and (kept == 9).all()
