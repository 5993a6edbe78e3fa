"""The numbers of a tree."""

import pathlib

import pytest

from divco_tf.tools.reports import tree

FILES = {
    "divco_tf/__init__.py": "from divco_tf import errors\n",
    "divco_tf/errors.py": "LIMIT = 1\n_ODD = other = 2\n\n\nclass E:\n    def told(self):\n        return 1\n",
    "divco_tf/data/__init__.py": "",
    "divco_tf/data/a.py": "from divco_tf.data import b\nfrom divco_tf.models.c import f\nimport keras\n",
    "divco_tf/data/b.py": "if TYPE_CHECKING:\n    from divco_tf.data import a\n",
    "divco_tf/models/c.py": "def f():\n    from divco_tf import errors\n    import divco_tf.data.b\n\n    return 1\n",
    "tools/train.py": "from divco_tf.data import a\nfrom divco_tf.tools import _app\n",
    "tools/_app.py": "def _run(): pass\n",
}


@pytest.fixture
def told(tmp_path, capsys) -> str:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    tree.main(pathlib.Path(tmp_path))
    return capsys.readouterr().out


def test_files_functions_and_names_are_counted(told):
    library, tools = told.split("\ntools\n")
    assert "files             6: 18 lines, median 2.5, most 7 (divco_tf/errors.py)\n" in library
    assert "functions         2: 7 lines, median 3.5, most 5 (divco_tf/models/c.py: f)\n" in library
    assert "names             5 public, 1 private" in library
    assert "names             0 public, 1 private\n" in tools


def test_arrows_lead_from_folder_to_folder_and_circles_are_found(told):
    arrows = dict(line.strip().split(" -> ") for line in told.splitlines() if " -> " in line)
    assert arrows == {
        "divco_tf/__init__.py": "divco_tf/errors.py",
        "divco_tf/data": "divco_tf/models",
        "divco_tf/models": "divco_tf/data, divco_tf/errors.py",
        "tools": "divco_tf/data",
    }
    assert "circles of files: 0\n" in told
    assert "circles of folders: 1\n  divco_tf/data <-> divco_tf/models\n" in told and "folders: 5\n" in told


def test_a_circle_of_files_is_found():
    assert tree.circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == {("b", "c")}
