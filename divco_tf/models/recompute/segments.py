"""Where a network is cut for recomputation: planning only, from shapes. `remat` runs the segments."""

import dataclasses
from collections.abc import Sequence

import keras

from divco_tf.models.call_graph import Call, CallGraph, bytes_of
from divco_tf.models.layers import stochastic


@dataclasses.dataclass(frozen=True)
class Segment:
    """Calls that are recomputed together.

    Attributes:
      calls: one after the other.
      inputs: numbers of the tensors it takes, the template's inputs included.
      outputs: numbers of the tensors that later ones, or the template's output, take.
      kept: bytes an example that its gradient needs beside `inputs`.
    """

    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kept: int


def segments(graph: CallGraph) -> list[Segment]:
    """Cuts a network where little is live, so that what lies at the cuts and in the largest segment is least.

    The cuts are the ends of blocks where a network has such, since one tensor is live there.
    """
    live = graph.live()
    costs = [graph.bytes_of(numbers) for numbers in live]
    kept = _kept_by_position(graph)
    ends = _cuts(costs, kept)
    result, start = [], 0
    for end in ends:
        calls = graph.calls[start:end]
        made = {number for call in calls for number in call.outputs}
        taken = {number for call in calls for number in call.inputs} - made
        outputs = sorted(made & (live[end - 1] | set(graph.outputs)))
        result.append(Segment(calls, tuple(sorted(taken)), tuple(outputs), sum(kept[start:end])))
        start = end
    return result


def _kept_by_position(graph: CallGraph) -> list[int]:
    """Bytes an example that are kept for gradients, at the call that made them."""
    maker = {number: position for position, call in enumerate(graph.calls) for number in call.outputs}
    kept, bytes_at = set(), [0] * len(graph.calls)
    for position, call in enumerate(graph.calls):
        numbers, inside = kept_for_gradient(call)
        kept |= numbers & set(maker)
        bytes_at[position] += inside
    for number in kept:
        bytes_at[maker[number]] += graph.bytes_of([number])
    return bytes_at


def _cuts(costs: Sequence[int], kept: Sequence[int]) -> list[int]:
    """Ends of segments: the least sum of `costs` at the cuts plus largest segment of `kept`.

    For each of several limits to a segment, the cheapest cuts that keep to it are found by dynamic programming.
    """
    count = len(costs)
    before = [0]
    for size in kept:
        before.append(before[-1] + size)
    # Only where no neighbour has less alive; position p is a cut after p calls.
    places = [p for p in range(1, count) if costs[p - 1] <= min(costs[max(p - 2, 0)], costs[p])]
    best_total, best = before[-1], [count]
    for parts in range(2, min(len(places), 40) + 2):
        ends, cost = _cheapest_cuts([0, *places, count], costs, before, limit=before[-1] / parts)
        largest = max(before[end] - before[start] for start, end in zip([0, *ends], ends, strict=False))
        if cost + largest < best_total:
            best_total, best = cost + largest, ends
    return best


def _cheapest_cuts(
    places: Sequence[int], costs: Sequence[int], before: Sequence[int], *, limit: float
) -> tuple[list[int], int]:
    """Cuts of least total cost between segments of at most `limit`, or of neighbouring places further apart."""
    totals, last = [0.0], [0]
    for index in range(1, len(places)):
        start = index - 1
        choice = start
        while start > 0 and before[places[index]] - before[places[start - 1]] <= limit:
            start -= 1
            if totals[start] <= totals[choice]:
                choice = start
        own = costs[places[index] - 1] if index < len(places) - 1 else 0
        totals.append(totals[choice] + own)
        last.append(choice)
    ends, index = [], len(places) - 1
    while index > 0:
        ends.append(places[index])
        index = last[index]
    return ends[::-1], int(totals[-1])


def kept_for_gradient(call: Call) -> tuple[set[int], int]:
    """What TensorFlow keeps of a call until its gradient has been computed.

    Returns:
      numbers of its inputs and outputs that are kept, and bytes an example of what it makes inside.
    """
    layer, inputs, outputs = call.operation, set(call.inputs), set(call.outputs)
    if isinstance(layer, _NOTHING):
        return set(), 0
    if isinstance(layer, stochastic.Dropout):  # its mask
        return set(), bytes_of(call.node.outputs[0]) if layer.rate else 0
    if isinstance(layer, keras.layers.ReLU):
        return outputs, 0
    if isinstance(layer, (*_KERNELS, keras.layers.BatchNormalization)):
        activated = getattr(layer, "activation", None) not in (None, keras.activations.linear)
        return inputs | outputs if activated else inputs, 0
    if isinstance(layer, keras.layers.Multiply):
        return inputs, 0
    if isinstance(layer, keras.layers.Activation) and layer.activation is not keras.activations.relu:
        return inputs, bytes_of(call.node.outputs[0])  # x * sigmoid(x) keeps both factors
    return inputs | outputs, 0


_NOTHING = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.AveragePooling2D,
    keras.layers.Concatenate,
    keras.layers.Cropping2D,
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Reshape,
    keras.layers.UpSampling2D,
    keras.layers.ZeroPadding2D,
    stochastic.ChannelDropout,
    stochastic.DropPath,
    stochastic.ShakeDrop,
    stochastic.ShakeShake,
)
"""Their gradients need shapes, or a number an example or channel, only."""

_KERNELS = (keras.layers.Conv2D, keras.layers.Dense, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)
