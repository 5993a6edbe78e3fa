"""tools/gpu.sh's parts: what fails or hangs is recorded, and the others go on."""

import json
import pathlib
import re
import time

import pytest

from divco_tf.tools.laboratory import gpu
from divco_tf.tools.laboratory.gpu import Part, run_part, told

CONFIGS = pathlib.Path(__file__).parents[3] / "gin"


def python(code: str, name: str = "a part", result: pathlib.Path | None = None) -> Part:
    return Part(name, ("-c", code), result)


def test_a_part_is_recorded_with_what_it_wrote(tmp_path):
    result = tmp_path / "step.json"
    result.write_text("an earlier run's")
    part = python(f"open({str(result)!r}, 'w').write('[1, 2]'); print('x'); print('done')", "step", result)
    record = run_part(part, tmp_path, 60)
    assert (record["status"], record["last_line"], record["result"]) == ("ok", "done", [1, 2])
    assert (tmp_path / "step.txt").read_text() == "x\ndone\n"


def test_a_part_that_fails_is_recorded_with_its_last_line(tmp_path):
    result = tmp_path / "step.json"
    result.write_text("[]")
    record = run_part(python("import sys; print('why'); sys.exit(3)", "step", result), tmp_path, 60)
    assert (record["status"], record["last_line"], record["result"]) == ("failed (3)", "why", None)
    assert "why" in told([record], tmp_path)


def test_a_part_over_its_limit_is_ended_with_its_children(tmp_path):
    code = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""
    record = run_part(python(code), tmp_path, 3)
    assert record["status"] == "over 3 s"
    until = time.monotonic() + 10
    while running(record["last_line"]) and time.monotonic() < until:
        time.sleep(0.05)
    assert not running(record["last_line"])


def running(pid: str) -> bool:
    """Whether the process is there, and no zombie that nobody has waited for."""
    try:
        return pathlib.Path(f"/proc/{int(pid)}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_the_table_holds_training_and_the_benchmarks_tables(tmp_path):
    (tmp_path / "step.txt").write_text("round 1\n   a step s\n-  --------\nx  1.000\n\n")
    metrics = [{"seconds_per_step": 9.0, "accuracy": 0.1}, {"seconds_per_step": 0.25, "accuracy": 0.5}]
    common = {"command": "", "seconds": 1.0, "last_line": "", "status": "ok"}
    text = told(
        [{"name": "train S=1", "result": metrics, **common}, {"name": "step", "result": {}, **common}], tmp_path
    )
    assert re.search(r"train S=1 +ok +1 +250.0 +50.00\n", text)
    assert text.endswith("step\n\n   a step s\n-  --------\nx  1.000\n")


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("data_dir", [None, "data"])
def test_rows_name_configs_that_exist_and_differ(small, data_dir, tmp_path):
    parts = list(gpu.rows(tmp_path, data_dir, small=small))
    assert len({part.name for part in parts}) == len({part.result for part in parts}) == len(parts)
    for part in parts:
        (config,) = [text.removeprefix("--config=") for text in part.arguments if text.startswith("--config=")]
        assert (CONFIGS / f"{config}.gin").is_file()
        assert config.startswith("cifar10/" if data_dir and not small else "digits/")
        assert any(text.startswith("--data_dir") for text in part.arguments) == config.startswith("cifar10/")
    told_by = json.dumps([part.arguments for part in parts])
    assert all(
        word in told_by for word in ("mirrored", "branch_parallel", "mixed_bfloat16", "split1" if not small else "")
    )


def test_the_benchmarks_are_commands_with_a_result_each(tmp_path):
    parts = list(gpu.benchmarks(tmp_path, small=False))
    assert [part.name for part in parts] == ["step", "scaling", "memory", "latency", "compile", "xla", "checkpoint"]
    assert all(part.arguments[-1] == f"--out={part.result}" for part in parts)
