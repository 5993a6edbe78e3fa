"""Runs that begin with another run's weights: which branches go where, and what does not fit."""

import dataclasses
import json
import pathlib

import gin
import numpy as np
import pytest

from divco_tf.errors import InputError
from divco_tf.models.backbones.registry import BACKBONES
from divco_tf.models.branch_stack import BranchStack
from divco_tf.models.template import build_template
from divco_tf.runs.assemble import make_model
from divco_tf.runs.experiment import Experiment
from divco_tf.runs.loop import train
from divco_tf.runs.model_dir import claim_model_dir, load, open_model_dir
from divco_tf.runs.records.checkpoints import Checkpoints
from divco_tf.runs.records.experiment_json import RECORD, write_record
from divco_tf.runs.warm_start import WarmStart, warm_start
from divco_tf.runtime.strategy import make_strategy
from divco_tf.tools.shared import configs
from tests import tiny
from tests.runs import runs
from tests.runs.refusals import DIGITS
from tests.training.test_keras_layers import keras_stack


def stored(model_dir: pathlib.Path, described: Experiment | None = None, *, num_classes: int = 10) -> BranchStack:
    """A run in `model_dir` whose every value is a number of its own."""
    described = described or runs.experiment()
    stack = described.build(num_classes)
    rng = np.random.default_rng(0)
    for variable in stack.trainable_variables:
        variable.assign(rng.standard_normal(variable.shape))
    for variable in stack.non_trainable_variables:
        if variable.dtype == "float32":
            variable.assign(rng.random(variable.shape))
    model_dir.mkdir(parents=True, exist_ok=True)
    write_record(model_dir / RECORD, described.identity(None), list(map(str, range(num_classes))))
    Checkpoints(model_dir / "checkpoints").save(7, {"stack": stack.variables})
    return stack


def by_name(stack: BranchStack) -> dict[str, np.ndarray]:
    return {variable.name: variable.numpy().copy() for variable in stack.variables}


def begin(stack: BranchStack, config: WarmStart) -> str:
    """As `train` does it."""
    return warm_start(stack, load(config.model_dir, weights=config.weights), branches=config.branches)


def refused(stack: BranchStack, config: WarmStart, *, says: str) -> None:
    """Refused in one line, and nothing is written into the stack."""
    before = tiny.values(stack.variables)
    with pytest.raises(InputError) as error:
        begin(stack, config)
    assert tiny.one_line(error.value, says=says), str(error.value)
    assert tiny.largest_difference(before, tiny.values(stack.variables)) == 0


def test_the_same_split_factor_takes_everything(tmp_path):
    other, stack = stored(tmp_path), runs.experiment(seed=5).build(10)
    line = begin(stack, WarmStart(str(tmp_path)))
    assert line == f"warm start from {tmp_path} last step 7: branches 0, 1 of 2"
    assert tiny.largest_difference(tiny.values(stack.variables), tiny.values(other.variables)) == 0


@pytest.mark.parametrize(
    ("theirs", "branches", "ours"), [(2, (0,), 4), (1, (0,), 2), (4, (3, 1), 2), (2, (1, 1, 0), 3)]
)
def test_branches_are_chosen_by_their_numbers(tmp_path, theirs, branches, ours):
    def described(split_factor: int) -> Experiment:  # branches of one width, whatever S
        return runs.experiment(split_factor=split_factor, overrides={"width": 4 * split_factor, "dropout": 0.0})

    other, stack = stored(tmp_path, described(theirs)), described(ours).build(10)
    line = begin(stack, WarmStart(str(tmp_path), branches=branches))
    chosen = branches * ours if len(branches) == 1 else branches
    assert line.endswith(f"branches {', '.join(map(str, chosen))} of {theirs}")
    before = by_name(other)
    for name, values in by_name(stack).items():
        np.testing.assert_array_equal(values, before[name][list(chosen)])


def test_the_classifier_keeps_its_initial_values_for_other_classes(tmp_path):
    other, stack = stored(tmp_path, runs.experiment(dataset="image_folder", image_size=8), num_classes=3), None
    stack = runs.experiment().build(10)
    initial = by_name(stack)
    line = begin(stack, WarmStart(str(tmp_path)))
    assert line.endswith("; fc keeps its initial values (3 classes there, 10 here)")
    before = by_name(other)
    for name, values in by_name(stack).items():
        np.testing.assert_array_equal(values, initial[name] if name.startswith("fc.") else before[name])


