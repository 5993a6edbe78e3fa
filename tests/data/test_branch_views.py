"""The views of an image: of each branch, and from stored images."""

import numpy as np

from divco_tf.data.branch_views import union
from divco_tf.data.views.maker import ViewMaker
from divco_tf.data.views.policies import POLICIES, ResizedCrop, ViewPolicy, get_policy
from tests.data.batches import MEAN, STD, pipeline, stream

POLICY = get_policy("svhn")


def test_each_branch_can_have_a_policy_of_its_own():
    policies = (POLICIES["none"], POLICY, ViewPolicy(pad=1))
    views, _ = pipeline(policy=policies, mixup_alpha=0.0).views_at(2)
    for branch, policy in enumerate(policies):
        alone, _ = pipeline(policy=policy, mixup_alpha=0.0).views_at(2)
        np.testing.assert_array_equal(views[:, branch], alone[:, branch])


def test_resized_crops_are_cut_out_of_the_stored_image(photos):
    made = stream(photos)
    views, _ = made.views_at(1)
    maker = ViewMaker(ViewPolicy(pad=0, resized_crop=ResizedCrop()), mean=MEAN, std=STD)
    for position, index in enumerate(made.indices_at(1)):
        stored = made.source.read_stored(int(index))
        for branch in range(3):
            key, view = made.keys_at(1)[position, branch], np.empty((12, 12, 3), np.float32)
            maker.from_region(stored, maker.box(key, *stored.shape[:2]), key, view)
            np.testing.assert_array_equal(views[position, branch], view)


def test_in_memory_images_are_cropped_and_resized_too():
    policy = ViewPolicy(pad=0, resized_crop=ResizedCrop(area=(0.2, 0.5)))
    made, maker = pipeline(policy=policy, mixup_alpha=0.0), ViewMaker(policy, mean=MEAN, std=STD)
    views, _ = made.views_at(0)
    for position, index in enumerate(made.indices_at(0)):
        image, key, view = made.source.images[index], made.keys_at(0)[position, 2], np.empty((8, 8, 3), np.float32)
        maker.from_region(image, maker.box(key, 8, 8), key, view)
        np.testing.assert_array_equal(views[position, 2], view)


def test_the_smallest_box_around_boxes():
    assert union([(2, 3, 4, 5)]) == (2, 3, 4, 5)
    assert union([(2, 3, 4, 5), (0, 7, 3, 3)]) == (0, 3, 6, 7)
