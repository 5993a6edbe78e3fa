"""divco-configs: the shipped experiments in a table."""

import json

from divco_tf.tools.shared import configs


def test_every_experiment_is_listed_with_what_is_published(divco):
    found = json.loads(divco("configs", "--json").stdout)
    assert [record["config"] for record in found] == configs.experiment_names()
    assert sum(record["published"] is not None for record in found) == 79
    for record in found:
        published = record.pop("published") or {}
        assert all(value is not None for value in record.values())
        assert all(published.get(name, value) == value for name, value in record.items())


def test_a_pattern_or_a_part_of_a_name_chooses(divco):
    head, _, *rows = divco("configs", "digits/*split4").stdout.splitlines()
    assert head.split()[:5] == ["config", "dataset", "backbone", "S", "epochs"]
    assert [row.split() for row in rows] == [["digits/wide_resnet10_2_split4", "digits", "wide_resnet10_2", "4", "20"]]
    rows = divco("configs", "wide_resnet28_10_split4").stdout.splitlines()[2:]
    assert [row.split()[-2:] for row in rows] == [["300", "97.99"], ["1800", "98.32"], ["300", "85.74"]]


def test_what_finds_nothing_is_refused(divco):
    assert "No config is found. Received: digts. Did you mean digits" in divco.refusal("configs", "digts")
