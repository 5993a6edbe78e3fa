"""Two mirrored devices do what one does (two logical CPUs, tests/conftest.py)."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.runs.evaluation import Predictor
from divco_tf.runtime.strategy import make_strategy
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.optimizer import SGD
from tests import tiny
from tests.tiny import batch, lively, tiny_stack

STEPS = 5


@pytest.fixture(scope="module")
def mirrored() -> tf.distribute.Strategy:
    return make_strategy("mirrored")


def make_model(strategy: tf.distribute.Strategy, stack: dict, *, optimizer=None, **options) -> CoTrainingModel:
    with strategy.scope():
        model = CoTrainingModel(
            lively(tiny_stack(**stack)), cotraining=CoTraining(weight=0.5), **{"jit": "on", "seed": 4, **options}
        )
        model.compile(optimizer() if optimizer else SGD(0.1))
    return model


def per_replica(strategy: tf.distribute.Strategy, arrays: tuple, sizes: tuple[int, ...]) -> tuple:
    """Contiguous shares of a batch, of the given sizes."""
    if strategy.num_replicas_in_sync == 1:
        return tuple(map(tf.convert_to_tensor, arrays))
    ends = np.cumsum((0, *sizes))

    def share(array: np.ndarray):
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.convert_to_tensor(
                array[ends[context.replica_id_in_sync_group] : ends[context.replica_id_in_sync_group + 1]]
            )
        )

    return tuple(share(array) for array in arrays)


def train(
    strategy: tf.distribute.Strategy,
    stack: dict,
    *,
    learning_rate: float,
    size: int = 8,
    sizes: tuple[int, ...] = (4, 4),
    order=None,
    **options,
) -> tuple[list, list]:
    """Weights and statistics after STEPS of a loop of its own, as `train()` has it."""
    model = make_model(strategy, stack, optimizer=lambda: SGD(learning_rate, weight_decay=5e-4), **options)
    function = tf.function(lambda *data: strategy.run(model.train_step, args=(data,)))
    for step in range(STEPS):
        arrays = batch(size, side=stack["input_shape"][0], seed=step)
        if order is not None:
            arrays = tuple(array[order] for array in arrays)
        function(*per_replica(strategy, arrays, sizes))
    assert int(model.step.numpy()) == STEPS
    assert int(model.bad_steps.numpy()) == 0
    return tiny.values(model.stack.trainable_variables), tiny.values(model.stack.non_trainable_variables)


PLAIN = {"name": "tiny_no_norm", "dropout": 0.5, "input_shape": (8, 8, 3)}
WIDE = {"name": "wide_resnet10_1", "dropout": 0.5, "input_shape": (16, 16, 3)}
NORMED = {"name": "tiny", "dropout": 0.5, "input_shape": (8, 8, 3)}
WITHOUT_DROPOUT = NORMED | {"dropout": 0.0}
SYNCHRONISED_NORM = {"synchronised_norm": True}


@pytest.fixture
def one_device() -> tf.distribute.Strategy:
    return make_strategy("one_device")


@pytest.mark.parametrize("sizes", [(4, 4), (5, 3)])
def test_weights_are_those_of_one_device_without_normalisation(mirrored, one_device, sizes):
    ours, _ = train(mirrored, PLAIN, learning_rate=1e-3, sizes=sizes)
    theirs, _ = train(one_device, PLAIN, learning_rate=1e-3)
    start = tiny.values(lively(tiny_stack(**PLAIN)).trainable_variables)
    difference = tiny.largest_difference(ours, theirs)
    print(f"no batch norm, lr 1e-3, shares {sizes}: two devices against one: {difference:.2g}")
    assert difference < 1e-5
    assert tiny.largest_difference(start, theirs) > 1e-3


def test_weights_and_statistics_are_those_of_two_micro_batches(mirrored, one_device):
    ours = train(mirrored, WIDE, learning_rate=1e-3)
    theirs = train(one_device, WIDE, learning_rate=1e-3, micro_batches=2)
    weights, statistics = (tiny.largest_difference(*pair) for pair in zip(ours, theirs, strict=True))
    print(
        f"wide_resnet10_1, lr 1e-3: two devices against two micro-batches: {weights:.2g}, statistics {statistics:.2g}"
    )
    assert weights < 1e-5
    assert statistics < 1e-5
    start = tiny.values(lively(tiny_stack(**WIDE)).trainable_variables)
    assert tiny.largest_difference(start, theirs[0]) > 1e-3  # else there is nothing to compare


@pytest.mark.parametrize("jit", ["off", "on"])
def test_less_memory_changes_nothing_on_replicas(mirrored, jit):
    less = {"remat": True, "branches_in_turn": True}
    (ours, plain) = (train(mirrored, PLAIN, learning_rate=1e-3, jit=jit, **options) for options in (less, {}))
    assert tiny.largest_difference(ours[0], plain[0]) < 1e-6


@pytest.mark.parametrize("sizes", [(4, 4), (5, 3)])
def test_synchronised_norm_makes_two_devices_one(mirrored, one_device, sizes):
    options = {"learning_rate": 1e-3, "jit": "auto"}
    ours = train(mirrored, NORMED | SYNCHRONISED_NORM, sizes=sizes, **options)
    theirs = train(one_device, NORMED, **options)  # the fused op, over the whole batch
    weights, statistics = (tiny.largest_difference(*pair) for pair in zip(ours, theirs, strict=True))
    print(f"synchronised norm, shares {sizes}: two devices against one: {weights:.2g}, statistics {statistics:.2g}")
    assert weights < 1e-5 and statistics < 1e-5
    apart = train(mirrored, NORMED, sizes=sizes, **options)
    assert tiny.largest_difference(apart[0], theirs[0]) > 10 * weights


def test_synchronised_micro_batches_are_those_of_all_replicas_together(mirrored, one_device):
    order = np.array([0, 1, 4, 5, 2, 3, 6, 7])  # the first halves of both replicas, then the second ones
    options = {"learning_rate": 1e-3, "jit": "auto", "micro_batches": 2}
    ours = train(mirrored, WITHOUT_DROPOUT | SYNCHRONISED_NORM, **options)
    theirs = train(one_device, WITHOUT_DROPOUT, order=order, **options)
    weights, statistics = (tiny.largest_difference(*pair) for pair in zip(ours, theirs, strict=True))
    print(f"synchronised norm, two micro-batches: {weights:.2g}, statistics {statistics:.2g}")
    assert weights < 1e-5 and statistics < 1e-5


def test_what_cannot_be_synchronised_is_refused_in_one_line():
    for options in ({"jit": "on"}, {"remat": True}, {"branches_in_turn": True}):
        with pytest.raises(InputError) as error:
            CoTrainingModel(tiny_stack(synchronised_norm=True), **options)
        assert tiny.one_line(error.value, says="Replicas cannot meet")
    with pytest.raises(InputError, match=r"has no batch norm. Received: synchronised_norm=True"):
        tiny_stack("tiny_no_norm", synchronised_norm=True)


# Without dropout: its masks belong to places, which another order changes.
@pytest.mark.parametrize(
    ("stack", "norm", "options", "order"),
    [
        (PLAIN | {"dropout": 0.0}, {}, {}, [2, 7, 0, 4, 3, 1, 6, 5]),
        (WITHOUT_DROPOUT, SYNCHRONISED_NORM, {"jit": "auto"}, [2, 7, 0, 4, 3, 1, 6, 5]),
        (WITHOUT_DROPOUT, {}, {"micro_batches": 2}, [2, 0, 3, 1, 7, 5, 4, 6]),  # within each micro-batch
    ],
    ids=["no batch norm", "synchronised batch norm", "batch norm and micro-batches"],
)
def test_a_large_rate_differs_no_more_than_another_order_of_the_batch(
    mirrored, one_device, stack, norm, options, order
):
    jit = {name: value for name, value in options.items() if name == "jit"}
    ours = [*itertools.chain(*train(mirrored, stack | norm, learning_rate=0.1, **jit))]
    theirs = [*itertools.chain(*train(one_device, stack, learning_rate=0.1, **options))]
    permuted = [*itertools.chain(*train(one_device, stack, learning_rate=0.1, order=np.array(order), **options))]
    difference, noise = tiny.largest_difference(ours, theirs), tiny.largest_difference(permuted, theirs)
    print(f"{stack['name']}, lr 0.1: two devices {difference:.2g}, another order of the batch {noise:.2g}")
    assert noise > 0
    assert difference <= 5 * noise


def test_replicas_keep_the_same_values(mirrored):
    model = make_model(mirrored, NORMED, jit="off")
    function = tf.function(lambda *data: mirrored.run(model.train_step, args=(data,)))
    function(*per_replica(mirrored, batch(), (4, 4)))
    for variable in model.variables:
        one, other = (value.numpy() for value in mirrored.experimental_local_results(variable.value))
        np.testing.assert_array_equal(one, other, err_msg=variable.path)


@pytest.mark.parametrize("stack", [PLAIN, {"name": "tiny", "input_shape": (8, 8, 3)}], ids=lambda stack: stack["name"])
def test_an_empty_share_adds_nothing(mirrored, one_device, stack):
    results = []
    for strategy in (mirrored, one_device):
        model = make_model(strategy, stack, jit="off")
        step = tf.function(lambda *data: strategy.run(model.train_step, args=(data,)), reduce_retracing=True)  # noqa: B023
        step(*per_replica(strategy, batch(1), (1, 0)))
        assert int(model.bad_steps.numpy()) == 0
        results.append((model.stack, tiny.values(model.stack.trainable_variables)))
    assert tiny.largest_difference(results[0][1], results[1][1]) < 1e-6
    assert all(np.all(np.isfinite(value)) for value in tiny.values(results[0][0].variables))


def test_fit_gives_the_weights_of_one_device(mirrored, one_device):
    views, soft = batch(19)  # 8, 8 and 3: the last shares are uneven
    models = []
    for strategy in (mirrored, one_device):
        model = make_model(strategy, PLAIN, jit="off")
        data = tf.data.Dataset.from_tensor_slices((views, soft)).batch(8)
        history = model.fit(data, epochs=2, verbose=0).history
        models.append((tiny.values(model.stack.variables), history))
    assert tiny.largest_difference(models[0][0], models[1][0]) < 1e-5
    for name, values in models[1][1].items():
        assert models[0][1][name] == pytest.approx(values, rel=1e-4), name


def test_fit_survives_a_last_batch_smaller_than_the_replicas(mirrored):
    views, soft = batch(9)
    model = make_model(mirrored, {"name": "tiny"}, jit="off")
    history = model.fit(tf.data.Dataset.from_tensor_slices((views, soft)).batch(8), epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    assert all(np.all(np.isfinite(value)) for value in tiny.values(model.variables))
    assert int(model.optimizer.iterations.numpy()) == 4


@pytest.mark.parametrize(("images", "size"), [(11, 4), (9, 4), (1, 4)], ids=["odd", "one left", "one"])
def test_every_image_is_evaluated_once(mirrored, one_device, images, size):
    views, _ = batch(images)
    classes = np.arange(images) % 3
    results = []
    for strategy in (mirrored, one_device):
        model = make_model(strategy, {"name": "tiny"}, jit="off")
        data = tf.data.Dataset.from_tensor_slices((views, classes)).batch(size)
        evaluated = model.evaluate(data, verbose=0, return_dict=True)
        count = float(model.means.count.numpy())
        predicted = model.predict(data, verbose=0)
        predict = Predictor(model.stack, "mean_logits", strategy=strategy, jit="off")
        parts = list(predict(data.map(lambda views, _: views)))
        probabilities, branches = (np.concatenate(part) for part in zip(*parts, strict=True))
        results.append((evaluated, count, predicted, probabilities, branches))
    ours, theirs = results
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[1] == theirs[1] == images
    for mine, their in zip(ours[2:], theirs[2:], strict=True):
        assert len(mine) == images
        np.testing.assert_allclose(mine, their, rtol=1e-5, atol=1e-6)


def all_values(model: CoTrainingModel) -> list[np.ndarray]:
    return tiny.values([*model.stack.variables, *model.optimizer.variables])


def test_one_replicas_nan_stops_the_step_on_both(mirrored):
    model = make_model(mirrored, {"name": "tiny"}, jit="off")
    step = tf.function(lambda *data: mirrored.run(model.train_step, args=(data,)))
    views, soft = batch()
    step(*per_replica(mirrored, (views, soft), (4, 4)))
    kept = all_values(model)
    views[6, 0, 0, 0, 0] = np.nan  # an image of the second replica
    for count in (1, 2):
        step(*per_replica(mirrored, (views, soft), (4, 4)))
        assert int(model.bad_steps.numpy()) == count
        assert tiny.largest_difference(kept, all_values(model)) == 0
    step(*per_replica(mirrored, batch(), (4, 4)))
    assert int(model.bad_steps.numpy()) == 0
    assert tiny.largest_difference(kept, all_values(model)) > 0


@pytest.mark.parametrize("replica", [0, 1])
def test_one_replicas_overflow_lowers_the_loss_scale_on_both(mirrored, replica):
    stack = {"name": "tiny", "precision": "mixed_float16"}
    model = make_model(mirrored, stack, optimizer=lambda: SGD(0.1), jit="off")
    scaled = model.optimizer
    assert isinstance(scaled, keras.optimizers.LossScaleOptimizer)
    step = tf.function(lambda *data: mirrored.run(model.train_step, args=(data,)))
    views, soft = batch()
    step(*per_replica(mirrored, (views, soft), (4, 4)))
    kept = tiny.values([*model.stack.trainable_variables, *scaled.inner_optimizer.variables])
    scale = float(scaled.dynamic_scale.numpy())
    weights = np.ones(8, np.float32)
    weights[4 * replica] = 1e7  # the loss stays finite in float32, its gradients do not in float16
    step(*per_replica(mirrored, (views, soft, weights), (4, 4)))
    after = tiny.values([*model.stack.trainable_variables, *scaled.inner_optimizer.variables])
    assert tiny.largest_difference(kept, after) == 0
    for value in mirrored.experimental_local_results(scaled.dynamic_scale.value):
        assert float(value.numpy()) == scale / 2
    step(*per_replica(mirrored, (views, soft), (4, 4)))
    moved = tiny.values(model.stack.trainable_variables)
    assert 0 < tiny.largest_difference(kept[: len(moved)], moved) < 1


def test_several_steps_an_execution_are_refused(mirrored):
    with mirrored.scope():
        model = CoTrainingModel(tiny_stack())
        with pytest.raises(InputError, match=r"on 2 replicas. Received: steps_per_execution=2"):
            model.compile("sgd", steps_per_execution=2)
        model.compile("sgd", steps_per_execution=1)
