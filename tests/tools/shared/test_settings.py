"""--set: a setting by its name."""

import ast
import dataclasses

import gin
import pytest

from divco_tf.analysis.grid import cells, with_arguments
from divco_tf.errors import InputError
from divco_tf.runs.experiment import Experiment
from divco_tf.tools.shared import configs, outline, settings
from divco_tf.training.optim.optimizer import OptimizerConfig

DIGITS = "digits/wide_resnet10_2_split4"


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("epochs", "epochs"),
        ("experiment.views", "views"),
        ("strategy", "options.strategy"),
        ("options.jit", "options.jit"),
        ("weight_decay", "optimizer.weight_decay"),
        ("cotraining.warmup_epochs", "cotraining.warmup_epochs"),
        ("learning_rate", "learning_rate.learning_rate"),  # the field of that name is no value
        ("rule", "rule"),  # a path of its own, though learning_rate.rule ends so
        ("overrides.dropout", "overrides.dropout"),
        ("losses.CoTraining.loss", "cotraining.loss"),
        ("experiment.Experiment.seed", "seed"),
    ],
)
def test_a_name_stands_for_one_setting(name, path):
    assert settings.find(name).path == path == settings.find(path).path


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epohcs=2", "No setting is called epohcs. Received: --set epohcs=2. Did you mean epochs?"),
        ("warmup_epochs=1", "learning_rate.warmup_epochs=1 or cotraining.warmup_epochs=1 works."),
        ("optimizer=adamw", "optimizer is several settings. Received: --set optimizer=adamw; one of optimizer.name"),
        (
            "optimizer.wieght_decay=1",
            "OptimizerConfig has no wieght_decay. Received: --set optimizer.wieght_decay=1. Did",
        ),
        ("dataset.name=x", "No setting is called dataset.name."),
        ("epochs", "A setting has the form name=value. Received: --set epochs;"),
        ("epochs=", "epochs gets no value."),
        ("epochs=two", "Experiment.epochs has another type. Received: 'two'; pass a whole number, 1 or more, or None."),
        ("strategy=mirored", "pass one of auto, one_device, mirrored,"),
    ],
)
def test_what_is_no_setting_is_refused_in_one_line(text, says):
    with pytest.raises(InputError) as caught:
        settings.assigned([text])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_setting_is_set_once():
    with pytest.raises(InputError, match=r"options.strategy is set twice. Received: --set options.strategy=mirrored"):
        settings.assigned(["strategy=auto", "options.strategy=mirrored"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("epochs=2", 2),
        ("weight_decay=5e-4", 5e-4),
        ("remat=true", True),
        ("remat=False", False),
        ("epochs=None", None),
        ("cotraining.loss=none", "none"),
        ('backbone="wide_resnet10_2"', "wide_resnet10_2"),
        ("cache_dir=2020", "2020"),
        ("profile=10,15", (10, 15)),
        ("profile=(10, 15)", (10, 15)),
        ("milestones=60", (60,)),
        ("views=digits", "digits"),
        ("views=digits, crop_flip", ("digits", "crop_flip")),
        ("exclude_from_decay=^stem,fc.kernel", ("^stem", "fc.kernel")),
        ("overrides={'dropout': 0.3}", {"dropout": 0.3}),
        ("warm_start.model_dir=runs/a=b", "runs/a=b"),
    ],
)
def test_values_need_no_quotes(text, value):
    ((_, found, typed),) = settings.assigned([text])
    assert found == value and typed == text


def described(config, *texts, bind=()):
    lines = configs.parse_config(str(config), bind, texts)
    return configs.experiment(), configs.options(), lines


@pytest.mark.parametrize("text", ["plain", 'it\'s "q" \\ \n', "é 😀", "#x"])
def test_a_text_comes_through_gin_as_it_is(text):
    assert described(DIGITS, f"cache_dir=/tmp/{text}")[1].cache_dir == f"/tmp/{text.strip()}"


def test_a_literal_is_pythons():
    for value in ("\udcff\t", ("a",), (), {"x": (1, 2.5), "y": None}, True):
        assert ast.literal_eval(settings.as_literal(value)) == value
    assert settings.as_literal("\udcff").isascii()


WARM = ("warm_start.model_dir=runs/other", "weights=best")


def test_settings_win_over_the_config_and_are_told_as_gin_says_them():
    experiment, options, lines = described(DIGITS, "epochs=2", "strategy=mirrored", *WARM)
    assert (experiment.epochs, options.strategy, experiment.warm_start.model_dir) == (2, "mirrored", "runs/other")
    assert lines[:3] == [
        "--set epochs=2: experiment.Experiment.epochs = 2",
        '--set strategy=mirrored: options.Options.strategy = "mirrored"',
        "--set warm_start.model_dir=runs/other: experiment.Experiment.warm_start = @warm_start.WarmStart(); "
        'warm_start.WarmStart.model_dir = "runs/other"',
    ]
    assert lines[3] == '--set weights=best: warm_start.WarmStart.weights = "best"'
    assert "strategy = 'mirrored'" in configs.operative_config()


