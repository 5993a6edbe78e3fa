"""Pillow draws the same policies as the kernels."""

import random

import numpy as np
import pytest
from PIL import Image

from divco_tf.data.views.kernels.random_numbers import view_keys
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.operations import BUILT_IN
from divco_tf.data.views.policies import Erasing, ViewPolicy, get_policy
from divco_tf.tools.laboratory.pillow_views import PillowViews, apply
from tests.data.images import photograph

NORMALISATION = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}


@pytest.mark.parametrize("name", ["cifar10_no_autoaugment", "cifar10", "svhn", "crop_flip+rand-m9-mstd0.5-inc1"])
def test_pillow_draws_the_same_policy(name):
    policy, image, count = get_policy(name), photograph(24, 24), 1500
    generator, of_pillow = random.Random(0), PillowViews(policy, **NORMALISATION)
    theirs = np.stack([of_pillow(image, generator) for _ in range(count)])
    keys = view_keys(seed=0, step=0, batch_size=1, split_factor=count)
    ours = ViewMaker(policy, **NORMALISATION)(np.asarray(image)[None], keys)[0]
    assert theirs.dtype == ours.dtype and theirs.shape == ours.shape
    for statistic in (
        lambda views: views.mean((1, 2)),
        lambda views: views.std((1, 2)),
        lambda views: (views == 0).mean((1, 2)),  # erased
        lambda views: views[:, :3].mean((1, 2)),  # the border, where padding and moves show
        lambda views: (views[:, :, :8] - views[:, :, -8:]).mean((1, 2)),  # mirrored
    ):
        a, b = statistic(ours), statistic(theirs)
        error = np.sqrt((a.var(0) + b.var(0)) / count) + 1e-9
        assert (np.abs(a.mean(0) - b.mean(0)) < 4.5 * error).all()


def test_a_view_without_any_draw_is_the_same_to_rounding():
    policy = ViewPolicy(pad=0, flip=False, erasing=Erasing(probability=0.0))
    image = photograph(21, 17)
    ours = ViewMaker(policy, **NORMALISATION)(np.asarray(image)[None], np.zeros((1, 1), np.uint64))[0, 0]
    np.testing.assert_allclose(PillowViews(policy, **NORMALISATION)(image, random.Random(0)), ours, atol=1e-6)


def test_the_operations_names_are_all_known_to_pillow():
    for operation in BUILT_IN:
        assert apply(Image.new("RGB", (5, 4)), operation, 1.0).size == (5, 4)
