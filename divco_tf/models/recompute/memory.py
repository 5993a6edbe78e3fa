"""What a training step needs of memory, estimated from shapes: no weights are built, nothing is traced."""

import dataclasses
import math
from typing import Any

import keras

from divco_tf.errors import InputError
from divco_tf.models.call_graph import call_graph
from divco_tf.models.recompute.segments import segments


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Bytes on one device.

    Attributes:
      state: weights, statistics and the optimizer's slots, which live from step to step.
      gradients: of the weights, and the sum of those of the micro-batches so far. Branches' shares of stacked weights
        are no copies: what is unstacked along the first axis shares its memory (TensorFlow 2.21).
      activations: what is alive at most of the forward pass, with the gradient's own working memory.
    """

    state: int
    gradients: int
    activations: int

    @property
    def step(self) -> int:
        """What a step takes beside the state."""
        return self.gradients + self.activations

    @property
    def total(self) -> int:
        """State and step."""
        return self.state + self.step


def step_memory(
    template: keras.Model,
    *,
    batch_size: int,
    split_factor: int = 1,
    micro_batches: int = 1,
    remat: bool = False,
    branches_in_turn: bool = False,
    slots: int = 1,
) -> StepMemory:
    """Estimates the memory of a training step of S branches.

    Activations are those that TensorFlow's gradients read (`segments.kept_for_gradient`), in the template's
    precision; an operation that is not known there is taken to keep its inputs and outputs.

    Args:
      template: a branch's, as `build_template` makes it.
      batch_size: images a device and step.
      split_factor: S.
      micro_batches: as `CoTrainingModel`'s.
      remat: as `CoTrainingModel`'s.
      branches_in_turn: as `CoTrainingModel`'s.
      slots: of the optimizer for each weight: 1 for SGD with momentum, 2 for Adam, one more for an average of weights.

    Raises:
      InputError: a number is not positive, or micro-batches do not divide the batch.
    """
    numbers = {"batch_size": batch_size, "split_factor": split_factor, "micro_batches": micro_batches}
    for name, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is no number from 1. Received: {value!r}; pass 1, 2, ...")
    if batch_size % micro_batches:
        raise InputError(f"micro_batches={micro_batches} does not divide the batch. Received: {batch_size} images.")
    weights, statistics = split_factor * _size(template.trainable_variables), _size(template.non_trainable_variables)
    an_example = _activations(template, split_factor, remat=remat, in_turn=branches_in_turn)
    return StepMemory(
        state=weights * (1 + slots) + split_factor * statistics,
        gradients=weights * (2 if micro_batches > 1 else 1),
        activations=batch_size // micro_batches * an_example,
    )


def _activations(template: keras.Model, split_factor: int, *, remat: bool, in_turn: bool) -> int:
    """Bytes an example: a segment's, or a network's, with what lies at the cuts."""
    graph = call_graph(template)
    parts = segments(graph)
    at_once = 1 if in_turn else split_factor
    working = 2 * max(graph.bytes_of(call.outputs) for call in graph.calls)  # a gradient, and the one made of it
    if not remat:
        return at_once * (sum(part.kept for part in parts) + working)
    cuts = sum(graph.bytes_of(part.outputs) for part in parts[:-1])
    return split_factor * cuts + at_once * (max(part.kept for part in parts) + working)


def _size(variables: list[Any]) -> int:
    return 4 * sum(math.prod(variable.shape) for variable in variables)
