"""Less memory for more work: activations computed again in the backward pass, segment by segment.

Recomputation trades one more forward pass for activations that need not be kept ("Training Deep Nets with Sublinear
Memory Cost", Chen et al., arXiv 1604.06174). What is computed again takes weights, statistics and draws as arguments:
it is the same function, of the same numbers, so its gradient is the plain one's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from divco_tf import compat
from divco_tf.errors import InputError
from divco_tf.models.call_graph import Call, CallGraph, call_graph
from divco_tf.models.recompute.segments import Segment, segments
from divco_tf.models.template import weights_and_statistics

Tensors = Sequence[tf.Tensor]
Recomputable = Callable[[list, list], tuple[list, list]]
"""(floating tensors that have gradients, others) -> (outputs that have gradients, others)."""


def recomputed(function: Recomputable, inputs: Tensors, others: Tensors) -> tuple[list, list]:
    """`function(inputs, others)`, whose gradient runs it again instead of keeping what it computed.

    The second run begins when the gradient of the first one's outputs is there, and takes copies of all arguments
    that depend on it: else TensorFlow would merge equal operations of both, or start the second early.

    Args:
      function: pure, see `Recomputable`. It is made from Python twice, so better a `tf.function`.
      inputs: floating tensors; they get gradients.
      others: tensors that get none.

    Returns:
      What the function returns; its second list has no gradient.
    """
    count = 0

    @tf.custom_gradient
    def run(*inputs: tf.Tensor) -> tuple:
        nonlocal count
        # No tape watches what is behind stop_gradient: a nested function then hands out none of its inner values.
        outputs, rest = function([tf.stop_gradient(x) for x in inputs], list(others))
        count = len(outputs)

        def gradient(*upstream: tf.Tensor) -> list:
            upstream = upstream[:count]
            with when_there(upstream):
                again, others_again = [tf.identity(x) for x in inputs], [tf.identity(x) for x in others]
            with tf.GradientTape() as tape:
                tape.watch(again)
                outputs, _ = function(again, others_again)
            gradients = tape.gradient(outputs, again, output_gradients=upstream, unconnected_gradients="zero")
            # All at once: else gradients of weights would wait, with all they need, while the way back is pursued.
            with when_there(gradients):
                return [tf.identity(x) for x in gradients]

        return (*outputs, *(tf.stop_gradient(x) for x in rest)), gradient

    results = run(*inputs)
    return list(results[:count]), list(results[count:])


def when_there(tensors: Tensors) -> Any:
    """What is made in this context waits for the tensors.

    To wait for a function call itself would be to wait for its side effects only, once it is inlined (TensorFlow 2.21).
    """
    return tf.control_dependencies([tf.identity(x) for x in tensors])


def segmented(template: keras.Model, *, training: bool, jit: bool, keep_last: bool = True) -> Callable:
    """A template as a function that recomputes its segments.

    Args:
      template: (image, draw) -> logits.
      training: as the network is run.
      jit: compile each segment by XLA. Segments are compiled apart: inside of one computation XLA would be free to keep
        activations.
      keep_last: do not recompute the last segment, whose gradient comes first.

    Returns:
      (weights, statistics, view, draw) -> (logits, new statistics), as `template.stateless_call` gives them.

    Raises:
      InputError: it is no functional model of an image and a draw.
    """
    if compat.nodes_of(template) is None or len(template.inputs) != 2 or len(template.outputs) != 1:
        raise InputError(
            f"Recomputation takes a functional model (image, draw) -> logits. Received: {template!r}; a backbone's "
            "template is one."
        )
    graph = call_graph(template)
    trainable, state = (
        {id(variable): place for place, variable in enumerate(variables)}
        for variables in weights_and_statistics(template)
    )
    parts = [_Part(segment, graph, trainable, state, training=training, jit=jit) for segment in segments(graph)]

    def network(weights: list, statistics: list, view: tf.Tensor, draw: tf.Tensor) -> tuple:
        statistics = list(statistics)
        tensors = {
            number: tf.cast(value, graph.tensors[number].dtype)
            for number, value in zip(graph.inputs, (view, draw), strict=True)
        }
        for part in parts:
            part(tensors, weights, statistics, recompute=not (keep_last and part is parts[-1]))
        return tensors[graph.outputs[0]], statistics

    return network


class _Part:
    """A segment as a `Recomputable`, and what it takes of the tensors, weights and statistics."""

    def __init__(
        self,
        segment: Segment,
        graph: CallGraph,
        trainable: dict[int, int],
        state: dict[int, int],
        *,
        training: bool,
        jit: bool,
    ) -> None:
        variables = {id(variable): variable for call in segment.calls for variable in call.variables}
        self._weights = {trainable[key]: variable for key, variable in variables.items() if key in trainable}
        self._statistics = {state[key]: variable for key, variable in variables.items() if key in state}
        self._segment = segment
        self._training = training

        def floating(numbers: Sequence[int]) -> list[int]:
            return [n for n in numbers if keras.backend.is_float_dtype(graph.tensors[n].dtype)]

        self._inputs, self._outputs = floating(segment.inputs), floating(segment.outputs)
        self._other_inputs = [number for number in segment.inputs if number not in self._inputs]
        self._other_outputs = [number for number in segment.outputs if number not in self._outputs]
        self._function = tf.function(self._run, jit_compile=jit, autograph=False)

    def __call__(self, tensors: dict[int, tf.Tensor], weights: list, statistics: list, *, recompute: bool) -> None:
        """Adds the outputs to `tensors` and puts the new values into `statistics`."""
        inputs = [*(tensors[n] for n in self._inputs), *(weights[place] for place in self._weights)]
        others = [*(tensors[n] for n in self._other_inputs), *(statistics[place] for place in self._statistics)]
        outputs, rest = recomputed(self._function, inputs, others) if recompute else self._function(inputs, others)
        tensors.update(zip((*self._outputs, *self._other_outputs), (*outputs, *rest), strict=False))
        new = rest[len(self._other_outputs) :]
        for place, value in zip(self._statistics, new, strict=True):
            statistics[place] = value

    def _run(self, inputs: list, others: list) -> tuple[list, list]:
        count, other_count = len(self._inputs), len(self._other_inputs)
        tensors = dict(zip((*self._inputs, *self._other_inputs), (*inputs[:count], *others[:other_count]), strict=True))
        values = (*inputs[count:], *others[other_count:])
        variables = (*self._weights.values(), *self._statistics.values())
        with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)) as scope:
            for call in self._segment.calls:
                _make(call, tensors, training=self._training)
            new = [scope.get_current_value(variable) for variable in self._statistics.values()]
        return [tensors[n] for n in self._outputs], [*(tensors[n] for n in self._other_outputs), *new]


def _make(call: Call, tensors: dict[int, tf.Tensor], *, training: bool) -> None:
    """Makes a call as a functional model does, which tells every operation that asks whether this is training."""
    named = {id(symbol): tensors[n] for symbol, n in zip(call.node.input_tensors, call.inputs, strict=True)}
    arguments, options = call.node.arguments.fill_in(named)
    results = compat.operation_called(call.operation, training=training)(*arguments, **options)
    tensors.update(zip(call.outputs, keras.tree.flatten(results), strict=True))
