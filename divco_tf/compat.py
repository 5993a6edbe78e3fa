"""The private names of TensorFlow, Keras, numba and keras-cv that we lean on, each with what it is for and what breaks.

Nothing else of ours names them (tests/test_architecture.py). tests/test_compat.py holds that each exists with the
signature that we rely on, so an upgrade that takes one away fails there, and nowhere without a word. Made for
TensorFlow 2.21, Keras 3.15, numba 0.68 and keras-cv 0.9. Nothing is imported before a function is called.
"""

import contextlib
import dataclasses
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Hook:
    """A private method of a base class that a class of ours calls or overrides, and so cannot be wrapped here.

    Attributes:
      owner: the base class, as `module:class`.
      name: of the method.
      parameters: those behind self.
      purpose: what it is for, and what breaks without it.
    """

    owner: str
    name: str
    parameters: tuple[str, ...]
    purpose: str


HOOKS = (
    Hook(
        "keras:Model",
        "_maybe_symbolic_build",
        ("iterator", "data_batch"),
        "overridden by CoTrainingModel: Keras's fails on uneven shares of a batch on replicas, and takes one",
    ),
    Hook(
        "keras:Optimizer",
        "_clip_gradients",
        ("grads",),
        "overridden by our optimizers: Keras's clips each replica's gradient instead of their sum",
    ),
    Hook(
        "keras:Optimizer",
        "_use_weight_decay",
        ("variable",),
        "called by our optimizers: `exclude_from_weight_decay` of Keras is heeded",
    ),
    Hook(
        "keras:Optimizer",
        "_get_variable_index",
        ("variable",),
        "called by our optimizers: which slots a variable has; without it no update finds its momentum",
    ),
)


# Keras: variables and layers


_UNINITIALIZED, _NAMES = "uninitialized_variables", "object_name_uids"


@contextlib.contextmanager
def forgotten_deferred_variables() -> Iterator[None]:
    """Variables that a stateless scope defers in this context never get values.

    Keras lists them, and gives all on its list values at the end of the next stateless scope. Templates are made of
    such variables: without this each would take its weights' memory.
    """
    from keras.src.backend.common import global_state

    pending = list(global_state.get_global_attribute(_UNINITIALIZED, []))
    try:
        yield
    finally:
        global_state.set_global_attribute(_UNINITIALIZED, pending)