@pytest.mark.parametrize("text", ["seed=3", "weight_decay=0.25", "cotraining.loss=kl", "overrides.dropout=0.5"])
def test_a_setting_is_the_sweeps_argument_of_that_name(text):
    plain, *_ = described(DIGITS)
    (cell,) = cells([text])
    assert described(DIGITS, text)[0] == with_arguments(plain, settings.of_experiment(cell).arguments) != plain


HEAD = "from __gin__ import dynamic_registration\nfrom divco_tf.runs import experiment\n"
OWN = HEAD + "experiment.Experiment.backbone = 'wide_resnet10_2'\nexperiment.Experiment.dataset = 'digits'\n"


def test_a_part_that_the_config_does_not_bind_is_bound(tmp_path):
    (tmp_path / "mine.gin").write_text(OWN)
    experiment, options, _ = described(
        tmp_path / "mine.gin", "weight_decay=0.5", "name=adamw", "nesterov=True", "jit=on"
    )
    assert experiment.optimizer == OptimizerConfig(name="adamw", weight_decay=0.5)
    assert options.jit == "on"


def test_what_the_config_binds_of_overrides_is_kept_and_a_scope_is_heeded(tmp_path):
    lines = ["from divco_tf.training.optim import optimizer as o", "experiment.Experiment.overrides = {'depth': 16}"]
    lines += [
        "experiment.Experiment.optimizer = @mine/o.OptimizerConfig()",
        "mine/o.OptimizerConfig.weight_decay = 0.1",
    ]
    (tmp_path / "mine.gin").write_text(OWN + "\n".join(lines))
    experiment, *_ = described(tmp_path / "mine.gin", "overrides.dropout=0.3", "weight_decay=0.5")
    assert experiment.overrides == {"depth": 16, "dropout": 0.3} and experiment.optimizer.weight_decay == 0.5


def test_what_the_config_has_in_the_place_of_a_part_is_not_guessed_at(tmp_path):
    lines = "from tests.tools import toy_library\nexperiment.Experiment.optimizer = @toy_library.train()\n"
    (tmp_path / "mine.gin").write_text(OWN + lines)
    for lines in ("@toy_library.train()", "{'depth': %depth}"):
        (tmp_path / "other.gin").write_text(f"depth = 10\n{OWN}experiment.Experiment.overrides = {lines}\n")
        with pytest.raises(InputError, match=r"computes its overrides. Received: --set overrides.dropout=0.5"):
            configs.bindings_of(outline.read(tmp_path / "other.gin"), settings.assigned(["overrides.dropout=0.5"]))
    with pytest.raises(InputError, match=r"The config computes its optimizer. Received: --set weight_decay=0.5"):
        described(tmp_path / "mine.gin", "weight_decay=0.5")


def test_a_binding_and_a_setting_do_not_say_the_same(tmp_path):
    for bound in ("experiment.Experiment.epochs=3", "epochs=3"):
        with pytest.raises(InputError, match=f"epochs is set twice. Received: --bind {bound} and --set epochs=2; give"):
            described(DIGITS, "epochs=2", bind=[bound])


@pytest.mark.parametrize(
    "name", ["epochs", "batch_size", "learning_rate", "weight_decay", "weight", "strategy", "loss"]
)
def test_a_macro_of_the_base_files_is_the_setting_of_its_name(name):
    value = {"strategy": '"mirrored"', "loss": '"kl"'}.get(name, "3")
    for config in (DIGITS, "cifar10/wide_resnet10_2_split1_cpu", "cifar100/wide_resnet28_10_split4"):
        assert described(config, bind=[f"{name}={value}"])[:2] == described(config, f"{name}={value}")[:2]


def test_a_macro_in_whose_place_a_config_binds_a_value_is_refused(tmp_path):
    (tmp_path / "mine.gin").write_text(HEAD + f'include "{DIGITS}"\nexperiment.Experiment.epochs = 7\n')
    with pytest.raises(
        InputError, match=r"another value where the macro epochs stood. Received: --bind epochs=2; --set"
    ):
        described(tmp_path / "mine.gin", bind=["epochs=2"])
    assert described(tmp_path / "mine.gin", "epochs=2")[0].epochs == 2


def test_a_grid_takes_names_too_and_calls_its_cells_by_their_paths():
    (cell, other) = [settings.of_experiment(cell) for cell in cells(["weight_decay=0.1,0.2; seed=1"])]
    assert cell.name == "optimizer.weight_decay=0.1,seed=1"
    assert other.arguments == {"optimizer.weight_decay": 0.2, "seed": 1}
    for grid, says in (("sede=1", "Did you mean seed"), ("strategy=auto", "A grid is of the experiment")):
        with pytest.raises(InputError, match=says):
            settings.of_experiment(cells([grid])[0])


def test_parts_are_the_dataclasses_that_an_experiment_holds():
    held = {field.name for field in dataclasses.fields(Experiment) if field.name in settings.PARTS}
    assert held == settings.PARTS.keys() - {"experiment", "options"}
