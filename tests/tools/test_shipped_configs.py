"""Every shipped experiment parses and describes a network that can be built."""

import gin
import pytest

from divco_tf.models.summary import summarize
from divco_tf.tools import _configs

EXPERIMENTS = [name for name in _configs.config_names() if "_split" in name]


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_parses_and_its_network_can_be_built(name):
    _configs.parse_config(name)
    experiment = _configs.experiment()
    assert f"{experiment.backbone}_split{experiment.split_factor}" in name
    assert _configs.options().max_bad_steps == 0
    size = experiment.preprocessing.image_size
    summary = summarize(
        experiment.backbone,
        split_factor=experiment.split_factor,
        num_classes=experiment.facts.num_classes or 2,
        input_shape=(size, size, 3),
    )
    assert summary.parameters > 0


def test_the_shipped_experiments_are_those_of_the_readme():
    assert len(EXPERIMENTS) == 2 + 2 + 12 + 2
