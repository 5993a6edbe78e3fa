"""`Classifier`: files and arrays of all kinds, in the answers that evaluation and an export give."""

import dataclasses
import itertools
import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from divco_tf.analysis.outputs import outputs
from divco_tf.data.sources import open_source
from divco_tf.errors import InputError
from divco_tf.runs.model_dir import load
from divco_tf.serving import classifier as module
from divco_tf.serving.classifier import Classifier
from divco_tf.serving.export import export
from divco_tf.training import metrics
from tests.data.images import encoded, photograph
from tests.reference import old
from tests.tiny import one_line


@pytest.fixture(scope="module")
def of_run(digits_run):
    return Classifier.load(digits_run)


@pytest.fixture(scope="module")
def of_export(digits_export):
    return Classifier.load(digits_export.parent)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Eight files of four sizes and three formats; one is above the size from which on images are resized alone."""
    folder = tmp_path_factory.mktemp("photographs")
    sizes = [(20, 31), (31, 20), (20, 31), (8, 8), (600, 500), (20, 31), (8, 8), (90, 8)]
    paths = []
    for number, (size, suffix) in enumerate(zip(sizes, itertools.cycle(["png", "jpg", "webp"]), strict=False)):
        paths.append(folder / f"{number}.{suffix}")
        photograph(*size, seed=number).save(paths[-1])
    return paths


def test_the_answers_are_those_of_evaluation(digits_run, of_run):
    expected = outputs(digits_run, batch_size=50)
    found = of_run.predict(open_source("digits", "test").read_batch(range(387)), batch_size=50)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    np.testing.assert_allclose(found.branch_probabilities, tf.nn.softmax(expected.logits), atol=1e-6)
    np.testing.assert_allclose(found.disagreement, metrics.disagreement(found.branch_probabilities), atol=1e-6)
    assert found.probabilities.dtype == found.disagreement.dtype == np.float32
    np.testing.assert_array_equal(found.classes, expected.probabilities.argmax(axis=1))
    assert found.labels == tuple(map(str, found.classes)) and set(found.errors) == {None} and len(found) == 387


def test_an_export_answers_as_its_run_and_its_own_signature(of_run, of_export, digits_export, photographs):
    ours, exported = (each.predict(photographs) for each in (of_run, of_export))
    data = tf.constant([path.read_bytes() for path in photographs])
    served = tf.saved_model.load(str(digits_export)).signatures["serving_default"](image_bytes=data)
    for name in ("probabilities", "branch_probabilities", "disagreement"):
        np.testing.assert_allclose(getattr(exported, name), served[name], atol=1e-6)
        np.testing.assert_allclose(getattr(ours, name), served[name], atol=1e-6)
    assert of_export.class_names == of_run.class_names and "last step" in of_export.weights_from


def test_an_export_may_keep_its_branches_to_itself(digits_run, tmp_path):
    export(digits_run, export_dir=tmp_path)
    found = Classifier.load(tmp_path).predict(np.zeros((8, 8), np.uint8))
    assert found.branch_probabilities is None and found.disagreement.shape == (1,)


@pytest.mark.parametrize("release", old.RELEASES)
def test_exports_of_earlier_releases_answer(tmp_path, release):
    old.unpacked(release, "chosen", tmp_path)
    found = Classifier.load(tmp_path / "exports" / "chosen").predict(old.IMAGES)
    said = old.told(release, "exports")["chosen"]["images"]
    np.testing.assert_allclose(found.probabilities, said["probabilities"], atol=1e-5)


def test_the_order_and_the_answers_depend_on_no_batch_and_no_thread(of_run, photographs):
    paths = [*photographs, *photographs[::-1]] * 3
    expected = np.concatenate([of_run.predict(path).probabilities for path in paths])
    for batch_size, threads in ((1, 1), (5, 3), (100, 8)):
        found = of_run.predict(iter(paths), batch_size=batch_size, threads=threads)
        np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)


def test_an_image_is_the_same_whatever_holds_it(of_run, photographs):
    path = photographs[3]
    image = Image.open(path)
    pixels = np.asarray(image)
    kinds = [
        path,
        str(path),
        path.read_bytes(),
        image,
        pixels,
        pixels[None],
        pixels.astype(np.float32),
        [np.maximum(pixels - 0.4, 0)],
    ]
    kinds += [tf.constant(pixels), [pixels.astype(int)], np.dstack([pixels, pixels[..., 0]]), np.array([str(path)])]
    expected = of_run.predict([path]).probabilities
    for kind in kinds:
        np.testing.assert_array_equal(of_run.predict(kind).probabilities, expected)
    grey = pixels[..., 0]
    of_grey = of_run.predict(encoded(Image.fromarray(grey), "PNG")).probabilities
    for kind in (grey, grey[..., None], np.dstack([grey] * 3)):
        np.testing.assert_array_equal(of_run.predict(kind).probabilities, of_grey)


def test_what_cannot_be_read_has_a_reason_and_the_others_their_answers(of_run, photographs, tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "cut.png").write_bytes(photographs[0].read_bytes()[:-40])
    bad = [tmp_path / "empty.jpg", tmp_path / "text.jpg", tmp_path / "cut.png", tmp_path, tmp_path / "absent", b"GIF8"]
    mixed = [image for pair in zip(photographs, bad, strict=False) for image in pair]
    found = of_run.predict(mixed, batch_size=4)
    assert list(found.errors[::2]) == [None] * len(bad)
    says = ["empty", "no JPEG", "truncated or corrupt", "no file", "No such file", "no JPEG"]
    assert all(part in error for part, error in zip(says, found.errors[1::2], strict=True)), found.errors
    np.testing.assert_allclose(
        found.probabilities[::2], of_run.predict(photographs[: len(bad)]).probabilities, atol=1e-6
    )
    for numbers in (found.probabilities, found.branch_probabilities, found.disagreement):
        assert np.isnan(numbers[1::2]).all() and np.isfinite(numbers[::2]).all()
    assert list(found.classes[1::2]) == [-1] * len(bad) and set(found.labels[1::2]) == {None}


def test_files_that_are_decoded_together_are_those_that_are_decoded_one_by_one(of_run, tmp_path, monkeypatch):
    kinds = {"JPEG": ({}, {"progressive": True}, {"quality": 30}), "PNG": ({}, {"compress_level": 1}), "GIF": ({},)}
    data = [
        encoded(photograph(*size, seed=number).convert(mode), kind, **options)
        for number, size in enumerate([(8, 8), (40, 30), (33, 47)])
        for kind, all_options in kinds.items()
        for options in all_options
        for mode in ("L", "RGB", *(["RGBA"] if kind == "PNG" else ["CMYK"] if kind == "JPEG" else []))
    ]
    grey = encoded(Image.new("RGB", (32, 32), (128, 128, 128)), "JPEG")  # whole, and looks as if cut
    together = of_run._prepare([*data, grey])
    monkeypatch.setattr(of_run, "_prepare_files", lambda plain: {})
    for one, other in zip(together, of_run._prepare([*data, grey]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_jpeg_whose_missing_end_is_hidden_is_not_taken_for_a_whole_one(of_run):
    whole = encoded(photograph(64, 64), "JPEG")
    found = of_run.predict([whole, whole[: len(whole) // 2] + b"\xff\xd9", whole])
    assert [error is None for error in found.errors] == [True, False, True]
    assert "it ends before its image does" in found.errors[1]


def test_images_are_read_a_few_batches_ahead_and_no_more(of_run):
    taken = []
    images = (taken.append(number) or np.zeros((8, 8), np.uint8) for number in itertools.count())
    answers = of_run.stream(images, batch_size=2)
    assert len(next(answers)) == 2 and len(taken) <= 2 * (module._AHEAD + 2)
    answers.close()


def test_pixels_in_0_to_1_are_warned_of_by_a_classifier_and_by_a_runs_stack(of_run, digits_run):
    pixels = np.random.default_rng(0).random((8, 8, 3))
    with pytest.warns(UserWarning, match="in 0..1.*multiply by 255"):
        of_run.predict(pixels)
    with pytest.warns(UserWarning, match="pixels in 0..1, and a stack takes normalised ones"):
        load(digits_run)(pixels[None].astype(np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of_run.predict([255 * pixels, np.zeros((8, 8, 3)), (pixels > 0.5).astype(np.uint8)])


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ([], "There is no image"),
        (5, "There are no images. Received: 5"),
        ([None], "image 0, NoneType"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 2), np.uint8)], "image 1, ndarray uint8 [8, 8, 2]"),
        (np.zeros((8, 8, 3), bool), "bool"),
        (np.full((8, 8, 3), -0.5), "outside of 0..255. Received: image 0, -0.5 to -0.5"),
        (np.full((8, 8, 3), 60_000, np.uint16), "outside of 0..255"),
        (np.full((8, 8, 3), np.nan), "outside of 0..255"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(of_run, images, says):
    with pytest.raises(InputError) as caught:
        of_run.predict(images)
    assert one_line(caught.value, says=says)


def test_what_is_no_classifier_is_refused_in_one_line(of_run, digits_run, digits_export, tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "foreign" / "1"))
    refused = [
        ((tmp_path,), {}, "Neither a run nor an export"),
        ((tmp_path / "foreign",), {}, "no signature images"),
        ((digits_run,), {"weights": "ema"}, "no moving average"),
        ((digits_export,), {"weights": "best"}, "An export has one set of weights"),
    ]
    for arguments, options, says in refused:
        with pytest.raises(InputError) as caught:
            Classifier.load(*arguments, **options)
        assert one_line(caught.value, says=says)
    with pytest.raises(InputError, match="batch_size"):
        of_run.predict(np.zeros((8, 8), np.uint8), batch_size=0)


def test_answers_that_are_not_finite_are_refused(of_run):
    def answer(batches):
        for batch in batches:
            yield np.full((len(batch), 10), np.nan), np.zeros(len(batch)), None

    names = ("class_names", "preprocessing", "weights_from")
    broken = Classifier(answer, **{name: getattr(of_run, name) for name in names})
    with pytest.raises(InputError) as caught:
        broken.predict(np.zeros((8, 8), np.uint8))
    assert one_line(caught.value, says="not finite")


def test_predictions_cannot_be_changed_by_mistake(of_run):
    found = of_run.predict(np.zeros((8, 8), np.uint8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.class_names = ()