@contextlib.contextmanager
def fresh_names() -> Iterator[None]:
    """Layers without a name get the same ones in every process: Keras's counters begin anew in this context.

    Initial values are drawn by name; without this they depend on what was built before.
    """
    from keras.src.backend.common import global_state

    counted = global_state.get_global_attribute(_NAMES)
    global_state.set_global_attribute(_NAMES, defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute(_NAMES, counted)


def exchange_dtype_policy(policy: Any) -> Any:
    """Sets this thread's global dtype policy, None for none; returns what it was.

    Keras's public functions make one of a thread that has none, which then stays whatever `keras.config.set_floatx`
    says later.
    """
    import keras
    from keras.src.backend.common import global_state

    before = global_state.get_global_attribute("dtype_policy")
    if policy is None:
        global_state.set_global_attribute("dtype_policy", None)
    else:
        keras.config.set_dtype_policy(policy)
    return before


def initializer_of(variable: Any) -> Any:
    """The initializer of a deferred variable; a stack draws each branch's values by it."""
    return variable._initializer


def made_trainable(layer: Any) -> list[Any]:
    """A layer's own variables that were made to be trained, in the order of making, whether or not they are frozen now.

    Keras's public lists follow what is frozen; values of a stack that are handed over by position would be mixed up.
    """
    return list(layer._trainable_variables)


def set_initializer(variable: Any, initializer: Any) -> None:
    """Replaces the initializer of a deferred variable, by weights that its builder has read."""
    variable._initializer = initializer


def flat_layers(layer: Any, *, include_self: bool = True) -> list[Any]:
    """A layer with all layers in it, however deep; sizes, batch norms and random layers are found so."""
    return list(layer._flatten_layers(include_self=include_self))


_BOLD = re.compile(r"\x1b\[\d*m")


def plain_text(message: str) -> str:
    """A message of Keras without the terminal's codes for bold, in which it puts what a layer's call raised."""
    return _BOLD.sub("", message)


# Keras: functional models


def is_functional(model: Any) -> bool:
    """Whether calling `model` is no more than calling its layers: recomputation then takes it apart."""
    from keras.src.models.functional import Functional

    return isinstance(model, Functional) and type(model).call is Functional.call


def nodes_of(model: Any) -> list[Any] | None:
    """Keras's records of the calls in a functional model, in an order in which they can be made; None: it is none.

    Of a record we read `operation`, `arguments` (`args`, `kwargs`, `fill_in`), `input_tensors`, `outputs` and
    `is_input`. Multiply-adds are counted, and activations recomputed, along them.
    """
    by_depth = getattr(model, "_nodes_by_depth", None)
    return by_depth and [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]


def operation_called(operation: Any, *, training: bool) -> Callable:
    """What a functional model calls for an operation: with `training` where it takes that. Recomputation calls it."""
    from keras.src.models.functional import operation_fn

    return operation_fn(operation, training=training)


def output_spec(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """The symbolic result of a call; multiply-adds inside layers made of layers are counted while it runs."""
    from keras.src.backend import compute_output_spec

    return compute_output_spec(function, *args, **kwargs)


def efficientnet_v2() -> Callable:
    """The builder of keras.applications' EfficientNetV2 with its width, which the public functions do not take."""
    from keras.src.applications.efficientnet_v2 import EfficientNetV2

    return EfficientNetV2


def keep_when_loaded(archive: Any) -> None:
    """Lets what an ExportArchive writes work as `tf.saved_model.load(path).serve(images)`.

    A function that is loaded holds none of its variables (TensorFlow 2.21), so they are gone with the loaded object
    before the call. What refers to itself stays until Python next collects garbage.
    """
    archive._tf_trackable.itself = archive._tf_trackable


# Keras: training


def without_loss_tracker(model: Any, metrics: list) -> list:
    """`metrics` of a model without Keras's own mean of the loss, which a custom train step does not feed."""
    return [metric for metric in metrics if metric is not getattr(model, "_loss_tracker", None)]


def compile_metrics() -> type:
    """Keras's class for what is given to `compile`; callbacks look for a metric's direction in nothing else.

    A subclass may `build` itself from shapes; without it `EarlyStopping("val_accuracy")` asks for a mode.
    """
    from keras.src.trainers.compile_utils import CompileMetrics

    return CompileMetrics


@dataclasses.dataclass(frozen=True)
class Monitored:
    """A value as Keras's callbacks look for it among `compile_metrics().metrics`; they ask for a direction else."""

    name: str
    higher_is_better: bool

    @property
    def _direction(self) -> str:
        return "up" if self.higher_is_better else "down"


def metrics_given(compiled: Any) -> tuple[list, list]:
    """Of a `compile_metrics()` that is built: the metrics, and the weighted ones, by which each is updated."""
    lists = (compiled._flat_metrics[0], compiled._flat_weighted_metrics[0])
    return tuple(of_output.metrics if of_output else [] for of_output in lists)


def compiled_metrics(model: Any) -> Any:
    """What keeps the metrics that were given to `compile`; None before."""
    return model._compile_metrics


def replace_compiled_metrics(model: Any, metrics: Any) -> None:
    """Lets `metrics` be what keeps a compiled model's metrics, tracked no more than Keras's own: they would be counted,
    saved and reset twice."""
    from keras.src.utils.tracking import DotNotTrackScope

    with DotNotTrackScope():
        model._compile_metrics = metrics


def function_of(metric: Any) -> Any:
    """What a MeanMetricWrapper wraps; which labels it takes is known by it."""
    return metric._fn


def variables_known(optimizer: Any) -> list:
    """What an optimizer was built for; it updates nothing else, and Keras says so with the variable's values."""
    return list(optimizer._trainable_variables)


def replace_update(optimizer: Any, update: Callable[[list, list, Any], None]) -> None:
    """Lets `update(gradients, variables, learning_rate)` be what an optimizer does after clipping.

    Keras's hands all gradients to one operation for replicas to sum, which would carry those of branches on several
    devices through the first one.
    """
    if not callable(getattr(optimizer, "_backend_update_step", None)):
        raise AttributeError(f"{type(optimizer).__name__} has no _backend_update_step; see divco_tf.compat.")
    optimizer._backend_update_step = update


# TensorFlow


@contextlib.contextmanager
def untuned_prefetching() -> Iterator[None]:
    """Strategies' iterators that are made in this context prefetch to their devices without tuning.

    They do so by datasets of their own, with default options whatever those of the dataset that is distributed. To
    destroy a tuned one's iterator is to wait for its tuning thread, which sleeps for up to as long as it has run, or a
    minute (TensorFlow 2.21, where nothing public reaches these datasets).
    """
    import tensorflow as tf
    from tensorflow.python.data.ops import multi_device_iterator_ops

    options, make = tf.data.Options(), multi_device_iterator_ops._create_device_dataset
    options.autotune.enabled = False
    multi_device_iterator_ops._create_device_dataset = lambda *arguments: make(*arguments).with_options(options)
    try:
        yield
    finally:
        multi_device_iterator_ops._create_device_dataset = make


@contextlib.contextmanager
def op_determinism() -> Iterator[None]:
    """Operations give the same results each time in this context; the public function only turns that on."""
    from tensorflow.python.framework import config

    before = config.is_op_determinism_enabled()
    config.enable_op_determinism()
    try:
        yield
    finally:
        if not before:
            config.disable_op_determinism()


def check_workers_every(strategy: Any, seconds: int) -> None:
    """How often a MultiWorkerMirroredStrategy asks whether its workers live; else a lost one hangs the job longer."""
    if not hasattr(strategy.extended, "_check_health_interval"):
        raise AttributeError("MultiWorkerMirroredStrategy has no _check_health_interval; see divco_tf.compat.")
    strategy.extended._check_health_interval = seconds


def in_xla_context() -> bool:
    """Whether what is traced now is for XLA, whose grouped convolutions have no fast gradient on a CPU."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def signatures_of(saved_model: bytes) -> dict[str, Any]:
    """The signatures of a SavedModel's file: SignatureDefs by name, read without loading it.

    Raises:
      ValueError: no such file.
    """
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        return dict(saved_model_pb2.SavedModel.FromString(saved_model).meta_graphs[0].signature_def)
    except (DecodeError, IndexError) as error:
        raise ValueError("it holds no SavedModel") from error


# numba


def stamp_cache(compiled: Any, stamp: Any) -> None:
    """Lets a kernel's cache on disk hold for as long as `stamp` is the same.

    numba stamps it with the time and size of the kernel's own file, and keeps what is inlined from another one.
    """
    if not hasattr(compiled._cache._cache_file, "_source_stamp"):
        raise AttributeError("numba's cache has no _source_stamp; see divco_tf.compat.")
    compiled._cache._cache_file._source_stamp = stamp


@contextlib.contextmanager
def compilations_told(report: Callable[[Callable], None]) -> Iterator[None]:
    """Calls `report` with each Python function that numba begins to compile in this context; else it is silent."""
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, event: Any) -> None:
            report(event.data["dispatcher"].py_func)

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Listener()):
        yield


# keras-cv


def keras_cv() -> Any:
    """keras-cv on Keras 3: it takes TensorFlow's Keras, which is another one where TF_USE_LEGACY_KERAS is set.

    Nothing else imports it. It has ended: where it is absent, or breaks on what it is made of, all else works.

    Raises:
      ImportError: in one line, why it cannot be imported and what would work.
    """
    legacy = os.environ.pop("TF_USE_LEGACY_KERAS", None)
    try:
        import keras_cv  # takes seconds
        from keras_cv.src.backend import config

        if not config.keras_3():
            raise ImportError("TensorFlow has not Keras 3")
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        works = "pip install 'keras-cv==0.9.*'" if legacy is None else "a process without it"
        raise ImportError(
            f"keras-cv cannot be imported ({told}). Received: TF_USE_LEGACY_KERAS={legacy}; {works} would work, and "
            "only its own backbones and layers need it."
        ) from error
    finally:
        if legacy is not None:
            os.environ["TF_USE_LEGACY_KERAS"] = legacy
    return keras_cv


def keras_cv_samplers() -> tuple[type, type]:
    """keras-cv's uniform and normal sampler of strengths; they ask `tf.random`, so ours take their place."""
    core = keras_cv().core
    return core.UniformFactorSampler, core.NormalFactorSampler
