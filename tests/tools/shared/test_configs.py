import sys

import gin
import pytest

from divco_tf.errors import InputError
from divco_tf.tools.shared import configs

HEAD = "from __gin__ import dynamic_registration\nfrom tests.tools import toy_library as toy\n"


def bound(name: str):
    return gin.query_parameter(name)


def refusal(config: str, bindings=()) -> str:
    """The one line with which a config is refused."""
    with pytest.raises(InputError) as caught:
        configs.parse_config(config, bindings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["digits/row", "digits/row.gin"])
def test_a_config_is_found_by_its_name_from_any_folder(toy_configs, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert configs.find_config(name) == toy_configs / "digits" / "row.gin"


def test_a_config_is_found_by_its_path(toy_configs, tmp_path):
    mine = tmp_path / "mine.gin"
    mine.write_text(HEAD + "toy.train.epochs = 7")
    configs.parse_config(str(mine))
    assert bound("toy.train.epochs") == 7


def test_the_shipped_configs_exist_and_hold_no_python():
    assert not list(configs.configs_dir().rglob("*.py"))


def test_config_names_are_what_config_takes(toy_configs):
    assert configs.config_names() == ["base", "digits/row"]


def test_a_pattern_finds_names_or_is_refused(toy_configs):
    assert configs.matching_configs("digits/*") == configs.matching_configs("*") == ["digits/row"]  # base is a part
    with pytest.raises(InputError, match=r"No config is found\. Received: cifar\*; divco-configs lists the shipped"):
        configs.matching_configs("cifar*")


def test_a_misspelt_config_names_the_close_ones(toy_configs):
    assert "Received: digits/rwo. Did you mean digits/row?" in refusal("digits/rwo")


def test_a_misspelt_file_names_the_close_ones_beside_it(toy_configs, tmp_path):
    (tmp_path / "cfg").mkdir()
    (tmp_path / "cfg" / "mine.gin").write_text("")
    assert f"Did you mean {tmp_path}/cfg/mine?" in refusal(f"{tmp_path}/cfg/mien.gin")


def test_bindings_win_over_the_config_and_see_its_imports(toy_configs):
    configs.parse_config("digits/row", ["toy.Rate.peak = 0.2", 'toy.train.name = "x"', "epochs=5"])
    assert bound("toy.Rate.peak") == 0.2
    rate, epochs, _, name = gin.get_configurable("toy.train")()
    assert (rate.peak, epochs, name) == (0.2, 5, "x")


def test_parsing_again_forgets_the_earlier_config(toy_configs, tmp_path):
    configs.parse_config("digits/row", ["toy.train.epochs=9"])
    other = tmp_path / "other.gin"
    other.write_text(HEAD + "toy.train.size = 4")
    configs.parse_config(str(other))
    with pytest.raises(ValueError, match=r"no value bound"):
        bound("toy.train.epochs")


def test_a_bug_in_an_imported_module_keeps_its_traceback(toy_configs, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_library.py").write_text("undefined_name\n")
    (toy_configs / "mine.gin").write_text("from __gin__ import dynamic_registration\nimport broken_library\n")
    with pytest.raises(NameError, match="undefined_name"):
        configs.parse_config("mine")


@pytest.fixture
def run_with_a_module(tmp_path, monkeypatch):
    """A run whose config imports users_filters, a module that lies in cfg/ and in the run."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    run, folder = tmp_path / "run", tmp_path / "cfg"
    for place in (run, folder):
        place.mkdir()
        (place / "users_filters.py").write_text(f"PLACE = {place.name!r}\n")
    imports = "from divco_tf.training import no_longer_there\nimport users_filters\n"
    (run / "config.gin").write_text(f"from __gin__ import dynamic_registration\n{imports}")
    yield run
    sys.modules.pop("users_filters", None)


def test_what_a_runs_config_imports_is_imported_from_the_working_directory(run_with_a_module, monkeypatch):
    monkeypatch.chdir(run_with_a_module.parent / "cfg")
    with configs.modules_of(str(run_with_a_module)):
        assert sys.modules["users_filters"].PLACE == "cfg"


def test_but_never_from_the_runs_own_folder(run_with_a_module, monkeypatch):
    monkeypatch.chdir(run_with_a_module)
    with pytest.raises(InputError) as caught, configs.modules_of("."):
        raise InputError("Unknown. Received: x.")
    assert str(caught.value).startswith("Unknown. Received: x. The run's config imports users_filters, found neither")
    with configs.modules_of("."):  # nobody needs it
        pass


def test_a_run_without_a_config_imports_nothing(tmp_path):
    with pytest.raises(InputError, match=r"^Unknown\.$"), configs.modules_of(str(tmp_path)):
        raise InputError("Unknown.")
