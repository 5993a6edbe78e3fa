"""A network is cut into segments that make every call once, where that costs little."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divco_tf.models.call_graph import call_graph
from divco_tf.models.recompute import segments
from tests.models.siblings import SIBLINGS, sibling_stack


@pytest.mark.parametrize("name", SIBLINGS)
def test_segments_make_every_call_once_and_pass_on_what_is_taken(name):
    graph = call_graph(sibling_stack(name).network.template)
    parts, known = segments.segments(graph), set(graph.inputs)
    assert tuple(itertools.chain.from_iterable(part.calls for part in parts)) == graph.calls
    for part in parts:
        assert known.issuperset(part.inputs)
        known |= set(part.outputs)
    assert set(graph.outputs) <= known


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=9))
def test_cuts_are_never_worse_than_none_and_near_the_best(calls):
    costs, kept = map(list, zip(*calls, strict=True))
    costs[-1] = 0

    def total(ends: tuple) -> int:
        parts = [sum(kept[start:end]) for start, end in zip((0, *ends), ends, strict=False)]
        return sum(costs[end - 1] for end in ends[:-1]) + max(parts)

    ends = segments._cuts(costs, kept)
    assert ends[-1] == len(costs) and ends == sorted(set(ends))
    every = [
        (*inner, len(costs))
        for size in range(len(costs))
        for inner in itertools.combinations(range(1, len(costs)), size)
    ]
    best = min(map(total, every))
    assert best <= total(tuple(ends)) <= total((len(costs),))
