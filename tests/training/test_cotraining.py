import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.models.branch_stack import BranchStack
from divco_tf.training import losses
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.optimizer import SGD
from tests import tiny
from tests.tiny import batch, lively, tiny_stack

CLASSES = np.array([0, 1, 2, 2, 1, 0, 1, 2])


def compiled(stack: BranchStack | None = None, *, optimizer=None, compile_options=None, **options) -> CoTrainingModel:
    model = CoTrainingModel(lively(tiny_stack()) if stack is None else stack, **options)
    model.compile(optimizer or SGD(0.1), **(compile_options or {}))
    return model


def loss_values(logits: np.ndarray, targets: np.ndarray, weight: float = 0.5) -> np.ndarray:
    """The paper's loss of each example, in float64."""
    logits = logits.astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    mean = p.mean(1)
    cross_entropy = -(targets[:, None] * np.log(p)).sum((1, 2))
    divergence = -(mean * np.log(mean)).sum(-1) + (p * np.log(p)).sum(-1).mean(-1)
    return cross_entropy + weight * divergence


def test_evaluate_gives_the_papers_loss_and_every_accuracy():
    views, _ = batch()
    model = compiled()
    results = model.evaluate(views, CLASSES, batch_size=3, verbose=0, return_dict=True)
    logits = model.stack(views).numpy()
    assert results["loss"] == pytest.approx(loss_values(logits, np.eye(3)[CLASSES]).mean(), rel=1e-5)
    assert results["loss"] == pytest.approx(results["cross_entropy"] + results["cotraining"], rel=1e-6)
    for branch in range(2):
        assert results[f"branch{branch}_accuracy"] == pytest.approx(np.mean(logits[:, branch].argmax(-1) == CLASSES))
    assert results["accuracy"] == pytest.approx(np.mean(logits.mean(1).argmax(-1) == CLASSES))
    assert set(results) == {"loss", "cross_entropy", "cotraining", "accuracy", "branch0_accuracy", "branch1_accuracy"}


