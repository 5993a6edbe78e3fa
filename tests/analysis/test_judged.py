import dataclasses

import numpy as np
import pytest

from divco_tf.analysis.judged import judged, load_judged, save_judged
from divco_tf.analysis.outputs import Outputs, load_outputs, save_outputs
from divco_tf.errors import InputError
from divco_tf.training import losses, metrics


@pytest.fixture
def outputs():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=2, size=(50, 3, 12)).astype(np.float32)
    return Outputs(logits, losses.ensemble_probabilities(logits).numpy(), rng.integers(0, 12, 50))


def test_images_are_judged_as_the_metrics_of_all_say(outputs):
    found = judged(outputs)
    assert found.correct.mean() == metrics.accuracy(outputs.probabilities, outputs.labels)
    expected = metrics.negative_log_likelihood(outputs.probabilities, outputs.labels)
    assert -found.log_likelihood.mean() == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(found.branch_classes, outputs.logits.argmax(axis=2))
    assert found.branch_correct.shape == (50, 3) and np.all(found.disagreement >= 0)
    np.testing.assert_allclose(found.confidence, outputs.probabilities.max(axis=1))


def test_what_is_saved_comes_back_to_a_float16(outputs, tmp_path):
    path, found = tmp_path / "a.npz", judged(outputs)
    save_judged(path, {"test": found, "held_out": found})
    loaded = load_judged(path)
    assert list(loaded) == ["test", "held_out"]
    for field in dataclasses.fields(found):
        before, after = getattr(found, field.name), getattr(loaded["test"], field.name)
        assert after.dtype == before.dtype
        np.testing.assert_allclose(after, before, rtol=5e-4, atol=1e-6)
    assert path.stat().st_size < 50 * 2 * 14 + 4000


def test_outputs_come_back_to_the_bit(outputs, tmp_path):
    save_outputs(tmp_path / "a.npz", {"test": outputs})
    loaded = load_outputs(tmp_path / "a.npz")["test"]
    for field in dataclasses.fields(outputs):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(outputs, field.name))


@pytest.mark.parametrize("load", [load_judged, load_outputs])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"{}"])
def test_another_file_is_refused_in_one_line(tmp_path, load, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="These are no predictions"):
        load(tmp_path / "a.npz")
