"""gin's complaints, each in one line."""

import gin
import pytest

from divco_tf.errors import InputError
from divco_tf.tools.shared import configs
from divco_tf.tools.shared.complaints import gin_complaint
from tests.tools.shared.test_configs import HEAD, refusal


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("toy.train.epoch = 3", "toy.train has no parameter epoch. Did you mean epochs?"),
        ("toy.Rate.pek = 3", "toy.Rate has no parameter pek. Did you mean peak?"),
        ("toy.tarin.epochs = 3", "tests.tools.toy_library has no tarin. Did you mean train?"),
        ("toy.train.rate = @toy.rats()", "tests.tools.toy_library has no rats. Did you mean Rate?"),
        ("toi.train.epochs = 3", "The config imports no toi. Did you mean toy?"),
        ("epoch = 3", "The config has no macro epoch. Received: epoch = 3. Did you mean epochs?"),
        ("toy.train.epochs = %epohcs", "The config uses the macro epohcs and does not define it."),
        ("toy.train.epochs", "A binding has the form module.function.parameter=value. Received: toy.train.epochs."),
        ("toy.train.name = digits", "Texts stand in quotes"),
        ("toy.train.name = 'digits", "Texts stand in quotes"),
        ("toy.train.size = (1, 2", "Close every bracket"),
        ("toy..train = 3", "gin cannot parse the config"),
    ],
)
def test_a_wrong_binding_is_refused_in_one_line_that_names_what_exists(toy_configs, binding, expected):
    assert expected in refusal("digits/row", [binding])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("toy.train.epoch = 3", "toy.train has no parameter epoch. Did you mean epochs? Received: toy.train.epoch = 3"),
        ("toy.tarin.epochs = 3", "tests.tools.toy_library has no tarin. Did you mean train?"),
        ("toi.train.epochs = 3", "The config imports no toi. Did you mean toy?"),
        ("import toy_librari", "No module named 'toy_librari'."),
        ("include 'bsae.gin'", "No such file to include: bsae.gin. Did you mean base?"),
        ("toy.train.epochs == 3", "gin cannot parse the config"),
        ("toy.train.epochs = (3", "Close every bracket"),
        ("toy.train.epochs = %gin.REQUIRED", "not subsequently overridden"),
    ],
)
def test_a_wrong_line_of_a_config_is_refused_in_one_line(toy_configs, line, expected):
    path = toy_configs / "mine.gin"
    path.write_text(f"{HEAD}{line}\n")
    assert expected in refusal("mine")


def test_the_refused_line_is_named_by_file_and_number_through_includes(toy_configs):
    (toy_configs / "wrong.gin").write_text(HEAD + "toy.train.epoch = 3\n")
    (toy_configs / "outer.gin").write_text(HEAD + "include 'wrong.gin'\n")
    assert "(wrong.gin:3)" in refusal("outer")


def test_a_missing_value_is_a_complaint_about_the_config(toy_configs):
    (toy_configs / "mine.gin").write_text(HEAD + "toy.Rate.rule = 'step'\n")
    configs.parse_config("mine")
    with pytest.raises(TypeError) as caught:
        gin.get_configurable("toy.Rate")()
    complaint = gin_complaint(caught.value)
    assert "peak" in complaint and "\n" not in complaint


def test_an_error_of_a_configured_function_is_no_complaint_about_the_config(toy_configs):
    configs.parse_config("digits/row", ["toy.Rate.peak = -1.0"])
    with pytest.raises(InputError) as caught:
        gin.get_configurable("toy.Rate")()
    assert gin_complaint(caught.value) is None