@pytest.mark.parametrize("method", losses.ENSEMBLING)
def test_predict_gives_the_ensembles_probabilities(method):
    views, _ = batch(7)
    model = compiled(ensembling=method)
    probabilities = model.predict(views, batch_size=3, verbose=0)
    assert probabilities.shape == (7, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(probabilities, losses.ensemble_probabilities(model.stack(views), method), rtol=1e-5)
    np.testing.assert_allclose(model(views), probabilities, rtol=1e-5)
    results = model.evaluate(views, probabilities.argmax(1), verbose=0, return_dict=True)
    assert results["accuracy"] == 1


def test_images_and_views_may_follow_each_other():
    views, _ = batch()
    model, images = compiled(), views[:, 0]
    repeated = np.repeat(images[:, None], 2, axis=1)
    for data in (images, repeated, images):
        np.testing.assert_allclose(model.predict(data, verbose=0), model(images), rtol=1e-5)
        model.train_on_batch(data, CLASSES)


def labels_in_all_forms() -> dict[str, np.ndarray]:
    one_hot = np.eye(3)[CLASSES]
    return {
        "int64": CLASSES,
        "uint8 column": CLASSES.astype(np.uint8)[:, None],
        "float64 one-hot": one_hot,
        "int one-hot": one_hot.astype(np.int32),
    }


def test_labels_may_be_classes_or_probabilities():
    views, _ = batch()
    values = {
        form: compiled().evaluate(views, labels, verbose=0, return_dict=True)
        for form, labels in labels_in_all_forms().items()
    }
    for form in values:
        assert values[form] == pytest.approx(values["int64"], rel=1e-6), form


def test_soft_labels_and_smoothing_train_as_written():
    views, soft = batch()
    model = compiled(label_smoothing=0.1)
    smoothed = 0.9 * soft + 0.1 / 3
    # Statistics of the batch: training normalises by them.
    logits = np.stack([model.stack.branch(i)(views[:, i], training=True).numpy() for i in range(2)], axis=1)
    results = model.train_on_batch(views, soft, return_dict=True)
    assert results["loss"] == pytest.approx(loss_values(logits, smoothed).mean(), rel=1e-4)


def supervised_updates(jit: str) -> float:
    """Largest difference between S=1 and a plain Keras model after three steps."""
    stack = lively(tiny_stack(split_factor=1))
    plain = stack.branch(0)
    plain.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model = compiled(stack, optimizer=keras.optimizers.SGD(0.1, momentum=0.9), jit=jit)
    for step in range(3):
        views, _ = batch(split_factor=1, seed=step)
        ours = model.train_on_batch(views, CLASSES, return_dict=True)
        theirs = plain.train_on_batch(views[:, 0], CLASSES, return_dict=True)
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        model.reset_metrics(), plain.reset_metrics()
    return tiny.largest_difference(tiny.values(stack.branch(0).variables), tiny.values(plain.variables))


@pytest.mark.parametrize("jit", ["off", "on"])
def test_one_branch_is_ordinary_supervised_training(jit):
    assert supervised_updates(jit) < 1e-5


def test_two_branches_without_cotraining_are_two_supervised_trainings():
    stack = lively(tiny_stack())
    plain = [stack.branch(index) for index in range(2)]
    model = compiled(stack, cotraining=CoTraining(weight=0.0), optimizer=keras.optimizers.SGD(0.1))
    views, _ = batch()
    model.train_on_batch(views, CLASSES)
    for index, branch in enumerate(plain):
        branch.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        branch.train_on_batch(views[:, index], CLASSES)
        difference = tiny.largest_difference(tiny.values(stack.branch(index).variables), tiny.values(branch.variables))
        assert difference < 1e-6


@pytest.mark.parametrize("loss", ["js", "kl"])
def test_cotraining_draws_branches_together(loss):
    def divergence(weight: float) -> float:
        model = compiled(lively(tiny_stack("tiny_no_norm")), cotraining=CoTraining(loss=loss, weight=weight))
        views, _ = batch()
        for _ in range(30):
            model.train_on_batch(views, CLASSES)
        return float(np.mean(losses.jensen_shannon(model.stack(views))))

    assert divergence(4.0) < 0.75 * divergence(0.0)


def test_the_cotraining_weight_follows_the_steps():
    model = compiled(cotraining=CoTraining(weight=1.0, warmup_epochs=2, floor=0.01), steps_per_epoch=2)
    views, _ = batch()
    weights = []
    for _ in range(6):
        weights.append(float(model.cotraining_weight()))
        model.train_on_batch(views, CLASSES)
    assert weights == pytest.approx([0.01, 0.01, 0.5, 0.5, 1.0, 1.0])
    assert int(model.step.numpy()) == 6


def test_sample_weights_weigh_examples():
    views, _ = batch()
    keep = np.array([1, 1, 1, 1, 0, 0, 0, 0])
    whole, half = (compiled(lively(tiny_stack("tiny_no_norm"))) for _ in range(2))
    ours = whole.train_on_batch(views, CLASSES, sample_weight=2 * keep, return_dict=True)
    theirs = half.train_on_batch(views[:4], CLASSES[:4], return_dict=True)
    # The loss is over the whole batch: 2 * 4 / 8 of the examples' weight.
    assert tiny.largest_difference(tiny.values(whole.stack.variables), tiny.values(half.stack.variables)) < 1e-6
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
    assert ours["accuracy"] == pytest.approx(theirs["accuracy"])


@pytest.mark.parametrize("jit", ["off", "on"])
@pytest.mark.parametrize("count", [2, 4])
def test_micro_batches_are_the_whole_batch_without_normalisation(count, jit):
    if jit == "on" and count != 2:
        pytest.skip("one size shows it")
    views, soft = batch()
    models = []
    for micro_batches in (1, count):
        stack = lively(tiny_stack("tiny_no_norm", dropout=0.6))
        model = compiled(stack, micro_batches=micro_batches, jit=jit, seed=3, optimizer=SGD(0.1, weight_decay=1e-3))
        for _ in range(3):
            results = model.train_on_batch(views, soft, return_dict=True)
        models.append((tiny.values(stack.variables), results))
    assert tiny.largest_difference(models[0][0], models[1][0]) < 1e-6
    assert models[0][1] == pytest.approx(models[1][1], rel=1e-5)


@pytest.mark.parametrize("ways", [("remat",), ("branches_in_turn",), ("remat", "branches_in_turn")])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_less_memory_changes_no_update(ways, micro_batches):
    views, soft = batch()
    models = []
    for options in ({}, dict.fromkeys(ways, True)):
        model = compiled(lively(tiny_stack(dropout=0.6)), micro_batches=micro_batches, seed=3, **options)
        for _ in range(2):
            model.train_on_batch(views, soft)
        models.append(tiny.values(model.stack.variables))
    assert tiny.largest_difference(*models) < 1e-6


def test_statistics_are_the_mean_over_micro_batches():
    views, soft = batch()
    stack = lively(tiny_stack())
    halves = []
    for half in (views[:4], views[4:]):
        branch = stack.branch(1)
        branch(half[:, 1], training=True)
        halves.append(tiny.values(branch.non_trainable_variables))
    compiled(stack, micro_batches=2).train_on_batch(views, soft)
    for variable, one, other in zip(stack.branch(1).non_trainable_variables, *halves, strict=True):
        np.testing.assert_allclose(variable, (one + other) / 2, rtol=1e-5)


def test_micro_batches_must_divide_the_batch():
    views, soft = batch(7)
    with pytest.raises(InputError, match=r"not divided by micro_batches=2. Received: 7"):
        compiled(micro_batches=2).train_on_batch(views, soft)
    # Where the size is known at run time only, the step says so.
    unknown = tf.TensorSpec([None, *views.shape[1:]]), tf.TensorSpec([None, 3])
    model = compiled(micro_batches=2)
    step = tf.function(lambda *data: model.train_step(data), input_signature=unknown)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"micro_batches=2 does not divide"):
        step(views, soft)


