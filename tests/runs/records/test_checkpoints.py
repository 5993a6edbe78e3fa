import dataclasses
import errno
import json
import os
import subprocess
import sys

import hypothesis.strategies
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings

from divco_tf.errors import InputError
from divco_tf.models import layers
from divco_tf.models.backbones.registry import register_backbone
from divco_tf.models.divide import by_split, divided
from divco_tf.runs.assemble import make_model
from divco_tf.runs.records.checkpoints import Checkpoint, Checkpoints, CheckpointWriter
from divco_tf.runtime.strategy import make_strategy
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.optim.optimizer import SGD
from tests import tiny
from tests.runs import runs


def state(value: float = 0.0, size: int = 3) -> dict[str, list[keras.Variable]]:
    return {
        "stack": [
            keras.Variable(np.full(size, value, np.float32)),
            keras.Variable(np.full((2, 2), -value, np.float32)),
        ],
        "run": [keras.Variable(np.int64(value), dtype="int64", trainable=False)],
    }


def numbers(variables: dict[str, list[keras.Variable]]) -> list[float]:
    return [float(np.ravel(variable.numpy())[0]) for group in variables.values() for variable in group]


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", keep=2)


def steps(checkpoints: Checkpoints) -> list[int]:
    return [checkpoint.step for checkpoint in checkpoints.all()]


def test_a_checkpoint_gives_the_values_back(checkpoints):
    saved = checkpoints.save(7, state(7), info={"epoch": 1})
    assert checkpoints.last() == saved
    assert json.loads((saved.path / "info.json").read_text()) == {"step": 7, "epoch": 1}
    sums = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=saved.path, capture_output=True, text=True, check=True)
    assert sums.stdout.count(": OK") == len(list(saved.path.iterdir())) - 1
    other = state(0)
    saved.restore(other)
    assert numbers(other) == [7, -7, 7]


def test_variables_have_their_canonical_names_in_the_files(tmp_path):
    described = runs.experiment(precision="mixed_float16", ema_decay=0.9)
    model = make_model(described, num_classes=10, steps_per_epoch=5)
    run = {"stack": model.stack.variables, "optimizer": model.optimizer.variables, "ema": model.ema}
    saved = Checkpoints(tmp_path).save(1, {**run, "run": [model.step, *model.means.variables]})
    weights = ("conv.kernel", "norm.gamma", "norm.beta", "fc.kernel", "fc.bias")
    values = (*weights, "norm.moving_mean", "norm.moving_variance")
    counters = ("iteration", "learning_rate", "step_counter", "dynamic_scale", "iteration.2")
    assert set(tf.train.load_checkpoint(str(saved.path / "state")).get_variable_to_shape_map()) == {
        *(f"{group}/{name}" for group in ("stack", "ema") for name in values),
        *(f"optimizer/{name}/momentum" for name in weights),
        *(f"optimizer/{name}" for name in counters),
        *("run/step", "run/total", "run/count"),
    }


@dataclasses.dataclass(frozen=True)
class TwoSpec:
    order: str = "ab"
    width: int = divided(by_split, width=1, default=4)


@register_backbone("two_alike", TwoSpec())
def two_alike(spec, image, *, draw, num_classes):
    made = [layers.conv(image, spec.width, 3, name=name) for name in spec.order]
    return layers.classifier(keras.layers.Add()(made), num_classes, dropout=0.0, draw=draw)


def test_layers_that_are_made_in_another_order_get_their_own_weights_and_momentum(tmp_path):
    models = [
        make_model(runs.experiment(backbone="two_alike", overrides={"order": order}), num_classes=10, steps_per_epoch=5)
        for order in ("ab", "ba")
    ]
    rng = np.random.default_rng(0)
    for variable in (*models[0].optimizer.variables, *models[0].stack.variables):
        variable.assign(rng.integers(1, 99, variable.shape).astype(variable.dtype))
    one, other = ({"stack": model.stack.variables, "optimizer": model.optimizer.variables} for model in models)
    Checkpoints(tmp_path).save(1, one).restore(other)
    assert [variable.name for variable in one["stack"]] != [variable.name for variable in other["stack"]]
    for group in one:
        before, after = ({variable.name: variable.numpy() for variable in each[group]} for each in (one, other))
        assert all(np.array_equal(before[name], after[name]) for name in before) and set(before) == set(after)


@pytest.mark.parametrize("name", ["lr=[0.1]", "[a]/x", "a*", "a?", "a\\b", "a{b,c}", "[", "]"])
def test_no_name_of_a_folder_is_a_pattern(tmp_path, name):
    there = Checkpoints(tmp_path / name)
    there.save(1, state(1))
    assert there.restore_last(found := state(), report=pytest.fail).step == 1
    assert numbers(found) == [1, -1, 1]


def test_a_checkpoint_that_comes_while_another_is_read_is_not_taken_for_damaged(checkpoints, monkeypatch):
    checkpoints.save(1, state(1))
    check = Checkpoint.check

    def slow(self) -> None:
        check(self)
        Checkpoints(checkpoints.directory).save(2, state(2))  # another process

    monkeypatch.setattr(Checkpoint, "check", slow)
    assert checkpoints.restore_last(state(), report=pytest.fail).step == 1
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == ["000000001", "000000002"]


