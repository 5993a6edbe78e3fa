"""What `divco_tf.compat` relies on is there, with the signatures that it relies on: an upgrade fails here first."""

import importlib
import inspect
import os

import keras
import numba
import pytest
import tensorflow as tf

from divco_tf import compat


def parameters(function) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


@pytest.mark.parametrize("hook", compat.HOOKS, ids=lambda hook: f"{hook.owner}.{hook.name}")
def test_every_hook_is_a_method_of_its_class_with_these_parameters(hook):
    module, owner = hook.owner.split(":")
    method = getattr(getattr(importlib.import_module(module), owner), hook.name)
    assert parameters(method) == ("self", *hook.parameters)


@pytest.mark.parametrize(
    ("module", "name", "expected"),
    [
        ("keras.src.backend.common.global_state", "get_global_attribute", ("name", "default", "set_to_default")),
        ("keras.src.backend.common.global_state", "set_global_attribute", ("name", "value")),
        ("keras.src.models.functional", "operation_fn", ("operation", "call_context_args")),
        ("keras.src.backend", "compute_output_spec", ("fn", "args", "kwargs")),
        ("tensorflow.python.framework.config", "enable_op_determinism", ()),
        ("tensorflow.python.framework.config", "disable_op_determinism", ()),
        ("tensorflow.python.framework.config", "is_op_determinism_enabled", ()),
        ("tensorflow.python.ops.control_flow_util", "GraphOrParentsInXlaContext", ("graph",)),
        (
            "tensorflow.python.data.ops.multi_device_iterator_ops",
            "_create_device_dataset",
            ("prototype_ds", "incarnation_id", "prefetch_buffer_size", "experimental_slack"),
        ),
    ],
)
def test_every_function_is_there_with_these_parameters(module, name, expected):
    assert parameters(getattr(importlib.import_module(module), name)) == expected


def test_efficientnet_v2_takes_its_widths():
    taken = parameters(compat.efficientnet_v2())
    assert taken[:4] == ("width_coefficient", "depth_coefficient", "default_size", "dropout_rate")
    assert {"drop_connect_rate", "depth_divisor", "min_depth", "input_tensor", "include_preprocessing"} <= set(taken)


def test_deferred_variables_have_an_initializer_and_are_forgotten():
    with compat.forgotten_deferred_variables(), keras.StatelessScope(initialize_variables=False):
        variable = keras.Variable(keras.initializers.Constant(3.0), shape=(2,), dtype="float32")
    with keras.StatelessScope():
        pass  # gives values to what is on Keras's list at its end
    assert variable._value is None
    assert compat.initializer_of(variable).value == 3.0


def test_an_initializer_is_replaced():
    with compat.forgotten_deferred_variables(), keras.StatelessScope(initialize_variables=False):
        variable = keras.Variable("zeros", shape=(2,), dtype="float32")
    compat.set_initializer(variable, "another")
    assert compat.initializer_of(variable) == "another"


def test_the_policy_of_a_thread_that_has_none_stays_none():
    mine = compat.exchange_dtype_policy(None)
    try:
        assert compat.exchange_dtype_policy("mixed_bfloat16") is None
        assert keras.layers.ReLU().compute_dtype == "bfloat16"
        assert compat.exchange_dtype_policy(None).name == "mixed_bfloat16"
        assert keras.layers.ReLU().compute_dtype == "float32"  # of floatx, and a policy is made of it
        assert compat.exchange_dtype_policy(None).name == "float32"
    finally:
        compat.exchange_dtype_policy(mine)


def test_keras_puts_codes_for_bold_around_what_a_call_raises():
    class Failing(keras.layers.Layer):
        def call(self, x):
            raise ValueError("why")

    with pytest.raises(ValueError) as error:
        Failing()(tf.ones([1]))
    assert "\x1b[" in str(error.value)
    assert "why" in compat.plain_text(str(error.value)).splitlines()


def test_keras_cv_is_imported_whatever_the_environment_says_of_legacy_keras(monkeypatch):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    assert compat.keras_cv().models.ResNetV2Backbone
    assert os.environ["TF_USE_LEGACY_KERAS"] == "1"


