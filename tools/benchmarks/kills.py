"""`divco-benchmark kills`: runs that are killed, or whose disk is full, end as an undisturbed one."""

import dataclasses
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from divco_tf.errors import RunError
from divco_tf.runs.records.checkpoints import Checkpoints

KILLS = ("SIGKILL", "SIGTERM", "SIGKILL in a save", "full disk")
KEPT = 3
_COMMON = (
    "options.Options.deterministic=True",
    "options.Options.contact_sheet=False",
    f"options.Options.keep_checkpoints={KEPT}",
)


@dataclasses.dataclass(frozen=True)
class Command:
    """A run of `divco-train` of a minute at most."""

    config: str
    bindings: tuple[str, ...]
    data_dir: str | None = None

    def words(self, model_dir: pathlib.Path) -> list[str]:
        """As a list for `subprocess`."""
        data = [f"--data_dir={self.data_dir}"] if self.data_dir else []
        bindings = [f"--bind={binding}" for binding in (*_COMMON, *self.bindings)]
        train = [sys.executable, "-m", "divco_tf.tools.train"]
        return [*train, f"--config={self.config}", f"--model_dir={model_dir}", *data, *bindings]


DIGITS = Command(
    "digits/wide_resnet10_2_split4",
    (
        "experiment.Experiment.epochs=8",
        "experiment.Experiment.held_out=0.1",
        'experiment.Experiment.overrides={"dropout": 0.1}',
        "options.Options.checkpoint_every=3",
    ),
)


def cifar10(data_dir: str) -> Command:
    """An epoch of real photographs."""
    bindings = (
        'experiment.Experiment.backbone="wide_resnet10_1"',
        "experiment.Experiment.split_factor=2",
        "experiment.Experiment.epochs=1",
        "experiment.Experiment.batch_size=512",
        "experiment.Experiment.held_out=0.02",
        "learning_rate.LearningRate.warmup_epochs=0",
        "options.Options.checkpoint_every=5",
    )
    return Command("cifar10/wide_resnet10_2_split4_cpu", bindings, data_dir)


def run(*, report: Callable[[str], None], data_dir: str | None = None, rounds: int = 5) -> dict[str, Any]:
    """Kills `rounds` runs of each kind in KILLS, and damages each file of a checkpoint, on digits and on CIFAR-10.

    Args:
      data_dir: where CIFAR-10 lies; without it digits alone are trained.
      rounds: runs of each kind and dataset.
      report: called with a line for each run.

    Returns:
      As `step.run`.

    Raises:
      RunError: a run that nobody disturbed has failed.
    """
    random.seed(0)
    rows, systems = [], {}
    commands = {"digits": DIGITS, **({"cifar10": cifar10(data_dir)} if data_dir else {})}
    for name, command in commands.items():
        with tempfile.TemporaryDirectory() as folder:
            undisturbed = Undisturbed(command, pathlib.Path(folder) / "undisturbed")
            report(f"{name}: undisturbed in {undisturbed.seconds:.0f} s")
            for what, disturb in _disturbances(undisturbed, rounds):
                model_dir = pathlib.Path(folder) / f"{len(rows)}"
                found = disturb(undisturbed, model_dir)
                found["same"] = state(model_dir) == undisturbed.state
                systems[f"{name}: {what}"] = found
                told = "bit-identical" if found["same"] else "DIFFERENT"
                rows.append((name, what, str(found["exit"]), found["then"], told))
                report("  ".join(rows[-1]))
                _unmount(model_dir)
    return {
        "head": ("", "disturbed by", "exit", "the same command then", "state and records"),
        "rows": rows,
        "settings": {"rounds": rounds, **{name: dataclasses.asdict(command) for name, command in commands.items()}},
        "systems": systems,
    }


class Undisturbed:
    """A run to its end.

    Attributes:
      seconds: from the first sign of it in its folder to its end.
      state: what `state` says.
      checkpoint_bytes: of its last checkpoint.
    """

    def __init__(self, command: Command, model_dir: pathlib.Path) -> None:
        self.command, self.model_dir = command, model_dir
        process = _start(command, model_dir)
        _wait_for(process, model_dir / "experiment.json")
        start = time.perf_counter()
        output, _ = process.communicate()
        if process.returncode:
            raise RunError(f"An undisturbed run has failed. Received: {_last_line(output)}")
        self.seconds = time.perf_counter() - start
        self.state = state(model_dir)
        last = Checkpoints(model_dir / "checkpoints").all()[-1]
        self.checkpoint_bytes = sum(path.stat().st_size for path in last.path.iterdir())


def state(model_dir: pathlib.Path) -> tuple[str, list[dict[str, Any]]]:
    """Checksums of a last checkpoint (weights, statistics, optimizer, counters), and the records without times."""
    last = Checkpoints(model_dir / "checkpoints").all()[-1]
    last.check()
    records = json.loads((model_dir / "metrics.json").read_text())
    kept = [{key: value for key, value in record.items() if not key.startswith("seconds")} for record in records]
    return (last.path / "SHA256SUMS").read_text(), kept


