"""The notebook's cells run, one after the other, and end with a verdict."""

import json
import re

import pytest

from tests.docs import pages

NOTEBOOK = pages.DOCS / "notebooks" / "own_photographs.ipynb"


def cells(kind: str) -> list[dict]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.mark.slow
def test_its_cells_run_and_end_with_a_verdict(tmp_path, monkeypatch, capsys):
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = {"__name__": "notebook"}
    for number, cell in enumerate(cells("code")):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "1797 pictures of 10 classes" in printed
    assert re.search(r"S=4 (pays|does not pay)|S=4: no difference seen", printed), printed
    assert (names["work"] / "report.html").is_file()


def test_what_it_shows_was_printed_by_its_cells():
    for cell in cells("code"):
        assert cell["execution_count"] and not any(output["output_type"] == "error" for output in cell["outputs"])
    assert sum("image/png" in output.get("data", {}) for cell in cells("code") for output in cell["outputs"]) == 2


def test_its_links_lead_somewhere():
    for cell in cells("markdown"):
        for link in re.findall(r"\]\(([^)]+)\)", "".join(cell["source"])):
            assert (NOTEBOOK.parent / link).exists(), link
