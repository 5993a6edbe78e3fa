"""divco-launch: workers of one job as processes, none of which needs TensorFlow here."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c"]


def launch(*arguments: str, program: tuple[str, ...] = (sys.executable, "tools/launch.py")) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*program, *arguments], cwd=ROOT, text=True, **pipes)


def test_every_worker_gets_its_own_config_and_leads_its_lines():
    code = "import os, sys; print(os.environ['TF_CONFIG']); print('why', file=sys.stderr); print('end', end='')"
    process = launch("2", *COMMAND, code)
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    told = dict(re.findall(r"^\[worker (\d)\] (\{.*)$", stdout, flags=re.MULTILINE))
    configs = [json.loads(told[index]) for index in "01"]
    assert [config["task"] for config in configs] == [{"type": "worker", "index": 0}, {"type": "worker", "index": 1}]
    assert configs[0]["cluster"] == configs[1]["cluster"] and len(set(configs[0]["cluster"]["worker"])) == 2
    for index in "01":
        assert f"divco-launch: worker {index}: TF_CONFIG='{told[index]}'" in stdout.splitlines()
        assert {f"[worker {index}] why", f"[worker {index}] end"} <= set(stdout.splitlines())


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(3 * index)", 3), ("os.kill(os.getpid(), 9 * index)", 128 + 9), ("sys.exit(0)", 0)]
)
def test_the_status_is_that_of_the_first_worker_that_fails(end, status):
    process = launch(
        "2", *COMMAND, f"import json, os, sys; index = json.loads(os.environ['TF_CONFIG'])['task']['index']; {end}"
    )
    process.communicate()
    assert process.returncode == status


@pytest.mark.parametrize(
    ("sent", "got"), [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGTERM")]
)
def test_signals_go_to_all_workers(sent, got):
    code = """
import signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: (print(signal.Signals(number).name, flush=True), sys.exit(75)))
print("ready", flush=True)
signal.pause()
"""
    process = launch("2", *COMMAND, code)
    ready = 0
    while ready < 2:
        ready += process.stdout.readline().endswith("ready\n")
    os.kill(process.pid, sent)
    stdout, _ = process.communicate()
    assert sorted(stdout.splitlines()) == [f"[worker 0] {got}", f"[worker 1] {got}"]
    assert process.returncode == 75


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Say how many workers, and what they run. Received: nothing;"),
        (["2"], "Received: 2;"),
        (["0", "true"], "Received: 0 true;"),
        (["two", "true"], "Received: two true;"),
        (
            ["2", "no-such-command"],
            "The command cannot be started (No such file or directory). Received: no-such-command.",
        ),
        (["--workers", "2", "true"], "Unknown command line flag 'workers'"),
    ],
)
def test_what_cannot_be_launched_is_refused_in_one_line(divco, monkeypatch, arguments, says):
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own
    assert says in divco.refusal("launch", *arguments)


def test_help_tells_how_and_the_commands_flags_are_its_own(divco):
    result = divco("launch", "--help", "2", "divco-train")
    assert result.status == 0 and "usage: divco-launch WORKERS COMMAND ..." in result.stdout
