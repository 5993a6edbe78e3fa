import pytest

from divco_tf.errors import InputError
from divco_tf.runs.model_dir import claim_model_dir, open_model_dir
from tests.runs import runs
from tests.runs.refusals import DIGITS, refusal
from tests.tiny import one_line


@pytest.mark.parametrize("content", ["", "[{", "{}", "[3]", '[{"step": "1"}]', '[{"step": 1, "accuracy": 1.0}]'])
def test_damaged_metrics_are_one_line(tmp_path, content):
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(InputError) as caught:
        _ = open_model_dir(tmp_path).records
    assert one_line(caught.value, says=f"Received: {tmp_path / 'metrics.json'}")
    assert "metrics.json is not the evaluations of a run" in refusal(runs.run, tmp_path)
