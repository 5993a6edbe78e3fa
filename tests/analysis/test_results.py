import concurrent.futures
import json

import pytest

from divco_tf.analysis.results import RESULTS, add_row, read_rows
from divco_tf.errors import InputError


def row(cell, status="done", **more):
    return {"cell": cell, "status": status, **more}


def test_rows_come_back_in_the_order_in_which_they_were_added(tmp_path):
    assert read_rows(tmp_path) == []
    add_row(tmp_path, row("b", accuracy=0.5))
    add_row(tmp_path, row("a", "failed", reason="no"))
    assert [each["cell"] for each in read_rows(tmp_path)] == ["b", "a"]


def test_a_cells_row_takes_the_place_of_its_older_one(tmp_path):
    add_row(tmp_path, row("a", "failed", reason="no"))
    add_row(tmp_path, row("b"))
    add_row(tmp_path, row("a"))
    assert [(each["cell"], each["status"]) for each in read_rows(tmp_path)] == [("b", "done"), ("a", "done")]


def test_rows_that_are_added_at_once_are_all_there(tmp_path):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add_row(tmp_path, row(str(number))), range(24)))
    assert {each["cell"] for each in read_rows(tmp_path)} == set(map(str, range(24)))


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"cell": "a"}', '{"cell": 1, "status": "done"}'])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    (tmp_path / RESULTS).write_text(json.dumps(row("a")) + "\n" + line + "\n")
    with pytest.raises(InputError, match="Received: line 2 of .*results.jsonl; remove that line"):
        read_rows(tmp_path)
