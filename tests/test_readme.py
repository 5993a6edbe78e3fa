"""The README's code runs as printed."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"


def blocks(language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("index", range(len(blocks())))
def test_code_runs_as_printed(index, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": f"readme_{index}"}
    exec(compile(blocks()[index], f"README.md block {index}", "exec"), names)
    if "probabilities" in names:
        assert names["probabilities"].shape == (8, 10)
        assert (tmp_path / "ensemble.keras").is_file()
        assert "accuracy" in capsys.readouterr().out


def test_the_quickstart_is_about_twenty_lines():
    lines = [line for line in blocks()[0].splitlines() if line.strip()]
    assert len(lines) <= 22


def test_the_plugin_is_the_one_that_is_tested():
    plugin = README.parent / "tests" / "plugin"
    assert (plugin / "plain_cnn.py").read_text() in blocks()
    assert (plugin / "pyproject.toml").read_text() in blocks("toml")