@pytest.mark.parametrize("source", ["numpy", "tf.data"])
def test_fit_learns_from_arrays_and_datasets(source):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    views = (rng.standard_normal((60, 2, 8, 8, 3)) * 0.3).astype(np.float32)
    views[np.arange(60), ..., labels] += 1  # each class a colour
    model = compiled(tiny_stack(), optimizer=SGD(0.3))
    data = {"x": views, "y": labels, "batch_size": 16}
    if source == "tf.data":
        data = {"x": tf.data.Dataset.from_tensor_slices((views, labels)).batch(16)}
    history = model.fit(**data, epochs=8, verbose=0, validation_data=(views[:, 0], labels)).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["val_accuracy"][-1] > 0.9
    assert int(model.optimizer.iterations.numpy()) == int(model.step.numpy()) == 8 * 4
    assert int(model.bad_steps.numpy()) == 0


def test_a_step_is_traced_once_over_epochs():
    model = compiled(tiny_stack(split_factor=4))
    views, labels = batch(16, split_factor=4)
    model.fit(views, labels, batch_size=8, verbose=0)
    tiny.TRACES.clear()
    model.fit(views, labels, batch_size=8, epochs=2, verbose=0)
    assert tiny.TRACES == []


def test_keras_callbacks_work(tmp_path):
    views, _ = batch()
    model = compiled(optimizer=SGD(0.0))
    history = model.fit(
        views,
        CLASSES,
        epochs=5,
        verbose=0,
        callbacks=[
            keras.callbacks.ModelCheckpoint(tmp_path / "w.weights.h5", save_weights_only=True),
            keras.callbacks.ModelCheckpoint(tmp_path / "m.keras"),
            keras.callbacks.EarlyStopping(monitor="cross_entropy", mode="min", patience=1, min_delta=100),
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
        ],
    ).history
    assert len(history["loss"]) == 2
    assert (tmp_path / "log.csv").read_text().startswith("epoch,accuracy,branch0_accuracy,")
    other = compiled(tiny_stack(seed=8))
    other.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(other.predict(views, verbose=0), model.predict(views, verbose=0))
    assert int(other.step.numpy()) == 2


def test_users_metrics_see_the_ensembles_probabilities():
    views, _ = batch()
    metrics = [
        keras.metrics.SparseCategoricalAccuracy(name="theirs"),
        keras.metrics.SparseCategoricalCrossentropy(name="nll"),
    ]
    model = compiled(compile_options={"metrics": metrics})
    results = model.evaluate(views, CLASSES, batch_size=3, verbose=0, return_dict=True)
    probabilities = model.predict(views, verbose=0)
    assert results["theirs"] == pytest.approx(results["accuracy"])
    assert results["nll"] == pytest.approx(-np.mean(np.log(probabilities[np.arange(8), CLASSES])), rel=1e-5)
    history = model.fit(views, CLASSES, verbose=0).history
    assert {"theirs", "nll", "loss"} <= set(history)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
