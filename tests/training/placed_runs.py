"""Short trainings of branches on several devices, and what crosses between these.

As a program, for four logical CPUs where pytest's process has fewer: writes {case: figures} as JSON to its argument.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context
from tensorflow.python.ops import handle_data_util

from divco_tf.models import layers
from divco_tf.models.backbones.registry import register_backbones
from divco_tf.models.branch_stack import BranchStack, build
from divco_tf.runs.evaluation import Predictor
from divco_tf.training.cotraining import CoTrainingModel
from divco_tf.training.losses import CoTraining
from divco_tf.training.optim.optimizer import SGD
from tests import tiny

STEPS, CPUS = 5, ["CPU:0", "CPU:1", "CPU:2", "CPU:3"]


@dataclasses.dataclass(frozen=True)
class ShakenSpec:
    """A residual block with everything that draws, and a classifier of which a block has more bytes than a view."""

    width: int = 4
    wide: int = 2048


@register_backbones({"shaken": ShakenSpec()})
def shaken(spec: ShakenSpec, image: Any, *, draw: Any, num_classes: int) -> Any:
    """Image [B, H, W, C] -> logits [B, num_classes]."""
    x = layers.norm(layers.conv(image, spec.width, 3, name="stem"), name="stem_norm")
    y = layers.norm(layers.conv(layers.relu(x, name="relu"), spec.width, 3, name="conv"), name="norm")
    y = layers.Dropout(0.3, name="conv_dropout")(y, draw=draw)
    x = x + layers.ShakeDrop(0.5, name="shake_drop")(y, draw=draw)
    x = layers.relu(layers.conv(x, spec.wide, 1, name="widen"), name="wide_relu")
    return layers.classifier(x, num_classes, dropout=0.2, draw=draw)


def stack(devices: list[str] | None, precision: str = "float32") -> BranchStack:
    """Four branches of `shaken`."""
    options = {"copies": 4, "num_classes": 3, "input_shape": (8, 8, 3), "seed": 1, "precision": precision}
    alone = tiny.lively(build(spec=ShakenSpec(), **options))
    return alone if devices is None else alone.on(devices)


def model(devices: list[str] | None, *, optimizer: Callable | None = None, precision: str = "float32", **options: Any):
    """A compiled model of them."""
    model = CoTrainingModel(
        stack(devices, precision), cotraining=CoTraining(weight=0.5), label_smoothing=0.1, seed=4, **options
    )
    model.compile(optimizer() if optimizer else SGD(1e-3, weight_decay=5e-4))
    return model


def batch(step: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """Views and labels as mixup makes them."""
    views, labels = tiny.batch(4, split_factor=4, seed=step)
    return tf.constant(views), tf.constant(labels)


def trained(devices: list[str] | None, **options: Any) -> tuple[CoTrainingModel, list]:
    """After STEPS of a loop as `train()` has it; and the `crossings` of a step."""
    trained = model(devices, **options)
    function = tf.function(lambda *data: trained.train_step(data), autograph=False)
    sent = crossings(function, *batch(0))
    for step in range(1, STEPS):
        function(*batch(step))
    assert int(trained.step.numpy()) == STEPS
    return trained, sent


def state(model: CoTrainingModel) -> dict[str, np.ndarray]:
    """Weights, statistics and predictions."""
    predict = Predictor(model.stack, "mean_logits", strategy=tf.distribute.get_strategy(), jit=model.jit)
    probabilities = [part for part, _ in predict([batch()[0]])]
    return {**model.stack.stacked_values(), "probabilities": probabilities[0]}


def largest_difference(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Over all entries."""
    return tiny.largest_difference(list(one.values()), list(other.values()))


def crossings(function: Any, *arguments: tf.Tensor) -> list[tuple[str, int]]:
    """Name and bytes of every tensor that a call of a tf.function that was not called yet sends between devices."""
    concrete = function.get_concrete_function(*arguments)
    context.context().enable_graph_collection()
    try:
        function(*arguments)
        graphs = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_graph_collection()
    found = next((graph for graph in graphs if len(graph.partition_graphs) > 1), None)
    if found is None:
        return []
    whole = _with_shapes(found.post_optimization_graph, [*arguments, *concrete.captured_inputs])
    sent = []
    for node in (node for part in found.partition_graphs for node in part.node):
        if node.op == "_Send" and "/ctrl/" not in node.input[0]:
            name = node.input[0] if ":" in node.input[0] else f"{node.input[0]}:0"
            tensor = whole.get_tensor_by_name(name)
            sent.append((name, tensor.shape.num_elements() * tensor.dtype.size))
    return sent


def _with_shapes(definition: Any, inputs: list[tf.Tensor]) -> tf.Graph:
    """The graph with inferred shapes: partitions have none."""
    graph, bare = tf.Graph(), tf.compat.v1.GraphDef()
    bare.library.CopyFrom(definition.library)
    bare.versions.CopyFrom(definition.versions)
    with graph.as_default():
        mapped = {}
        for node in definition.node:
            if node.op == "_Arg":
                given = inputs[node.attr["index"].i]
                mapped[f"{node.name}:0"] = tf.compat.v1.placeholder(given.dtype, given.shape)
                if given.dtype == tf.resource:
                    handle_data_util.copy_handle_data(given, mapped[f"{node.name}:0"])
            elif node.op != "_Retval":
                copy = bare.node.add()
                copy.CopyFrom(node)
                copy.device = ""
                copy.attr.pop("_class", None)
        tf.import_graph_def(bare, input_map=mapped, name="")
    return graph


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "xla": {"jit": "on"},
    "bfloat16": {"precision": "mixed_bfloat16"},
    "float16": {"precision": "mixed_float16"},
    "micro-batches": {"micro_batches": 2},
    "clipped": {"optimizer": lambda: SGD(1e-3, weight_decay=5e-4, global_clipnorm=5.0)},
    "adamw, average": {
        "optimizer": lambda: keras.optimizers.AdamW(1e-3, weight_decay=0.01, use_ema=True, ema_momentum=0.9)
    },
}


def figures(case: str, numbers: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    """For each number of devices: how far training goes, what it differs by, and what crosses between devices."""
    options, found = CASES[case], {}
    initial, alone = stack(None).stacked_values(), state(trained(None, **options)[0])
    for number in numbers:
        placed, sent = trained(CPUS[:number], **options)
        largest = max(placed.stack.trainable_variables, key=lambda variable: variable.value.shape.num_elements())
        buffers = [variable.value for variable in placed.optimizer.variables if len(variable.shape)]
        found[f"{case}, {number} devices"] = {
            "difference": largest_difference(state(placed), alone),
            "moved": max(float(np.abs(initial[name] - alone[name]).max()) for name in initial if "moving" not in name),
            "bad_steps": int(placed.bad_steps.numpy()),
            "crossings": sent,
            "weights_in_a_block": 4 * largest.value.shape.num_elements(),
            "buffers_on": sorted({buffer.device[-5:] for buffer in buffers}),
        }
    return found


if __name__ == "__main__":
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * len(CPUS))
    found = {key: value for case in CASES for key, value in figures(case, (2, 4)).items()}
    pathlib.Path(sys.argv[1]).write_text(json.dumps(found))
