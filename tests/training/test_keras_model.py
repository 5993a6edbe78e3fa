"""What Keras's users do with a model: callbacks, freezing, exporting, checkpoints, all kinds of data."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.learning_rate import LearningRate
from divco_tf.training.optim.optimizer import SGD
from divco_tf.training.optim.rules import AdamW
from tests import tiny

CLASSES = np.array([0, 1, 2, 2, 1, 0, 1, 2])
VIEWS = tiny.batch()[0]


def compiled(optimizer=None, *, compile_options=None, seed=1, **options) -> CoTrainingModel:
    model = CoTrainingModel(tiny.lively(tiny.tiny_stack(seed=seed), seed), **options)
    model.compile(optimizer or SGD(0.1), **(compile_options or {}))
    return model


def test_callbacks_know_which_way_every_value_improves(tmp_path):
    model = compiled(compile_options={"metrics": [keras.metrics.AUC(name="auc")]})
    callbacks = keras.callbacks
    up = ("accuracy", "val_accuracy", "val_branch0_accuracy", "branch1_accuracy", "val_auc")
    for monitor in (*up, "loss", "val_loss", "val_cross_entropy", "cotraining"):
        for callback in (
            callbacks.EarlyStopping(monitor),
            callbacks.ReduceLROnPlateau(monitor),
            callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor, save_best_only=True),
        ):
            callback.set_model(model)
            callback.on_train_begin()
            callback._set_monitor_op()
            assert bool(callback.monitor_op(2, 1)) == (monitor in up), (monitor, type(callback).__name__)


def test_early_stopping_keeps_the_best_accuracy():
    model = compiled(SGD(1e-6))
    callback = keras.callbacks.EarlyStopping("val_accuracy", patience=2, restore_best_weights=True)
    history = model.fit(VIEWS, CLASSES, validation_data=(VIEWS, CLASSES), epochs=9, verbose=0, callbacks=[callback])
    assert len(history.epoch) == 3 and callback.best_epoch == 0


def everything(model: CoTrainingModel) -> None:
    model.trainable = False


def the_stack(model: CoTrainingModel) -> None:
    model.stack.trainable = False


def all_but_the_head(model: CoTrainingModel) -> None:
    for variable in list(model.stack.trainable_variables):
        variable.trainable = variable.name.startswith("fc.")


def one_kernel(model: CoTrainingModel) -> None:
    model.stack.trainable_variables[0].trainable = False


def moved(model: CoTrainingModel, **options) -> set[str]:
    """Names of the weights and of the averages that `fit` changes."""
    before = {variable.name: variable.numpy() for variable in (*model.stack.branch_weights, *model.ema)}
    model.fit(VIEWS, CLASSES, epochs=3, verbose=0, **options)
    after = {variable.name: variable.numpy() for variable in (*model.stack.branch_weights, *model.ema)}
    return {name for name in before if not np.array_equal(before[name], after[name]) and "moving" not in name}


@pytest.mark.parametrize("freeze", [everything, the_stack, all_but_the_head, one_kernel])
@pytest.mark.parametrize("when", ["before", "after"])
def test_fit_moves_exactly_what_is_not_frozen(freeze, when):
    model = CoTrainingModel(tiny.lively(tiny.tiny_stack()), ema_decay=0.5, micro_batches=2)
    expected = model.predict(VIEWS, verbose=0)
    if when == "after":
        model.compile(SGD(0.1))
    freeze(model)
    np.testing.assert_array_equal(model.predict(VIEWS, verbose=0), expected)
    if when == "before":
        model.compile(SGD(0.1))
    trained = {variable.name for variable in model.stack.trainable_variables}
    assert moved(model) == trained | {f"ema.{name}" for name in trained}
    if freeze in (everything, the_stack):
        np.testing.assert_array_equal(model.predict(VIEWS, verbose=0), expected)
    assert int(model.step.numpy()) == 3 and int(model.bad_steps.numpy()) == 0


def test_freezing_between_two_fits_holds_without_another_compile():
    model = compiled()
    every = moved(model)
    all_but_the_head(model)
    assert moved(model) == {"fc.kernel", "fc.bias"}
    model.stack.trainable = False
    model.stack.trainable = True
    assert moved(model) == every


def test_what_the_optimizer_does_not_know_is_told_until_it_is_compiled_again():
    model = CoTrainingModel(tiny.lively(tiny.tiny_stack()))
    all_but_the_head(model)
    model.compile(SGD(0.1))
    model.stack.trainable = False
    model.stack.trainable = True
    with pytest.raises(InputError) as error:
        model.fit(VIEWS, CLASSES, verbose=0)
    assert tiny.one_line(error.value, says="call compile again")
    model.compile(SGD(0.1))
    assert "conv.kernel" in moved(model)


def test_a_frozen_stack_under_a_scaled_loss_trains_its_head():
    stack = tiny.lively(tiny.tiny_stack(precision="mixed_float16"))
    for variable in list(stack.trainable_variables):
        variable.trainable = variable.name.startswith("fc.")
    model = CoTrainingModel(stack)
    model.compile(SGD(0.1))
    assert moved(model) == {"fc.kernel", "fc.bias"}
    model.trainable = False
    model.compile(SGD(0.1))
    assert moved(model) == set()


@pytest.mark.parametrize("fitted", [False, True])
def test_export_serves_what_predict_gives(fitted, tmp_path):
    model = compiled()
    if fitted:
        model.fit(VIEWS, CLASSES, verbose=0)
    model.export(tmp_path / "saved", verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    images = VIEWS[:, 0]
    np.testing.assert_allclose(served.serve(images), model.predict(images, verbose=0), atol=1e-6)
    np.testing.assert_allclose(served.serve(images[:3]), model.predict(images[:3], verbose=0), atol=1e-6)


def test_export_takes_a_signature_and_branches_on_devices(tmp_path):
    model = CoTrainingModel(tiny.lively(tiny.tiny_stack(devices=["CPU:0", "CPU:1"])))
    signature = [keras.InputSpec(shape=(None, *VIEWS.shape[1:]), dtype="float32")]
    model.export(tmp_path / "saved", input_signature=signature, verbose=False)
    served = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(served.serve(VIEWS), model.predict(VIEWS, verbose=0), atol=1e-6)


def test_a_checkpoint_of_tensorflow_holds_all_of_a_model(tmp_path):
    model, other = (compiled(AdamW(0.01), ema_decay=0.9, seed=seed) for seed in (1, 2))
    model.fit(VIEWS, CLASSES, epochs=2, verbose=0)
    path = tf.train.Checkpoint(model=model).save(tmp_path / "checkpoint")
    tf.train.Checkpoint(model=other).restore(path)
    for one, two in zip(everything_of(model), everything_of(other), strict=True):
        np.testing.assert_array_equal(one, two, err_msg=one.path)


def everything_of(model: CoTrainingModel) -> list:
    return [*model.variables, *model.optimizer.variables]


def test_a_model_is_cloned_and_comes_back_from_its_config():
    model = compiled(cotraining=CoTraining(weight=0.2), label_smoothing=0.1, ema_decay=0.9)
    for copy in (keras.models.clone_model(model), CoTrainingModel.from_config(model.get_config())):
        assert copy.get_config() == model.get_config()
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(copy.predict(VIEWS, verbose=0), model.predict(VIEWS, verbose=0))


def test_no_cotraining_is_a_weight_of_nothing_and_the_default_is_the_papers():
    none, default, zero = (
        compiled(**options) for options in ({"cotraining": None}, {}, {"cotraining": CoTraining(weight=0)})
    )
    assert float(none.cotraining_weight()) == 0 and float(default.cotraining_weight()) == 0.5
    results = [model.train_on_batch(VIEWS, CLASSES, return_dict=True) for model in (none, zero)]
    assert results[0] == results[1] and results[0]["loss"] == results[0]["cross_entropy"]
    assert tiny.largest_difference(tiny.values(none.variables), tiny.values(zero.variables)) == 0
    assert CoTrainingModel.from_config(none.get_config()).cotraining == CoTraining(weight=0)


def generated(batches: int):
    for _ in range(batches):
        yield VIEWS, CLASSES


ENDLESS = tf.data.Dataset.from_tensors((VIEWS, CLASSES)).repeat()


class Batches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple:
        return VIEWS, CLASSES


@pytest.mark.parametrize(
    ("fit", "steps"),
    [
        (lambda model: model.fit(generated(3), verbose=0), 3),
        (lambda model: model.fit(generated(4), steps_per_epoch=2, epochs=2, verbose=0), 4),
        (lambda model: model.fit(Batches(), validation_data=Batches(), epochs=2, verbose=0), 4),
        (lambda model: model.fit(VIEWS, CLASSES, batch_size=2, validation_split=0.25, verbose=0), 3),
        (
            lambda model: model.fit(
                tf.data.Dataset.from_tensors((VIEWS, CLASSES)).repeat(), steps_per_epoch=2, verbose=0
            ),
            2,
        ),
    ],
    ids=["generator", "generator in epochs", "PyDataset", "validation_split", "endless dataset"],
)
def test_every_batch_of_every_kind_of_data_is_trained_on(fit, steps):
    model = compiled()
    fit(model)
    assert int(model.step.numpy()) == int(model.optimizer.iterations.numpy()) == steps


def test_a_generator_is_evaluated_whole():
    model = compiled()
    expected = model.evaluate(VIEWS, CLASSES, verbose=0)
    assert model.evaluate(generated(2), verbose=0) == pytest.approx(expected, rel=1e-5)
    assert float(model.means.count.numpy()) == 16


def test_several_steps_an_execution_are_those_steps():
    one, several = compiled(), compiled(compile_options={"steps_per_execution": 3})
    for model in (one, several):
        model.fit(VIEWS, CLASSES, batch_size=2, epochs=2, shuffle=False, verbose=0)
    assert tiny.largest_difference(tiny.values(one.variables), tiny.values(several.variables)) < 1e-6


@pytest.mark.parametrize("scaled", [False, True])
def test_both_schedules_go_by_the_updates_that_were_made(scaled):
    schedule = LearningRate(learning_rate=0.1, warmup_epochs=1).resolve(epochs=4, steps_per_epoch=4)
    optimizer = SGD(schedule)
    if scaled:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**127)
    ramp = CoTraining(weight=1.0, warmup_epochs=1, floor=0.0, per_step=True)
    model = compiled(optimizer, cotraining=ramp, steps_per_epoch=4)
    views = 1e3 * VIEWS if scaled else np.full_like(VIEWS, np.nan)
    model.train_on_batch(views, CLASSES)  # skipped
    assert int(model.step.numpy()) == 1
    assert float(model.cotraining_weight()) == 0 and float(optimizer.learning_rate) == 0
    if scaled:
        optimizer.dynamic_scale.assign(8.0)
    model.train_on_batch(VIEWS, CLASSES)
    assert float(model.cotraining_weight()) == pytest.approx(0.25)
    assert float(optimizer.learning_rate) == pytest.approx(0.025)


@pytest.mark.parametrize(
    "options",
    [
        {"remat": "False"},
        {"branches_in_turn": "False"},
        {"branches_in_turn": 1},
        {"remat": None},
        {"label_smoothing": "0.1"},
        {"label_smoothing": float("nan")},
        {"label_smoothing": True},
        {"micro_batches": True},
        {"micro_batches": "2"},
        {"seed": "1"},
        {"seed": 1.5},
        {"steps_per_epoch": "5"},
        {"steps_per_epoch": 0},
        {"ensembling": ["mean_logits"]},
        {"ema_decay": "0.9"},
        {"cotraining": {"weight": 1}},
        {"jit": None},
    ],
    ids=str,
)
def test_an_argument_of_another_type_is_refused_in_one_line(options):
    with pytest.raises(InputError) as error:
        CoTrainingModel(tiny.tiny_stack(), **options)
    assert tiny.one_line(error.value, says=repr(next(iter(options.values()))))


def test_numbers_of_numpy_are_numbers():
    model = CoTrainingModel(
        tiny.tiny_stack(), seed=np.int64(3), micro_batches=np.int32(2), label_smoothing=np.float64(0.5)
    )
    config = model.get_config()
    assert [config[name] for name in ("seed", "micro_batches", "label_smoothing")] == [3, 2, 0.5]
    assert type(config["seed"]) is int
