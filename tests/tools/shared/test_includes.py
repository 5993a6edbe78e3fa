"""Includes: which file each stands for, and what a config may import."""

import gin
import pytest

from divco_tf.errors import InputError
from divco_tf.tools.shared import configs, includes
from tests.tools.shared.test_configs import HEAD, bound, refusal


@pytest.fixture
def user(toy_configs, tmp_path, monkeypatch):
    """A working directory of a user's, beside which the toy configs are the shipped ones."""
    folder = tmp_path / "user"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def config(path, *lines: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD + "".join(f"{line}\n" for line in lines))
    return str(path)


def test_a_shipped_include_is_the_shipped_file_whatever_lies_here(user):
    config(user / "base.gin", "toy.train.size = 99")
    configs.parse_config("digits/row")
    assert bound("epochs/gin.macro.value") == 3 and "toy.train.size" not in gin.config_str()


@pytest.mark.parametrize("name", ["common.gin", "common", "sub/common.gin", "../cfg/common.gin"])
def test_an_include_is_found_beside_its_file(user, name):
    config(user / "cfg" / "common.gin", "toy.train.size = 5")
    config(user / "cfg" / "sub" / "common.gin", "toy.train.size = 5")
    config(user / "common.gin", "toy.train.size = 6")
    configs.parse_config(config(user / "cfg" / "mine.gin", f"include '{name}'"))
    assert bound("toy.train.size") == 5


@pytest.mark.parametrize("name", ["common.gin", "common"])
def test_else_in_the_working_directory(user, name):
    config(user / "common.gin", "toy.train.size = 6")
    configs.parse_config(config(user / "cfg" / "mine.gin", f'include "{name}"  # shared'))
    assert bound("toy.train.size") == 6


@pytest.mark.parametrize("name", ["digits/row.gin", "digits/row"])
def test_else_among_the_shipped(user, name):
    configs.parse_config(config(user / "cfg" / "mine.gin", f'include "{name}"', "toy.train.size = 7"))
    assert (bound("toy.Rate.peak"), bound("toy.train.size")) == (0.1, 7)


def test_a_file_that_includes_its_own_name_means_another(user):
    """As a copy of digits/base.gin does, which includes base.gin."""
    configs.parse_config(config(user / "base.gin", 'include "base.gin"', "toy.train.size = 8"))
    assert (bound("epochs/gin.macro.value"), bound("toy.train.size")) == (3, 8)


def test_what_stands_below_an_include_wins_and_what_stands_above_does_not(user):
    config(user / "common.gin", "toy.train.size = 5", "toy.train.epochs = 5")
    configs.parse_config(
        config(user / "mine.gin", "toy.train.size = 1", 'include "common.gin"', "toy.train.epochs = 2")
    )
    assert (bound("toy.train.size"), bound("toy.train.epochs")) == (5, 2)


@pytest.mark.parametrize("length", [1, 2, 40])
def test_a_circle_is_refused_in_one_line(user, length):
    for number in range(length):
        config(user / f"{number}.gin", f'include "{(number + 1) % length}.gin"')
    line = refusal("0.gin")
    assert "The config includes itself. Received: 0.gin -> " in line and line.endswith("leave one include out.")
    assert len(line) < 200


def test_a_long_chain_is_read(user):
    for number in range(50):
        config(user / f"{number}.gin", f'include "{number + 1}.gin"')
    config(user / "50.gin", "toy.train.size = 9")
    configs.parse_config("0.gin")
    assert bound("toy.train.size") == 9


def test_a_circle_in_a_form_that_only_gin_knows_is_refused_too(user):
    config(user / "mine.gin", 'include "mine" ".gin"')
    assert "The config includes itself. Received: " in refusal("mine.gin")


def test_a_missing_include_is_named_with_its_line(user):
    config(user / "cfg" / "mine.gin", 'include "digits/rwo"')
    expected = (
        'No such file to include: digits/rwo. Did you mean digits/row? Received: include "digits/rwo" (cfg/mine.gin:3).'
    )
    assert expected in refusal("cfg/mine.gin")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00", "A config is a text in UTF-8. Received: "),
        (None, "The config cannot be read (Permission denied)"),
    ],
)
def test_a_file_that_is_no_config_is_refused(user, monkeypatch, content, says):
    (user / "mine.gin").write_bytes(content or b"")
    if content is None:
        monkeypatch.setattr(includes.pathlib.Path, "read_text", denied)
    assert says in refusal("mine.gin")


def denied(*arguments):
    raise PermissionError(13, "Permission denied")


def test_a_folder_is_no_config(user):
    (user / "cfg").mkdir()
    assert "A config is a file. Received: cfg, a folder;" in refusal("cfg")


def test_a_byte_order_mark_is_no_part_of_a_config(user):
    (user / "mine.gin").write_bytes(b"\xef\xbb\xbf" + HEAD.encode() + b"toy.train.size = 4\n")
    configs.parse_config("mine.gin")
    assert bound("toy.train.size") == 4


@pytest.mark.parametrize("place", ["cfg", "."])
def test_modules_beside_a_config_and_here_can_be_imported(user, place):
    name = f"users_{'here' if place == '.' else place}"
    module = user / place / f"{name}.py"
    module.parent.mkdir(exist_ok=True)
    module.write_text("def f(x=1):\n    return x\n")
    configs.parse_config(config(user / "cfg" / "mine.gin", f"import {name}", f"{name}.f.x = 2"))
    assert gin.get_configurable(f"{name}.f")() == 2


def test_they_hide_no_installed_module(user):
    (user / "json.py").write_text("raise RuntimeError")
    (user / "numpy.py").write_text("raise RuntimeError")
    configs.parse_config(config(user / "mine.gin", "import numpy"))


def test_an_input_error_keeps_its_words(user):
    with pytest.raises(InputError):
        includes.parse_config_file(user / "none.gin")
