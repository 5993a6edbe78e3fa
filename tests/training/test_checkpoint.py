import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.training.checkpoint import Checkpoint, Checkpoints
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.optimizers import SGD
from divco_tf.training.runtime import make_strategy
from tests import tiny


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
    other = state(0)
    saved.restore(other)
    assert numbers(other) == [7, -7, 7]


def test_an_empty_folder_has_none(checkpoints):
    assert checkpoints.all() == []
    assert checkpoints.last() is None
    assert checkpoints.best() is None
    checkpoints.remove_unfinished()


def test_the_last_ones_stay(checkpoints):
    for step in (1, 5, 30, 200):
        checkpoints.save(step, state(step))
    assert steps(checkpoints) == [30, 200]
    assert checkpoints.last().step == 200


def test_the_best_stays_besides(checkpoints):
    for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.9), (4, 0.7), (5, 0.1)):
        better = checkpoints.mark_best(checkpoints.save(step, state(step)), accuracy)
        assert better == (step < 3)  # the first of equals
    assert steps(checkpoints) == [2, 4, 5]
    best = state()
    checkpoints.best().restore(best)
    assert numbers(best) == [2, -2, 2]


def test_a_new_best_lets_the_old_one_go(checkpoints):
    for step in range(1, 6):
        checkpoints.mark_best(checkpoints.save(step, state(step)), step / 10)
    assert steps(checkpoints) == [4, 5]
    assert checkpoints.best().step == 5


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


@pytest.mark.parametrize("damage", [flip, truncate, remove])
@pytest.mark.parametrize("part", ["state.index", "state.data-00000-of-00001"])
def test_a_damaged_checkpoint_is_refused_by_name(checkpoints, damage, part):
    saved = checkpoints.save(7, state(7))
    damage(saved.path / part)
    with pytest.raises(InputError) as error:
        saved.restore(state())
    assert tiny.one_line(error.value, says=str(saved.path))
    assert "remove that folder" in str(error.value)


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
    folder = tmp_path / "checkpoints"
    (folder / ".unfinished-000000002").mkdir()
    (folder / "000000003").mkdir()  # its info.json is gone: half removed
    assert steps(checkpoints) == [1]
    checkpoints.remove_unfinished()
    assert steps(checkpoints) == [1]
    assert not (folder / ".unfinished-000000002").exists()


def test_what_was_half_removed_can_be_saved_anew(checkpoints, tmp_path):
    half = tmp_path / "checkpoints" / "000000003"
    half.mkdir(parents=True)
    (half / "state.index").touch()
    checkpoints.save(3, state(3))
    again = state()
    assert checkpoints.last() is not None
    checkpoints.last().restore(again)
    assert numbers(again) == [3, -3, 3]


SAVE = """
import os, pathlib, signal, sys
import keras, numpy as np
from divco_tf.training.checkpoint import Checkpoints
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
checkpoints.mark_best(checkpoints.save(2, {"stack": [keras.Variable(np.full(1000, 2.0))]}), 0.5)
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
    if checkpoints.best() is not None:
        assert checkpoints.best().step == 2


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