FAMILIES = (
    *("densenet190", "efficientnet_b0", "efficientnet_b0_cifar", "keras_cv_csp_darknet_tiny"),
    *("keras_cv_efficientnet_v2_b0", "keras_cv_mobilenet_v3_small", "keras_cv_resnet50_v2", "keras_efficientnet_v2_b0"),
    *("keras_mobilenet_v3_small", "pyramidnet164", "resnest101", "resnet50", "resnet110", "resnexst50_4x16d"),
    *("se_resnet50", "se_resnet110", "shake_resnet26_2x96d", "wide_resnet16_8"),
)
QUICK = {"wide_resnet16_8", "keras_mobilenet_v3_small"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def test_the_layer_that_may_differ_is_the_classifier_of_every_family(name):
    """Taken for it is the layer of the last weight."""
    spec = BACKBONES.get(name).spec
    templates = [build_template(spec, num_classes=classes, input_shape=(64, 64, 3)) for classes in (3, 5)]
    pairs = list(zip(*(template.trainable_variables for template in templates), strict=True))
    differing = {one.path.rpartition("/")[0] for one, other in pairs if one.shape != other.shape}
    assert differing == {pairs[-1][0].path.rpartition("/")[0]}


def test_the_state_of_keras_random_layers_stays(tmp_path):
    described = runs.experiment(backbone="tiny_keras", overrides={}, split_factor=1)
    stored(tmp_path, described)
    stack = keras_stack(num_classes=10)
    initial = by_name(stack)
    begin(stack, WarmStart(str(tmp_path), branches=(0,)))
    seeds = [name for name in initial if "seed_generator" in name]
    assert len(seeds) == 2
    for name, values in by_name(stack).items():
        if name in seeds:
            np.testing.assert_array_equal(values, initial[name])
        else:
            np.testing.assert_array_equal(values[0], values[1])


def test_what_does_not_fit_is_refused_by_its_first_difference(tmp_path):
    stored(tmp_path)
    narrow = runs.experiment(split_factor=4).build(10)
    refused(
        narrow,
        WarmStart(str(tmp_path), branches=(0, 1, 0, 1)),
        says=f"conv.kernel is of shape (3, 3, 3, 4) in {tmp_path} last step 7, of shape (3, 3, 3, 2) here",
    )
    no_norm = runs.experiment(backbone="tiny_no_norm").build(10)
    refused(no_norm, WarmStart(str(tmp_path)), says="conv.bias is absent in")
    stored(tmp_path / "no_norm", runs.experiment(backbone="tiny_no_norm"))
    refused(runs.experiment().build(10), WarmStart(str(tmp_path / "no_norm")), says="norm.gamma is absent in")
    wide = runs.experiment(overrides={"width": 16}).build(3)
    refused(wide, WarmStart(str(tmp_path)), says="conv.kernel is of shape")


def test_branches_and_weights_that_are_not_there_are_refused(tmp_path):
    stored(tmp_path)
    four = runs.experiment(split_factor=4, overrides={"width": 16}).build(10)
    refused(four, WarmStart(str(tmp_path)), says="2 branches in")
    refused(four, WarmStart(str(tmp_path), branches=(0, 1)), says="split_factor=4; 4 or a single one would work")
    refused(four, WarmStart(str(tmp_path), branches=(0, 1, 2, 0)), says="Received: 2; there are 0 to 1")
    refused(four, WarmStart(str(tmp_path), "ema"), says="kept no moving average")
    with pytest.raises(InputError, match="Received: 'lst'; pass one of last, best, ema"):
        WarmStart(str(tmp_path), "lst")
    refused(four, WarmStart(str(tmp_path / "absent")), says="No run lies there")


@pytest.mark.parametrize(
    "wrong",
    [
        {"model_dir": ""},
        {"model_dir": None},
        {"branches": ()},
        {"branches": 0},
        {"branches": (-1,)},
        {"branches": (True,)},
    ],
)
def test_what_says_nothing_is_refused_in_one_line(wrong):
    with pytest.raises(InputError) as error:
        WarmStart(**{"model_dir": "runs/a", **wrong})
    assert tiny.one_line(error.value, says=repr(*wrong.values()))


def test_both_replicas_begin_with_the_same_weights(tmp_path):
    other = stored(tmp_path)
    strategy = make_strategy("mirrored")
    with strategy.scope():
        model = make_model(runs.experiment(ema_decay=0.9, seed=5), num_classes=10, steps_per_epoch=5)
    begin(model.stack, WarmStart(str(tmp_path)))
    model.reset_ema()
    for variables in (model.stack.variables, model.ema):
        for variable, expected in zip(variables, other.variables, strict=True):
            for local in strategy.experimental_local_results(variable.value):
                np.testing.assert_array_equal(local.numpy(), expected.numpy())


def test_branches_on_several_devices_take_theirs(tmp_path):
    other, stack = stored(tmp_path), runs.experiment(seed=5).build(10, devices=["CPU:0", "CPU:1"])
    begin(stack, WarmStart(str(tmp_path), branches=(1, 0)))
    assert len(stack.variables) == 2 * len(other.variables)
    for name, value in stack.stacked_values().items():
        np.testing.assert_array_equal(value, other.stacked_values()[name][::-1])


def test_a_run_begins_with_them_once(tmp_path):
    """At a rate of next to nothing the first steps leave the weights; a second call goes on from the checkpoint."""
    other = stored(tmp_path / "other")
    still = dataclasses.replace(runs.experiment().learning_rate, learning_rate=1e-12)
    described = runs.experiment(
        warm_start=WarmStart(str(tmp_path / "other")), learning_rate=still, ema_decay=0.9, epochs=1, seed=5
    )
    lines = []
    runs.run(tmp_path / "run", described, report=lines.append)
    assert [line for line in lines if line.startswith("warm start from")] != []
    for weights in ("last", "ema"):
        found = dict(zip([v.name for v in other.variables], runs.final_weights(tmp_path / "run", weights), strict=True))
        for variable in other.trainable_variables:
            np.testing.assert_allclose(found[variable.name], variable.numpy(), atol=1e-6)
    lines.clear()
    runs.run(tmp_path / "run", described, report=lines.append)
    assert not [line for line in lines if line.startswith("warm start from")]


def test_what_does_not_fit_leaves_the_model_dir_free(tmp_path):
    stored(tmp_path / "other")
    described = runs.experiment(split_factor=4, warm_start=WarmStart(str(tmp_path / "other"), branches=(0,)))
    with pytest.raises(InputError, match="conv.kernel"):
        train(described, model_dir=tmp_path / "run", report=lambda line: None)
    assert not (tmp_path / "run" / RECORD).exists()


def test_it_is_part_of_what_a_model_dir_holds(tmp_path):
    described = runs.experiment(warm_start=WarmStart("runs/a", branches=[0]))
    claim_model_dir(tmp_path, described, DIGITS)
    assert open_model_dir(tmp_path).experiment.warm_start == WarmStart("runs/a", branches=(0,))
    with pytest.raises(InputError, match="warm_start"):
        claim_model_dir(tmp_path, runs.experiment(), DIGITS)
    record = json.loads((tmp_path / RECORD).read_text())
    for name in ("warm_start", "ema_decay"):  # a release before had neither
        record["identity"].pop(name)
    (tmp_path / RECORD).write_text(json.dumps(record))
    claim_model_dir(tmp_path, runs.experiment(), DIGITS)


def test_gin_binds_it():
    bindings = [
        "experiment.Experiment.warm_start = @warm_start.WarmStart()",
        'warm_start.WarmStart.model_dir = "runs/a"',
        "warm_start.WarmStart.branches = [0]",
        "experiment.Experiment.ema_decay = 0.999",
    ]
    try:
        configs.parse_config("digits/wide_resnet10_2_split4", bindings)
        described = configs.experiment()
        assert described.warm_start == WarmStart("runs/a", branches=(0,)) and described.ema_decay == 0.999
        assert "WarmStart.model_dir = 'runs/a'" in configs.operative_config()
    finally:
        gin.clear_config()