def test_an_empty_folder_has_none(checkpoints):
    assert checkpoints.all() == []
    assert checkpoints.last() is None
    checkpoints.remove_unfinished()


def test_the_last_ones_stay(checkpoints):
    for step in (1, 5, 30, 200):
        checkpoints.save(step, state(step))
    assert steps(checkpoints) == [30, 200]
    assert checkpoints.last().step == 200


def test_protected_ones_stay_besides(checkpoints):
    for step in range(1, 6):
        checkpoints.save(step, state(step), protected=[2])
    assert steps(checkpoints) == [2, 4, 5]
    checkpoints.save(6, state(6))
    assert steps(checkpoints) == [5, 6]


def test_a_step_is_saved_once(checkpoints):
    checkpoints.save(3, state(3))
    checkpoints.save(3, state(4))
    again = state()
    checkpoints.last().restore(again)
    assert numbers(again) == [3, -3, 3]


def test_a_group_can_be_read_alone(checkpoints):
    saved = checkpoints.save(7, state(7))
    stack = {"stack": state()["stack"]}
    saved.restore(stack, partial=True)
    assert numbers(stack) == [7, -7]
    with pytest.raises(InputError, match=r"checkpoint cannot be read"):
        saved.restore(stack)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def truncate(path):
    path.write_bytes(path.read_bytes()[:3])


def remove(path):
    path.unlink()


PARTS = ["state.index", "state.data-00000-of-00001", "info.json", "SHA256SUMS"]


@pytest.mark.parametrize("damage", [flip, truncate, remove])
@pytest.mark.parametrize("part", PARTS)
def test_a_damaged_checkpoint_is_refused_by_name(checkpoints, damage, part):
    saved = checkpoints.save(7, state(7))
    damage(saved.path / part)
    with pytest.raises(InputError) as error:
        saved.restore(state())
    assert tiny.one_line(error.value, says=str(saved.path))
    assert "remove that folder" in str(error.value)


def test_a_file_that_is_not_accounted_for_is_refused(checkpoints):
    saved = checkpoints.save(7, state(7))
    (saved.path / "state.data-00001-of-00002").touch()
    with pytest.raises(InputError, match=r"state.data-00001-of-00002 is damaged or missing"):
        saved.check()


@given(data=hypothesis.strategies.data())
@settings(max_examples=60, deadline=None)
def test_one_flipped_bit_anywhere_never_gives_a_wrong_value(tmp_path_factory, data):
    checkpoints = Checkpoints(tmp_path_factory.mktemp("checkpoints"))
    checkpoints.save(1, state(1))
    saved = checkpoints.save(2, state(2))
    path = saved.path / data.draw(hypothesis.strategies.sampled_from(PARTS))
    content = bytearray(path.read_bytes())
    bit = data.draw(hypothesis.strategies.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))
    restored, lines = state(), []
    assert checkpoints.restore_last(restored, report=lines.append).step == 1
    assert numbers(restored) == [1, -1, 1]
    assert len(lines) == 1 and str(saved.path) in lines[0]
    assert steps(checkpoints) == [1]  # the damaged one is set aside


def test_when_all_are_damaged_nothing_begins_anew(checkpoints):
    for step in (1, 2):
        flip(checkpoints.save(step, state(step)).path / "info.json")
    lines = []
    with pytest.raises(InputError, match=r"All checkpoints are damaged. Received: .* with 2; remove it"):
        checkpoints.restore_last(state(), report=lines.append)
    assert len(lines) == 2 and steps(checkpoints) == [1, 2]


def other_shape() -> dict:
    return state(size=4)


def more_variables() -> dict:
    return {**state(), "optimizer": [keras.Variable(0.0)]}


def fewer_variables() -> dict:
    return {"stack": state()["stack"]}


@pytest.mark.parametrize("other", [other_shape, more_variables, fewer_variables])
def test_a_checkpoint_of_other_variables_is_refused(checkpoints, other):
    saved = checkpoints.save(7, state(7))
    with pytest.raises(InputError) as error:
        saved.restore(other())
    assert tiny.one_line(error.value, says="checkpoint cannot be read")


def test_what_is_unfinished_is_no_checkpoint(checkpoints, tmp_path):
    checkpoints.save(1, state(1))
    unfinished = tmp_path / "checkpoints" / ".unfinished-000000002"
    unfinished.mkdir()
    assert steps(checkpoints) == [1]
    checkpoints.remove_unfinished()
    assert steps(checkpoints) == [1]
    assert not unfinished.exists()


def test_what_was_half_removed_is_set_aside_and_saved_anew(checkpoints, tmp_path):
    checkpoints.save(2, state(2))
    half = tmp_path / "checkpoints" / "000000003"
    half.mkdir()
    (half / "state.index").touch()
    assert checkpoints.restore_last(state(), report=lambda line: None).step == 2
    checkpoints.save(3, state(3))
    again = state()
    checkpoints.last().restore(again)
    assert numbers(again) == [3, -3, 3]
    assert {path.name for path in half.parent.iterdir()} == {"000000002", "000000003", "damaged-000000003"}


