"""How much memory there is for decoded images."""

import psutil
import pytest

from divco_tf.data.sources import request
from divco_tf.data.sources.request import in_bytes, memory_budget_of


def test_the_default_budget_is_a_quarter_of_what_is_free(monkeypatch):
    monkeypatch.setattr(request, "_available", lambda: 1000)
    assert memory_budget_of(None) == 250 and memory_budget_of(7) == 7 and memory_budget_of(0) == 0


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("5000000\n", 4_000_000), ("400000\n", 0), ("max\n", None), (str(2**62), None), ("rubbish", None)],
)
def test_a_containers_limit_counts_where_it_is_below_the_machines(tmp_path, monkeypatch, limit, expected):
    machine = 10**12
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": machine}))
    assert request._available(tmp_path / "no group") == machine
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.stat").write_text("anon 1000000\nfile 3000000\n")
    assert request._available(tmp_path) == (machine if expected is None else expected)


@pytest.mark.parametrize(
    ("count", "told"), [(0, "0.0 kB"), (33_800, "33.8 kB"), (1e6, "1.0 MB"), (1.54e8, "154.0 MB"), (12.34e9, "12.3 GB")]
)
def test_bytes_are_told_in_a_unit_for_people(count, told):
    assert in_bytes(count) == told
