"""Runs the benchmarks and a few hundred steps of CIFAR-10's rows on the GPUs there are: tools/gpu.sh --data_dir data.

Every part runs in a process of its own, with a time limit. One that fails is recorded with its last line, and the
others go on. --out gets result.json, table.txt and the output of each part.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

from divco_tf import files
from divco_tf.errors import InputError
from divco_tf.tools.shared import app
from divco_tf.tools.shared.tables import table

TOOLS = pathlib.Path(__file__).parents[1]
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
STRATEGIES = ("one_device", "mirrored", "branch_parallel")
MACHINE = """
import json
from divco_tf.tools.shared import app
app.load_tensorflow()
from divco_tf.tools.benchmarks.step import machine
print(json.dumps(machine()))
"""


@dataclasses.dataclass(frozen=True)
class Part:
    """What runs in one process.

    Attributes:
      name: in the table, and of the files.
      arguments: of Python.
      result: the JSON file that the process writes, if it does: a benchmark's result or a run's metrics.
    """

    name: str
    arguments: tuple[str, ...]
    result: pathlib.Path | None = None


def main() -> None:
    """Runs the parts one after the other, prints and writes what came of them."""
    small, out = flags.FLAGS.small, pathlib.Path(flags.FLAGS.out)
    if flags.FLAGS.data_dir and not pathlib.Path(flags.FLAGS.data_dir).is_dir():
        raise InputError(f"--data_dir is no folder. Received: {flags.FLAGS.data_dir}; leave it out to train on digits.")
    limit = 240.0 if small and flags.FLAGS["limit"].using_default_value else flags.FLAGS.limit
    parts = [
        Part("machine", ("-c", MACHINE)),
        *benchmarks(out, small=small),
        *rows(out, flags.FLAGS.data_dir, small=small),
    ]
    if flags.FLAGS.only:
        parts = [part for part in parts if part.name.startswith(("machine", *flags.FLAGS.only))]
    if not flags.FLAGS.data_dir:
        print("no --data_dir: the training rows are digits' and not CIFAR-10's", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    records = []
    for part in parts:
        records.append(run_part(part, out, limit))
        print(f"{part.name}: {records[-1]['status']}, {records[-1]['seconds']:.0f} s", flush=True)
        files.write_json(out / "result.json", records)
    text = told(records, out)
    (out / "table.txt").write_text(text)
    print(f"\n{text}\n{out}: result.json, table.txt, and the output of each part")


def benchmarks(out: pathlib.Path, *, small: bool) -> Iterator[Part]:
    """The benchmarks, in sizes for a GPU or, `small`, for trying."""
    network, largest = ("wide_resnet10_2",) * 2 if small else ("wide_resnet16_8", "wide_resnet28_10")
    turns = ("--rounds=2", "--steps=1") if small else ("--rounds=10", "--steps=10")
    batch = "--batch_size=4" if small else "--batch_size=128"
    deep = ("--backbones=wide_resnet10_2", "--split_factor=2", "--batch_size=2") if small else ()
    families = ("--backbones=wide_resnet16_8", batch) if small else ("--batch_size=64",)
    sizes = ("--split_factors=1,4", f"--backbones={network}") if small else ()
    arguments = {
        "step": (f"--backbone={network}", "--split_factor=4", batch, "--xla", *turns),
        "scaling": (*sizes, batch, *turns),
        "memory": (f"--backbone={network}", batch) if small else (),
        "latency": (f"--backbones={network}", "--split_factors=1,2", *turns) if small else (turns[0],),
        "compile": deep,
        "xla": (*families, *turns),
        "checkpoint": (f"--backbone={largest}", "--split_factor=4", batch, turns[0]),
    }
    for name, options in arguments.items():
        result = out / f"{name}.json"
        yield Part(name, (str(TOOLS / "benchmark.py"), name, *options, f"--out={result}"), result)


def rows(out: pathlib.Path, data_dir: str | None, *, small: bool) -> Iterator[Part]:
    """An epoch of CIFAR-10's rows for WRN-16-8, 390 steps; without data, or `small`, of digits'."""
    config = "cifar10/wide_resnet16_8" if data_dir and not small else "digits/wide_resnet10_2"
    plain = {"jit": "off", "precision": "float32", "strategy": "one_device"}
    ways = [
        {"split": split, **plain, "jit": jit, "precision": precision}
        for split, jit, precision in itertools.product((1, 4), ("off", "on"), PRECISIONS)
        if not small or (split == 4 and (jit, precision) in (("off", "float32"), ("off", "mixed_bfloat16")))
    ]
    ways += [{"split": 4, **plain, "strategy": strategy} for strategy in STRATEGIES[1:]]
    for way in ways:
        name = "train " + ", ".join([f"S={way['split']}", way["strategy"], way["precision"], f"jit={way['jit']}"])
        model_dir = out / name.replace(", ", "_").replace(" ", "_")
        bindings = {
            "experiment.Experiment.epochs": 3 if "digits" in config and not small else 1,
            "experiment.Experiment.precision": way["precision"],
            "learning_rate.LearningRate.warmup_epochs": 0,
            "losses.CoTraining.warmup_epochs": 0,
            "options.Options.jit": way["jit"],
            "options.Options.strategy": way["strategy"],
        }
        bound = [f"--bind={key}={value!r}" for key, value in bindings.items()]
        data = [f"--data_dir={data_dir}"] if "cifar10" in config else []
        command = (f"--config={config}_split{way['split']}", f"--model_dir={model_dir}", *data, *bound)
        yield Part(name, (str(TOOLS / "train.py"), *command), model_dir / "metrics.json")


def run_part(part: Part, out: pathlib.Path, limit: float) -> dict[str, Any]:
    """Runs it to its end or its limit.

    Returns:
      name, command, status, seconds, last_line, and result: what the process wrote as JSON, or None.
    """
    log = out / f"{part.name.replace(', ', '_').replace(' ', '_')}.txt"
    if part.result is not None:  # an earlier run's must not pass for this one's
        part.result.unlink(missing_ok=True)
        if part.result.name == "metrics.json":
            shutil.rmtree(part.result.parent, ignore_errors=True)
    command, start = [sys.executable, *part.arguments], time.perf_counter()
    with log.open("w") as output:
        # A session of its own: the benchmarks' workers end with it.
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(limit)
            status = "ok" if code == 0 else f"failed ({code})"
        except subprocess.TimeoutExpired:
            status = f"over {limit:g} s"
        finally:
            _end(process)
    lines = log.read_text(errors="replace").strip().splitlines() or [""]
    result = json.loads(part.result.read_text()) if part.result and part.result.is_file() else None
    return {
        "name": part.name,
        "command": " ".join(map(str, part.arguments)),
        "status": status,
        "seconds": time.perf_counter() - start,
        "last_line": lines[-1],
        "result": json.loads(lines[-1]) if part.name == "machine" and status == "ok" else result,
    }


def _end(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def told(records: Sequence[dict[str, Any]], out: pathlib.Path) -> str:
    """The records as a table, and below it the tables of the benchmarks that came to their end."""
    cells = []
    for record in records:
        trained = record["name"].startswith("train") and record["status"] == "ok"
        last = record["result"][-1] if trained else {}
        cells.append(
            (
                record["name"],
                record["status"],
                f"{record['seconds']:.0f}",
                f"{1e3 * last['seconds_per_step']:.1f}" if last.get("seconds_per_step") else "",
                f"{100 * last['accuracy']:.2f}" if last else "",
                "" if record["status"] == "ok" else record["last_line"][:100],
            )
        )
    texts = [table(("", "", "s", "a step ms", "accuracy %", "last line"), cells)]
    for record in records:
        log = out / f"{record['name']}.txt"
        if record["status"] == "ok" and log.is_file() and (found := _tables_in(log.read_text())):
            texts.append(f"{record['name']}\n\n{found}")
    return "\n\n".join(texts) + "\n"


def _tables_in(output: str) -> str:
    """What a benchmark printed from the head of its first table on, the line above the first rule."""
    lines = output.splitlines()
    first = next((index for index, line in enumerate(lines) if set(line) == {"-", " "}), 0)
    return "\n".join(lines[first - 1 :]).rstrip() if first else ""


def _define_flags() -> None:
    flags.DEFINE_string("out", "runs/gpu", "The folder for the results; what lies there is written over.")
    flags.DEFINE_string("data_dir", None, "CIFAR-10, prepared by TFDS; without it digits are trained on.")
    flags.DEFINE_bool("small", False, "Small networks, batches and rounds: tries the script within minutes.")
    flags.DEFINE_float("limit", 1200.0, "Seconds for each part; with --small 240 unless given.")
    flags.DEFINE_list("only", None, "Run only the parts whose names begin so: step, train.")


def run() -> None:
    """The script."""
    app.run(main, program="gpu")


if __name__ == "__main__":
    _define_flags()
    run()
