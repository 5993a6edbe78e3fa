"""Pictures of views."""

import numpy as np
import pytest

from divco_tf.data.contact_sheet import contact_sheet
from divco_tf.data.views.policies import POLICIES, get_policy
from divco_tf.errors import InputError
from tests.data.batches import pipeline


def test_a_sheet_has_a_row_an_image_and_shows_it_and_its_views():
    stream = pipeline(policy=POLICIES["none"], mixup_alpha=0.0)
    sheet = contact_sheet(stream, images=2)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    side = 128
    views, _ = stream.unmixed_at(0, [0, 1])
    levels = stream.preprocessing.grey_levels(views)
    height = sheet.shape[0] // 2
    for row, index in enumerate(stream.indices_at(0)[:2]):
        shown = [stream.source.read(index), *levels[row]]
        for column, image in enumerate(shown):
            top, left = 6 + row * height, 6 + column * (side + 6)
            cell = sheet[top : top + side, left : left + side]
            np.testing.assert_array_equal(cell[8::16, 8::16], image)


def test_captions_make_a_row_higher_and_name_what_was_drawn():
    plain = contact_sheet(pipeline(policy=POLICIES["none"]), images=1)
    told = pipeline(policy=get_policy("none+rand-m9-n4"))
    drawn = [told.drawn_at(0, 0, branch) for branch in range(3)]
    assert any(drawn)
    sheet = contact_sheet(told, images=1)
    assert sheet.shape[0] - plain.shape[0] == 13 * max(map(len, drawn))
    assert (sheet[6 + 128 :].min(axis=(0, 2)) < 128).any()  # letters


def test_all_branches_of_identical_views_are_one_column():
    assert contact_sheet(pipeline(identical_views=True), images=1).shape[1] == 2 * (128 + 6) + 6


def test_a_sheet_without_images_is_refused():
    with pytest.raises(InputError, match="images=0"):
        contact_sheet(pipeline(), images=0)