def _disturbances(undisturbed: Undisturbed, rounds: int) -> list[tuple[str, Callable[..., dict[str, Any]]]]:
    kinds = {
        "SIGKILL": lambda *where: killed(*where, signal.SIGKILL),
        "SIGTERM": lambda *where: killed(*where, signal.SIGTERM),
        "SIGKILL in a save": lambda *where: killed(*where, signal.SIGKILL, in_a_save=True),
        "full disk": out_of_space,
    }
    last = Checkpoints(undisturbed.model_dir / "checkpoints").all()[-1]
    return [
        *((f"{kind} {index + 1}", kinds[kind]) for kind in KILLS for index in range(rounds)),
        *(
            (f"a bit of {path.name}", lambda *where, name=path.name: damaged(*where, name))
            for path in sorted(last.path.iterdir())
        ),
    ]


def killed(
    undisturbed: Undisturbed, model_dir: pathlib.Path, sent: signal.Signals, *, in_a_save: bool = False
) -> dict[str, Any]:
    """Sends a signal at a random instant of a run, or while a checkpoint after it is being written."""
    exit_status = 0
    while exit_status == 0:  # it had ended before
        shutil.rmtree(model_dir, ignore_errors=True)
        process = _start(undisturbed.command, model_dir)
        _wait_for(process, model_dir / "experiment.json")
        instant = random.uniform(0, 0.8 * undisturbed.seconds)
        time.sleep(instant)
        if in_a_save:
            _wait_for(process, model_dir / "checkpoints", ".unfinished-*")
            time.sleep(random.uniform(0, 0.01))
        process.send_signal(sent)
        output, _ = process.communicate()
        exit_status = process.returncode
        if exit_status == 0:  # the machine is less busy than it was
            undisturbed.seconds *= 0.8
    unfinished = len(list((model_dir / "checkpoints").glob(".unfinished-*")))
    found = {"exit": exit_status, "said": _last_line(output), "instant": instant, "unfinished": unfinished}
    return {**found, "then": _go_on(undisturbed.command, model_dir)}


def out_of_space(undisturbed: Undisturbed, model_dir: pathlib.Path) -> dict[str, Any]:
    """Trains on a file system that is full after some checkpoints, makes room, and trains on.

    Raises:
      RunError: no file system can be mounted.
    """
    model_dir.mkdir()
    size = int(undisturbed.checkpoint_bytes * random.uniform(1.2, KEPT + 0.9))
    _mount(model_dir, f"size={size}")
    process = _start(undisturbed.command, model_dir)
    output, _ = process.communicate()
    told = [line for line in output.splitlines() if "could not be written" in line or "cannot be written" in line]
    found = {"exit": process.returncode, "said": _last_line(output), "bytes": size, "told": len(told)}
    _mount(model_dir, f"remount,size={20 * size}")
    return {**found, "then": _go_on(undisturbed.command, model_dir)}


def damaged(undisturbed: Undisturbed, model_dir: pathlib.Path, name: str) -> dict[str, Any]:
    """Flips a bit of a file of the last checkpoint of a finished run."""
    shutil.copytree(undisturbed.model_dir, model_dir)
    file = Checkpoints(model_dir / "checkpoints").all()[-1].path / name
    content = bytearray(file.read_bytes())
    bit = random.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return {"exit": "", "bit": bit, "then": _go_on(undisturbed.command, model_dir)}


def _go_on(command: Command, model_dir: pathlib.Path) -> str:
    """Runs the command to its end; says from where, and which checkpoint it did not use."""
    process = _start(command, model_dir)
    output, _ = process.communicate()
    if process.returncode:
        return f"FAILED: {_last_line(output)}"
    lines = output.splitlines()
    damage = ["names the damage, " for line in lines if line.endswith("It is not used.")]
    going_on = [line.split(" (")[0] for line in lines if line.startswith("going on from")]
    return "".join(damage) + (going_on[0] if going_on else "begins anew")


def _start(command: Command, model_dir: pathlib.Path) -> subprocess.Popen:
    return subprocess.Popen(command.words(model_dir), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _wait_for(process: subprocess.Popen, folder: pathlib.Path, pattern: str | None = None) -> None:
    """Until a file is there, or one of a pattern in a folder, or the process has ended."""
    while process.poll() is None and not (any(folder.glob(pattern)) if pattern else folder.exists()):
        time.sleep(0.001)


def _mount(folder: pathlib.Path, options: str) -> None:
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RunError(f"A small file system is needed (Linux, as root). Received: {done.stderr.strip()}")


def _unmount(folder: pathlib.Path) -> None:
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or [""])[-1][:300]
