"""Configs and bindings of 0.1.0 and 0.2.0 describe the same experiments, and are told what their names are now."""

import re
import shutil
import sys

import gin
import pytest

from divco_tf.errors import InputError
from divco_tf.tools.shared import configs, includes, old_names

# Imports and names of 0.2.0, whose gin/ was that of 0.1.0 in this.
OLD = {
    "from divco_tf.data.views import policies": "from divco_tf.data import policies",
    "from divco_tf.data import keras_layers": "from divco_tf.data import batch_ops",
    "from divco_tf.runs import options": "from divco_tf.training import loop",
    "from divco_tf.runs import": "from divco_tf.training import",
    "from divco_tf.training.optim import optimizer": "from divco_tf.training import optimizers",
    "from divco_tf.training.optim import learning_rate": "from divco_tf.training import schedules",
    "from divco_tf.training import losses": "from divco_tf.training import schedules",
    "options.Options": "loop.Options",
    "optimizer.OptimizerConfig": "optimizers.OptimizerConfig",
    "learning_rate.LearningRate": "schedules.LearningRate",
    "losses.CoTraining": "schedules.CoTraining",
}
HEAD = "from __gin__ import dynamic_registration\n"
# What 0.2.0 wrote as config.gin into the folder of a run, some lines of it.
RUN = f"""{HEAD}from divco_tf.data import batch_ops
from divco_tf.data import policies
from divco_tf.training import experiment
from divco_tf.training import loop
from divco_tf.training import optimizers
from divco_tf.training import schedules
from divco_tf.training import warm_start

# Parameters for schedules.CoTraining:
# ==============================================================================
schedules.CoTraining.warmup_epochs = 1

# Parameters for experiment.Experiment:
# ==============================================================================
experiment.Experiment.backbone = 'resnet110'
experiment.Experiment.batch_operations = ()
experiment.Experiment.cotraining = @schedules.CoTraining()
experiment.Experiment.dataset = 'digits'
experiment.Experiment.learning_rate = @schedules.LearningRate()
experiment.Experiment.optimizer = @optimizers.OptimizerConfig()
experiment.Experiment.views = 'digits+rand-m5-mstd0.5'

# Parameters for schedules.LearningRate:
# ==============================================================================
schedules.LearningRate.learning_rate = 0.4

# Parameters for optimizers.OptimizerConfig:
# ==============================================================================
optimizers.OptimizerConfig.betas = (0.9, 0.999)

# Parameters for loop.Options:
# ==============================================================================
loop.Options.micro_batches = 2
"""


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    old_names._tell.cache_clear()
    monkeypatch.chdir(tmp_path)
    yield
    gin.clear_config()


@pytest.fixture
def parsed(tmp_path):
    """What a config and bindings describe; a text is a file's."""

    def parse(config: str, *bindings: str):
        if "\n" in config:
            (tmp_path / "mine.gin").write_text(config)
            config = "mine.gin"
        configs.parse_config(config, bindings)
        return configs.experiment(), configs.options()

    return parse


def told(capsys) -> list[str]:
    """The lines on stderr, without what they end with."""
    end = "; the old name goes with the next release."
    lines = capsys.readouterr().err.splitlines()
    assert all(line.endswith(end) for line in lines)
    return [line.removesuffix(end) for line in lines]


@pytest.fixture
def old_folder(tmp_path):
    """gin/ as it was."""
    folder = shutil.copytree(configs.configs_dir(), tmp_path / "old")
    for path in folder.rglob("*.gin"):
        text = path.read_text()
        for new, old in OLD.items():
            text = re.sub(rf"(?<![\w.]){new}\b", old, text)
        path.write_text(text)
    return folder


def test_every_shipped_config_of_before_describes_the_same_experiment(parsed, old_folder, monkeypatch, capsys):
    names = configs.experiment_names()
    new = {name: parsed(name) for name in names}
    assert len(names) > 80 and told(capsys) == []
    for module in (configs, includes):
        monkeypatch.setattr(module, "configs_dir", lambda: old_folder)
    assert {name: parsed(name) for name in names} == new
    assert "divco_tf.training.loop is now divco_tf.runs.options" in told(capsys)
    assert not re.search(r"loop|schedules|optimizers", gin.config_str())


def test_a_run_of_before_can_be_trained_again_by_its_config(parsed, capsys):
    experiment, options = parsed(RUN, "loop.Options.keep_best=3", "options.Options.log_every=7")
    assert (experiment.backbone, experiment.cotraining.warmup_epochs) == ("resnet110", 1)
    assert (experiment.learning_rate.learning_rate, experiment.optimizer.betas) == (0.4, (0.9, 0.999))
    assert (options.micro_batches, options.keep_best, options.log_every) == (2, 3, 7)
    assert told(capsys) == [
        "divco_tf.data.policies is now divco_tf.data.views.policies",
        "divco_tf.training.experiment is now divco_tf.runs.experiment",
        "divco_tf.training.loop is now divco_tf.runs.options",
        "divco_tf.training.optimizers is now divco_tf.training.optim.optimizer",
        "divco_tf.training.schedules is now divco_tf.training.optim.learning_rate and divco_tf.training.losses",
        "divco_tf.training.warm_start is now divco_tf.runs.warm_start",
        "schedules.CoTraining is now losses.CoTraining",
        "schedules.LearningRate is now learning_rate.LearningRate",
        "optimizers.OptimizerConfig is now optimizer.OptimizerConfig",
        "loop.Options is now options.Options",
    ]
    assert parsed(configs.operative_config()) == (experiment, options)
    assert told(capsys) == []


