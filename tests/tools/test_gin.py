"""Every shipped config parses and describes a network; the rows of the paper have its recipe."""

import functools
import re

import gin
import pytest

from divco_tf.data.views.policies import get_policy
from divco_tf.models.divide import divide_weight_decay
from divco_tf.models.summary import summarize
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.options import Options
from divco_tf.tools.shared import configs
from divco_tf.training.optim.rules import RMSpropTF
from tests.reference import load_json
from tests.tools.published import ROWS, arch, record_of

NAMES = configs.config_names()
EXPERIMENTS = [name for name in NAMES if re.search(r"/\w+_split\d+", name)]
RECIPES = [*ROWS, *(f"cifar10/wide_resnet16_8_split{split}" for split in (1, 2, 4))]  # the latter are no rows


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@pytest.fixture
def experiment(name):
    return parsed(name)


@functools.cache  # both are frozen
def described(name: str) -> tuple[Experiment, Options]:
    """What a shipped config describes."""
    configs.parse_config(name)
    return configs.experiment(), configs.options()


def parsed(name: str) -> Experiment:
    return described(name)[0]


def text(name: str) -> str:
    return (configs.configs_dir() / f"{name}.gin").read_text()


def test_a_config_is_an_experiment_unless_others_include_it():
    included = {path.removesuffix(".gin") for name in NAMES for path in re.findall(r'include "(.+)"', text(name))}
    assert included <= set(NAMES)
    assert EXPERIMENTS == configs.experiment_names() == [name for name in NAMES if name not in included]


def test_every_published_row_has_a_config_of_its_own():
    assert len(ROWS) == len(load_json("paper_tables.json")["rows"]) == 79
    assert set(ROWS) == {name for name in EXPERIMENTS if re.search("Table|authors' list", text(name))}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_is_what_its_name_says(name, experiment):
    match = re.fullmatch(r"(\w+)/(.+)_split(\d+)(?:_crop(\d+))?(?:_epochs(\d+))?(?:_cpu)?", name)
    assert (experiment.dataset, experiment.backbone, experiment.split_factor) == (match[1], match[2], int(match[3]))
    assert match[4] in (None, str(experiment.image_size)) and match[5] in (None, str(experiment.epochs))
    assert described(name)[1] == Options()
    schedule = experiment.learning_rate.resolve(epochs=experiment.epochs, steps_per_epoch=10)
    assert float(schedule(10 * experiment.epochs - 1)) < experiment.learning_rate.learning_rate / 10
    experiment.optimizer.build(schedule, split_factor=experiment.split_factor)
    assert 0 < experiment.cotraining.warmup_epochs < experiment.epochs


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in ROWS])
def test_its_network_can_be_built(name, experiment):
    """The rows' networks are test_paper_rows.py's."""
    size = experiment.preprocessing.image_size
    sizes = summarize(
        experiment.backbone,
        split_factor=experiment.split_factor,
        num_classes=experiment.facts.num_classes or 2,
        input_shape=(size, size, 3),
        divide_regularisers=experiment.divide_regularisers,
        **experiment.overrides,
    )
    assert sizes.parameters == experiment.split_factor * sizes.parameters_per_branch > 10_000
    if name not in RECIPES:
        experiment.view_policies.check_size(size, size)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_its_first_line_is_a_command_that_runs_it(name):
    assert re.match(rf"#.*divco-train {name} --model_dir runs/\S+", text(name))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_networks_that_are_compared_differ_by_the_split_factor_only(name, experiment):
    siblings = [re.sub(r"_split\d+", f"_split{split}", name) for split in (1, 2, 4)]
    first = parsed(next(sibling for sibling in siblings if sibling in EXPERIMENTS))
    differing = {field for field in vars(experiment) if getattr(experiment, field) != getattr(first, field)}
    assert differing <= {"split_factor"}


@pytest.mark.parametrize("name", ROWS)
def test_a_rows_head_has_the_published_figures(name):
    row, (_, figures, *rest) = ROWS[name], text(name).splitlines()
    assert not rest[0].startswith("#")
    accuracy = (
        f"top-1 error {row['top1_error']} %"
        if "top1_error" in row
        else f"top-1 accuracy {row['top1']} %, top-5 {row['top5']} %"
    )
    table = "authors' list of checkpoints" if row["table"] == "checkpoints" else f"Table {row['table']} of the paper"
    assert figures.endswith(f"{table}: {accuracy}, {row['mparams']} M parameters, {row['gmacs']} G multiply-adds.")


@pytest.mark.parametrize("name", ROWS)
def test_a_row_trains_as_its_table_says(name, experiment):
    row = ROWS[name]
    theirs = (row["dataset"], row["backbone"], row["split_factor"], row["batch"], row["epochs"], row["crop"])
    ours = (experiment.dataset, experiment.backbone, experiment.split_factor, experiment.batch_size, experiment.epochs)
    assert (*ours, experiment.preprocessing.image_size) == theirs
    assert experiment.overrides == {} and experiment.divide_regularisers
    assert experiment.precision == "float32" and experiment.held_out == 0