def test_names_begin_anew_and_go_on_after():
    keras.layers.ReLU()
    before = keras.layers.ReLU().name
    with compat.fresh_names():
        assert keras.layers.ReLU().name == "re_lu"
    number = int(before.removeprefix("re_lu_"))
    assert keras.layers.ReLU().name == f"re_lu_{number + 1}"


def test_nodes_come_in_an_order_in_which_they_can_be_called_with_what_is_read_of_them():
    image = keras.Input((4,))
    hidden = keras.layers.Dense(3, name="a")(image)
    model = keras.Model(image, keras.layers.Add()([keras.layers.Dense(3, name="b")(hidden), hidden]))
    nodes = compat.nodes_of(model)
    assert [node.operation.name for node in nodes if not node.is_input] == ["a", "b", model.layers[-1].name]
    assert [node.is_input for node in nodes] == [True, False, False, False]
    assert nodes[1].input_tensors[0] is image and nodes[1].outputs[0] is hidden
    assert nodes[1].arguments.args == (image,) and nodes[1].arguments.kwargs == {}
    given, options = nodes[1].arguments.fill_in({id(image): "value"})
    assert (given, options) == (("value",), {})
    assert compat.nodes_of(keras.layers.ReLU()) is None


def test_functional_models_that_call_by_themselves_are_not_functional():
    class Own(keras.Model):
        def call(self, x, training=None, mask=None):
            return 2 * super().call(x)

    image = keras.Input((4,))
    assert compat.is_functional(keras.Model(image, keras.layers.ReLU()(image)))
    assert not compat.is_functional(Own(image, keras.layers.ReLU()(image)))
    assert not compat.is_functional(keras.layers.ReLU())


def test_an_operation_is_told_that_it_is_training():
    dropout = keras.layers.Dropout(1 - 1e-7, seed=1)
    x = tf.ones([64])
    assert float(tf.reduce_sum(compat.operation_called(dropout, training=False)(x))) == 64
    assert float(tf.reduce_sum(compat.operation_called(dropout, training=True)(x))) == 0


def test_the_spec_of_an_output_has_its_shape():
    layer = keras.layers.Dense(3)
    assert compat.output_spec(layer, keras.KerasTensor((None, 4))).shape == (None, 3)


def test_all_layers_are_found_however_deep():
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="deep")])
    outer = keras.Sequential([keras.Input((4,)), inner])
    assert "deep" in [layer.name for layer in compat.flat_layers(outer)]
    assert compat.flat_layers(outer)[0] is outer and outer not in compat.flat_layers(outer, include_self=False)


def test_what_was_made_to_be_trained_is_known_when_it_is_frozen():
    frozen, thawed = keras.layers.BatchNormalization(trainable=False), keras.layers.BatchNormalization()
    for layer in (frozen, thawed):
        layer.build((None, 4))
    thawed.trainable = False
    for layer in (frozen, thawed):
        assert layer.trainable_variables == []
        assert [variable.name for variable in compat.made_trainable(layer)] == ["gamma", "beta"]


def test_keras_tracks_the_loss_by_a_metric_that_is_left_out():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(loss="mse")
    assert [metric.name for metric in model.metrics][:1] == ["loss"]
    assert "loss" not in [metric.name for metric in compat.without_loss_tracker(model, model.metrics)]


def test_metrics_given_to_compile_are_kept():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(loss="mse")
    assert compat.compiled_metrics(model) is None
    model.compile(loss="mse", metrics=["mae"])
    assert compat.compiled_metrics(model) is not None


def test_metrics_are_built_from_shapes_and_found_by_their_names_and_directions():
    class Own(compat.compile_metrics()):
        metrics = (compat.Monitored("theirs", higher_is_better=True), compat.Monitored("other", higher_is_better=False))

    function = keras.losses.categorical_crossentropy
    given = compat.compile_metrics()([function, "accuracy"], [keras.metrics.AUC()])
    given.build(keras.KerasTensor((None,), "int32"), keras.KerasTensor((None, 3), "float32"))
    (wrapped, accuracy), (auc,) = compat.metrics_given(given)
    assert compat.function_of(wrapped) is function
    assert isinstance(accuracy, keras.metrics.SparseCategoricalAccuracy) and isinstance(auc, keras.metrics.AUC)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(loss="mse")
    before = len(model.metrics)
    compat.replace_compiled_metrics(model, Own(None, None))
    assert len(model.metrics) == before + 1  # tracked, it would be there twice
    for monitor, best in (("val_theirs", 2), ("other", 1)):
        callback = keras.callbacks.EarlyStopping(monitor)
        callback.set_model(model)
        callback._set_monitor_op()
        assert bool(callback.monitor_op(best, 3 - best))