BINDINGS = [
    ("loop.Options.micro_batches=4", "options.Options.micro_batches=4"),
    ("optimizers.OptimizerConfig.name='adamw'", "optimizer.OptimizerConfig.name='adamw'"),
    ("schedules.LearningRate.learning_rate=0.3", "learning_rate.LearningRate.learning_rate=0.3"),
    ("schedules.CoTraining.weight=0.7", "losses.CoTraining.weight=0.7"),
]


@pytest.mark.parametrize(("old", "new"), BINDINGS)
@pytest.mark.parametrize("config", ["digits/wide_resnet10_2_split4", RUN])
def test_a_binding_of_before_is_the_one_of_now_for_configs_of_both(parsed, capsys, config, old, new):
    expected = parsed(config, new)
    assert expected != parsed(config)
    told(capsys)
    old_names._tell.cache_clear()
    assert parsed(config, old, old) == expected
    names = [".".join(binding.split(".")[:2]) for binding in (old, new)]
    assert told(capsys).count("{} is now {}".format(*names)) == 1


def test_the_last_of_old_and_new_names_wins(parsed, capsys):
    config = f"""{HEAD}from divco_tf.training import schedules
from divco_tf.training import loop as how
import divco_tf.training.optimizers
from divco_tf.runs import options

include "digits/wide_resnet10_2_split4.gin"

width = 3
options.Options.keep_best = 2
how.Options.keep_best = %width
how.Options.log_every = 5
options.Options.log_every = %width
divco_tf.training.optimizers.OptimizerConfig.momentum = 0.8
schedules.LearningRate:
    learning_rate = 0.3
"""
    experiment, options = parsed(config, "width=4")
    assert (options.keep_best, options.log_every) == (4, 4)
    assert (experiment.optimizer.momentum, experiment.learning_rate.learning_rate) == (0.8, 0.3)
    assert [line for line in told(capsys) if "loop" in line] == [
        "divco_tf.training.loop is now divco_tf.runs.options",
        "loop.Options is now options.Options",
    ]


def test_a_users_own_modules_of_the_same_names_stay_the_users(parsed, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("loop", "losses"):
        (tmp_path / f"{name}.py").write_text("def users(depth=1): return depth\n")
    config = f"""{HEAD}import losses
from divco_tf.training import schedules
import loop

include "digits/wide_resnet10_2_split4.gin"

loop.users.depth = 2
losses.users.depth = 3
schedules.CoTraining.weight = 0.7
"""
    try:
        experiment, options = parsed(config)
        assert experiment.cotraining.weight == 0.7
        assert [gin.get_configurable(f"{name}.users")() for name in ("loop", "losses")] == [2, 3]
        assert options == parsed("digits/wide_resnet10_2_split4")[1]
    finally:
        for name in ("loop", "losses"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("loop.Optoins.log_every = 3", "divco_tf.runs.options has no Optoins. Did you mean Options?"),
        ("loop.Options.log_evry = 3", "loop.Options has no parameter log_evry. Did you mean log_every?"),
        ("schedule.CoTraining.weight = 3", "The config imports no schedule. Did you mean schedules?"),
        ("experiment.Experiment.epochs = 3", "The config imports no experiment."),
    ],
)
def test_a_misspelt_name_of_before_is_refused_with_what_there_is(parsed, line, says):
    imports = "from divco_tf.training import loop\nfrom divco_tf.training import schedules\n"
    with pytest.raises(InputError, match=re.escape(says)):
        parsed(f"{HEAD}{imports}{line}\n")


def test_a_keras_layer_of_before_is_bound_where_it_lives_now(parsed, capsys):
    bindings = [
        'batch_ops.KerasLayer.name="keras.layers.RandomBrightness"',
        'batch_ops.KerasLayer.arguments={"factor": 0.2}',
    ]
    use = "experiment.Experiment.batch_operations=(@batch_ops.KerasLayer(),)"
    mine = f'{HEAD}from divco_tf.data import batch_ops\ninclude "digits/wide_resnet10_2_split4.gin"\n'
    for config in ("digits/wide_resnet10_2_split4", mine):
        (layer,) = parsed(config, use, *bindings)[0].batch_operations
        assert layer.name == "keras.layers.RandomBrightness"
    assert told(capsys) == ["batch_ops.KerasLayer is now keras_layers.KerasLayer"]


def test_a_program_tells_of_old_names_and_goes_on(divco, tmp_path):
    flags = ["--config=digits/wide_resnet10_2_split4", "--bind=loop.Options.micro_batches=2"]
    result = divco("train", *flags, f"--model_dir={tmp_path / 'run'}", "--dry_run")
    assert result.status == 0
    assert result.stderr == "loop.Options is now options.Options; the old name goes with the next release.\n"
