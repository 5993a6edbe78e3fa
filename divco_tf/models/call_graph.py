"""A functional model as a list of calls."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras

from divco_tf import compat


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a Keras operation; tensors are numbered, and a nested model's are the outer one's.

    Attributes:
      node: Keras's record of the call, with its arguments.
      inputs: numbers of `node.input_tensors`.
      outputs: numbers of `node.outputs`.
    """

    node: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def operation(self) -> Any:
        """The layer or operation that is called."""
        return self.node.operation

    @functools.cached_property
    def variables(self) -> list[keras.Variable]:
        """The layer's variables, the states of its random seeds included."""
        return list(self.operation.variables) if isinstance(self.operation, keras.Layer) else []


@dataclasses.dataclass(frozen=True)
class CallGraph:
    """The calls of a functional model in an order in which they can be made.

    Attributes:
      inputs: numbers of the model's inputs.
      calls: the calls.
      outputs: numbers of the model's outputs.
      tensors: Keras's symbolic tensor of each number.
    """

    inputs: tuple[int, ...]
    calls: tuple[Call, ...]
    outputs: tuple[int, ...]
    tensors: dict[int, Any]

    def live(self) -> list[frozenset[int]]:
        """After each call, the tensors made by then that a later call or the output takes; inputs left out."""
        alive, after = set(self.outputs), []
        for call in reversed(self.calls):
            after.append(frozenset(alive) - set(self.inputs))
            alive = (alive - set(call.outputs)) | set(call.inputs)
        return after[::-1]

    def bytes_of(self, numbers: Any) -> int:
        """Bytes an example of these tensors."""
        return sum(bytes_of(self.tensors[number]) for number in numbers)


def call_graph(model: keras.Model) -> CallGraph:
    """The calls of a functional model; functional models that it calls are taken apart."""
    counter, tensors = itertools.count(), {}
    numbers = {}
    for tensor in model.inputs:
        numbers[id(tensor)] = number = next(counter)
        tensors[number] = tensor
    inputs = tuple(numbers.values())
    calls = tuple(_calls(model, numbers, tensors, counter))
    return CallGraph(inputs, calls, tuple(numbers[id(tensor)] for tensor in model.outputs), tensors)


def _calls(model: Any, numbers: dict[int, int], tensors: dict[int, Any], counter: Iterator[int]) -> Iterator[Call]:
    """`numbers` are those of symbolic tensors by identity, of one call of the model: it may be called again."""
    for node in compat.nodes_of(model):
        if node.is_input:
            continue
        inputs = tuple(numbers[id(tensor)] for tensor in node.input_tensors)
        inner = node.operation
        if _can_be_taken_apart(node):
            within = dict(zip(map(id, inner.inputs), inputs, strict=True))
            yield from _calls(inner, within, tensors, counter)
            for tensor, inside in zip(node.outputs, inner.outputs, strict=True):
                numbers[id(tensor)] = within[id(inside)]
            continue
        for tensor in node.outputs:
            numbers[id(tensor)] = number = next(counter)
            tensors[number] = tensor
        yield Call(node, inputs, tuple(numbers[id(tensor)] for tensor in node.outputs))


def _can_be_taken_apart(node: Any) -> bool:
    """Whether calling the node's operation is no more than calling what is in it."""
    inner = node.operation
    if not compat.is_functional(inner):
        return False
    given = [(tensor.shape, tensor.dtype) for tensor in node.input_tensors]
    return given == [(tensor.shape, tensor.dtype) for tensor in inner.inputs]


def bytes_of(tensor: Any) -> int:
    """Bytes an example of a symbolic tensor."""
    size = tensor.dtype and keras.backend.standardize_dtype(tensor.dtype)
    return math.prod(tensor.shape[1:]) * (1 if size == "bool" else _WIDTHS.get(size, 4))


_WIDTHS = {"float16": 2, "bfloat16": 2, "float64": 8, "int64": 8, "uint64": 8, "int8": 1, "uint8": 1}
