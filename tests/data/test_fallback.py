"""Images that cannot be read, and those that are shown instead."""

import numpy as np
import pytest
import tensorflow as tf

from divco_tf.data.sources import BadImage
from divco_tf.errors import InputError
from tests.data.batches import assert_same, batches, stream


def spoil(folder) -> set[str]:
    """Breaks images of both classes in several ways."""
    files = sorted(folder.rglob("*.jpg"))[::4]
    for number, file in enumerate(files):
        file.write_bytes([b"", file.read_bytes()[:200], b"no image"][number % 3])
    return {str(file) for file in files}


def test_a_bad_image_is_replaced_by_the_next_good_one_of_the_epoch_and_counted(photos):
    whole = stream(photos)
    good = [whole.views_at(step)[0] for step in range(2 * whole.steps_per_epoch)]
    bad = spoil(photos)
    made = stream(photos, on_error="skip")
    assert len(made.source) == len(whole.source)
    paths = [str(made.source.root / path) for path in made.source.paths]
    for step in range(2 * made.steps_per_epoch):
        views, labels = made.views_at(step)
        epoch, place = divmod(step, made.steps_per_epoch)
        order = np.concatenate([made.indices_at(epoch * made.steps_per_epoch + i) for i in range(made.steps_per_epoch)])
        for position in range(4):
            wanted = order[4 * place + position]
            if paths[wanted] not in bad:
                np.testing.assert_array_equal(views[position], good[step][position])
            assert labels[position].sum() == 1
    shown = {path for path in bad if path in paths}
    assert {paths[index] for index in made.replaced} <= shown and made.replaced
    assert all(line.startswith("An image cannot be read (") for line in made.replaced.values())


def test_what_replaces_a_bad_image_depends_on_nothing_but_seed_and_step(photos):
    spoil(photos)
    expected = batches(stream(photos, on_error="skip"), 0, 8, 1)
    assert_same(batches(stream(photos, on_error="skip"), 0, 8, 4), expected)


def test_an_epoch_without_a_good_image_ends(photos):
    for file in photos.rglob("*.*"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="No image of the epoch can be read"):
        stream(photos, on_error="skip").views_at(0)


def test_a_file_that_goes_under_a_run_is_named(photos):
    made = stream(photos)
    for file in photos.rglob("*.*"):
        file.unlink()
    with pytest.raises(BadImage, match=r"No such file or directory\). Received: .*class\d"):
        made.views_at(0)
    with pytest.raises(tf.errors.OpError):
        batches(made, 0, 1, 2)


def test_warming_up_is_silent_about_bad_images_which_the_first_batch_tells(photos):
    for file in photos.rglob("*.*"):
        file.write_bytes(b"")
    made = stream(photos, on_error="skip")
    made.warm_up()
    with pytest.raises(InputError, match="No image of the epoch can be read"):
        made.views_at(0)