def test_what_an_optimizer_was_built_for_is_known():
    variables = [keras.Variable([1.0]), keras.Variable([2.0])]
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    optimizer.build(variables[:1])
    assert [variable is variables[0] for variable in compat.variables_known(optimizer)] == [True]


def test_an_optimizers_update_is_replaced():
    optimizer, seen = keras.optimizers.SGD(0.5), []
    compat.replace_update(optimizer, lambda gradients, variables, rate: seen.append((len(gradients), float(rate))))
    optimizer.apply([tf.ones([2])], [keras.Variable([1.0, 2.0])])
    assert seen == [(1, 0.5)]
    with pytest.raises(AttributeError, match="_backend_update_step"):
        compat.replace_update(object(), print)


def test_the_options_of_a_strategys_prefetching_say_untuned():
    from tensorflow.python.data.ops import multi_device_iterator_ops

    before = multi_device_iterator_ops._create_device_dataset
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    made = []
    with compat.untuned_prefetching():
        untuned = multi_device_iterator_ops._create_device_dataset
        multi_device_iterator_ops._create_device_dataset = lambda *given: made.append(untuned(*given)) or made[-1]
        iter(strategy.experimental_distribute_dataset(tf.data.Dataset.range(4).batch(2)))
        multi_device_iterator_ops._create_device_dataset = untuned
    assert multi_device_iterator_ops._create_device_dataset is before
    assert [dataset.options().autotune.enabled for dataset in made] == [False, False]


def test_the_interval_between_checks_of_workers_has_its_name():
    from tensorflow.python.distribute import collective_all_reduce_strategy

    # Its class says it; making one would start a server.
    assert collective_all_reduce_strategy.CollectiveAllReduceExtended._check_health_interval == 30


def test_xla_is_noticed_where_it_compiles():
    seen = []

    def look(x):
        seen.append(compat.in_xla_context())
        return x

    tf.function(look, autograph=False)(tf.ones([]))
    tf.function(look, autograph=False, jit_compile=True)(tf.ones([]))
    assert seen == [False, True]


def test_signatures_are_read_from_the_file(tmp_path):
    module = tf.Module()
    module.f = tf.function(lambda x: {"y": x + 1}, input_signature=[tf.TensorSpec([None, 2], tf.float32, name="x")])
    tf.saved_model.save(module, str(tmp_path), signatures={"double": module.f})
    found = compat.signatures_of((tmp_path / "saved_model.pb").read_bytes())["double"]
    assert [dim.size for dim in found.inputs["x"].tensor_shape.dim] == [-1, 2]
    assert tf.as_dtype(found.outputs["y"].dtype) is tf.float32
    for damaged in (b"no protobuf", b""):
        with pytest.raises(ValueError, match="no SavedModel"):
            compat.signatures_of(damaged)


def test_numbas_stamp_of_a_cached_kernel_is_replaced():
    @numba.njit(cache=True)
    def kernel(x):
        return x

    compat.stamp_cache(kernel, "ours")
    index = kernel._cache._cache_file
    index.save(("signature",), b"data")
    assert index.load(("signature",)) == b"data"
    compat.stamp_cache(kernel, "another")
    assert index.load(("signature",)) is None


def test_what_numba_compiles_is_told_while_it_is_asked_for():
    @numba.njit
    def kernel(x):
        return x

    told = []
    with compat.compilations_told(told.append):
        kernel(1)
        kernel(2)
    kernel(1.0)
    assert told == [kernel.py_func]


def test_keras_cvs_samplers_have_what_is_read_of_them():
    uniform, normal = compat.keras_cv_samplers()
    assert {"lower", "upper"} <= set(vars(uniform(0.0, 1.0)))
    assert {"mean", "stddev", "min_value", "max_value"} <= set(vars(normal(0.0, 1.0, -1.0, 1.0)))
