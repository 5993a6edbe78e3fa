"""Configs of earlier releases: the `.gin` that was trained, and the config.gin of its run, say what they said."""

import pytest

from divco_tf.runs.model_dir import open_model_dir
from divco_tf.tools.shared import configs
from tests.reference import old


@pytest.mark.parametrize("name", ["chosen", "drawn", "half", "mixed", "warm"])
@pytest.mark.parametrize("release", old.RELEASES)
def test_a_config_of_a_release_is_its_runs_experiment(tmp_path, release, name):
    run = old.unpacked(release, name, tmp_path)
    for config in (tmp_path / f"{name}.gin", run / "config.gin"):
        configs.parse_config(str(config))
        assert configs.experiment().identity(None) == open_model_dir(run).experiment.identity(None)
        options = configs.options()
        assert (options.threads, options.keep_checkpoints, options.micro_batches) == (1, 1, 1 + (name == "drawn"))