# In a thread, while training goes on.


def test_what_is_written_is_the_moment_of_the_save(checkpoints):
    with tf.device("CPU:0"):
        weights = keras.Variable(np.zeros(500_000, np.float32))
        optimizer = SGD(1.0, momentum=0.9)
        optimizer.build([weights])
    kept, writer = {"stack": [weights], "optimizer": optimizer.variables}, CheckpointWriter(checkpoints, report=print)
    step = tf.function(lambda: optimizer.apply([tf.ones_like(weights)], [weights]), autograph=False)
    values = []
    for count in range(1, 4):
        step()
        values.append(weights.numpy().copy())
        writer.save(count, kept)
        for _ in range(3):
            step()  # the update writes in place, unless the value is in use
        assert writer.wait()
    for checkpoint in checkpoints.all():
        checkpoint.restore(kept)
        np.testing.assert_array_equal(weights, values[checkpoint.step - 1])


def test_a_disk_that_is_full_is_reported_and_training_goes_on(checkpoints, monkeypatch):
    lines = []
    writer = CheckpointWriter(checkpoints, report=lines.append)
    writer.save(1, state(1))
    assert writer.wait() and not lines

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        writer.save(2, state(2))
        assert not writer.wait() and not writer.check()
    assert len(lines) == 1 and "step 2" in lines[0] and "No space left" in lines[0] and "000000001" in lines[0]
    assert steps(checkpoints) == [1]
    writer.save(2, state(2))
    assert writer.wait() and steps(checkpoints) == [1, 2]


def test_another_error_of_the_thread_is_raised(checkpoints, monkeypatch):
    writer = CheckpointWriter(checkpoints, report=print)
    monkeypatch.setattr(Checkpoints, "write", lambda *_, **__: 1 / 0)
    writer.save(1, state(1))
    with pytest.raises(ZeroDivisionError):
        writer.wait()


def test_a_worker_that_does_not_write_leaves_nothing(checkpoints):
    writer = CheckpointWriter(checkpoints, report=print, writes=False)
    writer.save(1, state(1))
    assert writer.wait() and checkpoints.all() == []


SAVE = """
import os, pathlib, signal, sys
import keras, numpy as np
from divco_tf.runs.records.checkpoints import Checkpoints
folder, moment = pathlib.Path(sys.argv[1]), int(sys.argv[2])
checkpoints = Checkpoints(folder, keep=1)
checkpoints.save(1, {"stack": [keras.Variable(np.ones(1000))]})
calls = 0
def killing(call):
    def counted(*arguments, **options):
        global calls
        calls += 1
        if calls == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return counted
for name in ("fsync", "rename", "replace", "unlink", "rmdir"):
    setattr(os, name, killing(getattr(os, name)))
checkpoints.save(2, {"stack": [keras.Variable(np.full(1000, 2.0))]})
print("calls", calls)
"""


@pytest.mark.parametrize("moment", [1, 5, 8, 11])
def test_a_killed_process_leaves_complete_checkpoints(tmp_path, moment):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", SAVE, str(tmp_path / "c"), str(moment)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == -9, process.stdout + process.stderr
    checkpoints = Checkpoints(tmp_path / "c", keep=1)
    checkpoints.remove_unfinished()
    assert checkpoints.all()
    for checkpoint in checkpoints.all():
        restored = {"stack": [keras.Variable(np.zeros(1000))]}
        checkpoint.restore(restored)
        np.testing.assert_array_equal(restored["stack"][0], checkpoint.step)


def test_at_least_one_is_kept(tmp_path):
    with pytest.raises(InputError, match=r"At least one checkpoint is kept. Received: keep=0"):
        Checkpoints(tmp_path, keep=0)


@pytest.mark.parametrize(("before", "after"), [("mirrored", "one_device"), ("one_device", "mirrored")])
def test_a_run_goes_on_under_another_strategy(checkpoints, before, after):
    def model(strategy: str) -> CoTrainingModel:
        with make_strategy(strategy).scope():
            model = CoTrainingModel(tiny.lively(tiny.tiny_stack()), jit="off")
            model.compile(SGD(0.1))
        return model

    def groups(model: CoTrainingModel) -> dict:
        run = [model.step, model.bad_steps]
        return {"stack": model.stack.variables, "optimizer": model.optimizer.variables, "run": run}

    views, soft = tiny.batch()
    first, second = model(before), model(after)
    first.fit(views, soft, verbose=0)
    saved = checkpoints.save(1, groups(first))
    saved.restore(groups(second))
    for group, variables in groups(first).items():
        for ours, theirs in zip(variables, groups(second)[group], strict=True):
            np.testing.assert_array_equal(ours, theirs)
            for value in second.distribute_strategy.experimental_local_results(theirs.value):
                np.testing.assert_array_equal(value, ours)


def test_a_checkpoint_is_found_by_its_step(checkpoints):
    saved = checkpoints.save(12, state())
    assert saved == Checkpoint(saved.path, 12)
    assert tf.train.load_checkpoint(str(saved.path / "state")).get_variable_to_shape_map()