def authors_recipe(experiment) -> dict:
    """What the authors' script and parser make of an experiment's dataset, network, epochs and batch size."""
    told, name, dataset = load_json("hyperparameters.json"), arch(experiment.backbone), experiment.dataset
    defaults = told["defaults"]["train_split_sh"][dataset]
    theirs = {**defaults["common"], **defaults["per_arch_differences"][name]}
    if experiment.epochs == 1800:  # recorded for some networks, of which WRN-28-10 has no rule of its own
        effects = told["epochs_effects"]
        theirs |= effects.get(f"{name}_1800", effects["wide_resnet28_10_1800"])
    batch_effects = told["imagenet_batch_effects"].get(f"{name}_b{experiment.batch_size}", {})
    if dataset == "imagenet" and "lr" in batch_effects:
        theirs["lr"] = batch_effects["lr"]
    return theirs


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_is_that_of_the_authors_script(name, experiment):
    theirs = authors_recipe(experiment)
    rate, optimizer, cotraining = experiment.learning_rate, experiment.optimizer, experiment.cotraining
    assert (rate.rule, rate.learning_rate) == (theirs["lr_mode"], theirs["lr"])
    assert rate.warmup_epochs == theirs["slow_start_epochs"]
    assert rate.warmup_learning_rate == theirs["slow_start_lr"]
    assert rate.final_learning_rate == theirs["end_lr"]
    assert (optimizer.name, optimizer.momentum) == (theirs["optimizer"].lower(), theirs["momentum"])
    assert optimizer.nesterov == bool(theirs["is_nesterov"])
    assert optimizer.weight_decay == theirs["weight_decay"]
    assert experiment.mixup_alpha == theirs["mix_alpha"] * theirs["is_mixup"]
    assert (cotraining.weight, cotraining.warmup_epochs) == (theirs["cot_weight"], theirs["cot_weight_warm_up_epochs"])
    assert {"js": "js_divergence"}[cotraining.loss] == theirs["cot_loss_choose"]
    assert (cotraining.floor, cotraining.per_step) == (0.005, False)
    assert experiment.ensembling == "mean_logits" and not theirs["is_ensembled_after_softmax"]
    assert experiment.identical_views == (not theirs["is_diff_data_train"])
    assert experiment.label_smoothing == 0.1 * theirs["is_label_smoothing"]
    if name not in ROWS:
        assert (experiment.epochs, experiment.batch_size) == (theirs["epochs"], theirs["batch_size"])


def test_the_authors_other_optimizer_is_one_binding_away():
    """Their RMSpropTF for EfficientNet: alpha 0.9, epsilon 0.001 inside the root, momentum 0.9, L2."""
    bindings = ['optimizer.OptimizerConfig.name="rmsprop_tf"']
    configs.parse_config("imagenet/efficientnet_b7_split1_crop320", bindings)
    built = configs.experiment().optimizer.build(0.256)
    assert type(built) is RMSpropTF and (built.alpha, built.epsilon, built.momentum) == (0.9, 0.001, 0.9)
    assert built.decay == 1e-5 and "gamma" not in built.exclude_from_decay
    told = load_json("hyperparameters.json")["optimizers"]["RMSpropTF"]
    assert told.startswith("alpha 0.9, eps 0.001 inside the square root, momentum 0.9")


@pytest.mark.parametrize("name", RECIPES)
def test_the_view_policy_is_the_authors(name, experiment):
    theirs, policy = authors_recipe(experiment), get_policy(experiment.views)
    if experiment.dataset != "imagenet":
        assert theirs["is_autoaugment"] and theirs["is_cutout"] and experiment.views == experiment.dataset
        assert policy.pad == theirs["padding"]
    elif theirs["is_autoaugment"]:
        assert theirs["randaa"] is None and policy.augment == ("auto_augment_imagenet",)
    else:
        assert policy.augment == (theirs["randaa"],)
    assert policy.erasing.probability == theirs["erase_p"] == 0.5 and theirs["is_cutout"]


@pytest.mark.parametrize("name", ROWS)
def test_weight_decay_is_the_references(name, experiment):
    """Divided in the rows that say so; norm scales are decayed in the networks whose names for them hide them."""
    row = ROWS[name]
    assert experiment.optimizer.divide_weight_decay == row["weight_decay_divided"]
    decays_scales = record_of(row)["weight_decay_groups"]["bn_scale_elems_decayed"] > 0
    assert experiment.optimizer.decay_norm_scales == decays_scales
    expected = experiment.optimizer.weight_decay
    if row["weight_decay_divided"]:
        expected *= load_json("hyperparameters.json")["weight_decay_division"]["factors"][str(row["split_factor"])]
        divided = divide_weight_decay(experiment.optimizer.weight_decay, experiment.split_factor)
        assert divided == pytest.approx(expected, rel=1e-12)
    built = experiment.optimizer.build(0.1, split_factor=experiment.split_factor)
    assert built.decay == pytest.approx(expected, rel=1e-12)