def test_the_whole_model_saves_and_loads_and_goes_on(precision, tmp_path):
    views, soft = batch()
    options = {
        "cotraining": CoTraining(loss="kl", weight=0.3, warmup_epochs=1),
        "steps_per_epoch": 4,
        "ensembling": "max_probabilities",
        "label_smoothing": 0.1,
        "micro_batches": 2,
        "remat": True,
        "branches_in_turn": True,
        "seed": 5,
    }
    stack = lively(tiny_stack(dropout=0.5, precision=precision))
    model = compiled(stack, optimizer=SGD(0.1, weight_decay=1e-3), **options)
    model.fit(views, soft, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == model.get_config()
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for each in (model, loaded):
        each.fit(views, soft, epochs=2, shuffle=False, verbose=0)
    assert tiny.largest_difference(tiny.values(model.variables), tiny.values(loaded.variables)) == 0
    np.testing.assert_array_equal(loaded.predict(views, verbose=0), model.predict(views, verbose=0))


def test_dropout_is_resumed_at_its_step():
    views, soft = batch()

    def run(pause: int) -> list[np.ndarray]:
        weights = None
        for first, last in ((0, pause), (pause, 4)):
            stack = lively(tiny_stack("tiny_no_norm", dropout=0.9))
            model = compiled(stack, optimizer=keras.optimizers.SGD(0.1), seed=2)
            if weights:
                model.set_weights(weights)
            for _ in range(first, last):
                model.train_on_batch(views, soft)
            weights = model.get_weights()
        return weights

    assert tiny.largest_difference(run(1), run(3)) == 0


@pytest.mark.parametrize("optimizer", [lambda: SGD(0.1), lambda: keras.optimizers.Adam(0.1)], ids=["SGD", "Adam"])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(optimizer):
    model = compiled(optimizer=optimizer())
    views, soft = batch()
    model.train_on_batch(views, soft)
    kept = tiny.values([*model.stack.variables, *model.optimizer.variables])
    bad = views.copy()
    bad[3, 1, 0, 0, 0] = np.nan
    for count in (1, 2):
        model.train_on_batch(bad, soft)
        assert int(model.bad_steps.numpy()) == count
    assert tiny.largest_difference(kept, tiny.values([*model.stack.variables, *model.optimizer.variables])) == 0
    assert int(model.step.numpy()) == 3
    model.train_on_batch(views, soft)
    assert int(model.bad_steps.numpy()) == 0
    assert tiny.largest_difference(kept, tiny.values([*model.stack.variables, *model.optimizer.variables])) > 0


def test_a_gradient_that_overflows_lowers_the_loss_scale_only():
    scaled = keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=2.0**127)
    model = compiled(optimizer=scaled)
    views, soft = batch()
    views *= 1e3
    kept = tiny.values(model.stack.trainable_variables)
    model.train_on_batch(views, soft)
    assert tiny.largest_difference(kept, tiny.values(model.stack.trainable_variables)) == 0
    assert float(scaled.dynamic_scale.numpy()) == 2.0**126
    assert int(model.bad_steps.numpy()) == 0


def test_float16_trains_as_float32_does():
    weights = []
    for precision in ("float32", "mixed_float16", "mixed_bfloat16"):
        stack = lively(tiny_stack(precision=precision))
        model = compiled(stack)
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
        views, soft = batch()
        for _ in range(3):
            model.train_on_batch(views, soft)
        weights.append(tiny.values(stack.trainable_variables))
    assert 0 < tiny.largest_difference(weights[0], weights[1]) < 0.01
    assert 0 < tiny.largest_difference(weights[0], weights[2]) < 0.05


def test_a_loss_scale_of_the_users_is_not_scaled_again():
    stack = tiny_stack(precision="mixed_float16")
    model = compiled(stack, optimizer=keras.optimizers.LossScaleOptimizer(SGD(0.1), initial_scale=8.0))
    assert isinstance(model.optimizer.inner_optimizer, SGD)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stack": "resnet110"}, "pass divco_tf.build(...)"),
        ({"cotraining": 0.5}, "pass CoTraining("),
        ({"cotraining": CoTraining(warmup_epochs=3)}, "pass steps_per_epoch"),
        ({"ensembling": "median"}, "pass one of mean_logits"),
        ({"label_smoothing": 1.0}, "pass a number, 0 or more and below 1"),
        ({"micro_batches": 0}, "pass a whole number, 1 or more"),
        ({"micro_batches": 1.5}, "Received: 1.5; pass a whole number"),
        ({"jit": True}, "pass one of auto, on, off"),
    ],
    ids=lambda value: str(list(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_refused_in_one_line(options, says):
    with pytest.raises(InputError) as error:
        CoTrainingModel(**{"stack": tiny_stack(), **options})
    assert tiny.one_line(error.value, says=says)


@pytest.mark.parametrize(("option", "value"), [("loss", "mse"), ("jit_compile", True)])
def test_what_keras_would_take_twice_is_refused(option, value):
    with pytest.raises(InputError, match=rf"compile takes no {option} here. Received: {option}="):
        CoTrainingModel(tiny_stack()).compile("sgd", **{option: value})


@pytest.mark.parametrize("shape", [(8, 3, 8, 8, 3), (8, 2, 8, 8, 1), (8, 9, 8, 3)])
def test_views_that_do_not_fit_are_refused_in_one_line(shape):
    views = np.zeros(shape, np.float32)
    for call in (lambda model: model.train_on_batch(views, CLASSES), lambda model: model.predict(views, verbose=0)):
        with pytest.raises(InputError) as error:
            call(compiled())
        assert tiny.one_line(error.value, says="pass [B, 2, 8, 8, 3] or [B, 8, 8, 3]")


def test_labels_of_other_classes_are_refused():
    with pytest.raises(InputError, match=r"Labels and logits do not fit. Received: "):
        compiled().train_on_batch(batch()[0], np.zeros((8, 4), np.float32))
