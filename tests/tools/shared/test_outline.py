"""What a config binds, as it is read without gin's imports, is what gin makes of it."""

import pytest

from divco_tf.errors import InputError
from divco_tf.tools.shared import configs, outline

HEAD = "from __gin__ import dynamic_registration\nfrom divco_tf.runs import experiment\n"


@pytest.mark.parametrize("name", configs.experiment_names())
def test_the_outline_of_a_shipped_config_is_its_experiment(name):
    found = outline.read(configs.find_config(name))
    configs.parse_config(name)
    experiment = configs.experiment()
    for field in ("dataset", "backbone", "split_factor", "epochs", "batch_size", "views"):
        assert found.value("Experiment", field, getattr(experiment, field)) == getattr(experiment, field)
    assert found.value("OptimizerConfig", "weight_decay") == experiment.optimizer.weight_decay
    assert found.value("LearningRate", "learning_rate") == experiment.learning_rate.learning_rate


def test_no_shipped_config_binds_a_value_where_its_base_has_a_macro():
    for name in configs.experiment_names():
        found = outline.read(configs.find_config(name))
        assert {"loss", "strategy", "seed", "epochs", "batch_size"} < found.macros.keys()
        assert [macro for macro in found.macros if not found.uses(macro)] == []


def test_macros_are_found_inside_of_values():
    found = outline.Outline()
    found.add(outline.parse("a = 1\nb = [1, {'x': (2, %a)}]\nc = @f()\nd = %b\n"))
    assert (found.uses("a"), found.uses("b"), found.uses("c")) == (True, True, False)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("experiment.Experiment.epohcs = 2", "experiment.Experiment has no parameter epohcs. Did you mean epochs"),
        ("experiment.Experimant.epochs = 2", "experiment has no Experimant. Did you mean Experiment"),
        ("experiment.Experiment.epochs = (2", "Close every bracket"),
        ("include 'digits/bsae'", "No such file to include: digits/bsae. Did you mean digits/base"),
    ],
)
def test_a_wrong_line_is_named_with_its_place(tmp_path, monkeypatch, line, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.gin").write_text(f"{HEAD}{line}\n")
    with pytest.raises(InputError) as caught:
        outline.read(tmp_path / "mine.gin")
    assert says in str(caught.value)
    assert "bracket" in says or "(mine.gin:3)" in str(caught.value)


def test_a_class_of_the_same_name_elsewhere_is_nobodys_business(tmp_path):
    (tmp_path / "mine.gin").write_text(
        "from __gin__ import dynamic_registration\nimport mine\nmine.Options.anything = 2\n"
    )
    assert outline.read(tmp_path / "mine.gin").value("Options", "anything") == 2
