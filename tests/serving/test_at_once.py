"""Two processes that write into one place at once: of each round, who wrote what, who was refused, and nothing else."""

import collections
import multiprocessing
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from divco_tf import files
from divco_tf.data.preprocessing import Preprocessing
from divco_tf.errors import InputError
from divco_tf.runs.imported import import_checkpoint
from divco_tf.runs.model_dir import load, open_model_dir
from divco_tf.serving.export import export_stack, read_record
from divco_tf.torch_files.checkpoint import TorchCheckpoint
from tests.models.test_torch_weights import state_dict
from tests.tiny import tiny_stack

ROUNDS = 20


def exporter(number: int, version: int | None) -> Callable[[pathlib.Path], Any]:
    stack = tiny_stack()
    bias = next(variable for variable in stack.variables if variable.path.endswith("fc.bias"))
    bias.assign(np.full(bias.shape, number))
    preprocessing = Preprocessing(image_size=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    settings = {"preprocessing": preprocessing, "class_names": "abc", "record": {"number": number}, "version": version}
    return lambda folder: export_stack(stack, export_dir=folder, **settings).name


def importer(number: int) -> Callable[[pathlib.Path], Any]:
    state = {name: np.full_like(array, number) for name, array in state_dict(tiny_stack(num_classes=10)).items()}
    checkpoint = TorchCheckpoint(pathlib.Path(f"{number}.pth"), "", state, {})
    network = {"backbone": "tiny", "split_factor": 2, "num_classes": 10, "dataset": "digits"}
    return lambda folder: import_checkpoint(checkpoint, model_dir=folder, **network).imported["file"]


def writer(number: int) -> Callable[[pathlib.Path], Any]:
    def write(path: pathlib.Path) -> None:
        for _ in range(50):
            files.write_json(path, [number] * 10_000)

    return write


KINDS = {
    "exports": lambda number: exporter(number, None),
    "exports of one version": lambda number: exporter(number, 7),
    "imports": importer,
    "writes": writer,
}


def work(number: int, kind: str, folder: pathlib.Path, barrier: Any, said: Any) -> None:
    act = None
    for turn in range(ROUNDS):
        barrier.wait()
        try:
            act = act or KINDS[kind](number)
            said.put((turn, number, act(folder / str(turn))))
        except InputError as error:
            said.put((turn, number, f"refused: {error}"))
        except BaseException as error:
            said.put((turn, number, f"failed: {error!r}"))


def check_export(folder: pathlib.Path, said: dict[int, str]) -> None:
    assert sorted(os.listdir(folder)) == sorted(version for version in said.values() if version.isdecimal())
    for number, version in said.items():
        if version.isdecimal():
            assert read_record(folder / version)["number"] == number
            stored = tf.train.load_checkpoint(str(folder / version / "variables" / "variables"))
            names = [name for name, shape in stored.get_variable_to_shape_map().items() if shape == [2, 3]]
            assert [stored.get_tensor(name).tolist() for name in names] == [[[number] * 3] * 2]
            tf.saved_model.load(str(folder / version))


def check_import(folder: pathlib.Path, said: dict[int, str]) -> None:
    (number,) = (number for number, file in said.items() if not file.startswith("refused"))
    assert open_model_dir(folder).imported["file"] == f"{number}.pth"
    assert all(np.all(variable.numpy() == number) for variable in load(folder).variables)


def check_file(path: pathlib.Path, said: dict[int, None]) -> None:
    assert path.read_text() in ["".join(["[\n", ",\n".join([f" {number}"] * 10_000), "\n]\n"]) for number in said]


CHECKS = {
    "exports": check_export,
    "exports of one version": check_export,
    "imports": check_import,
    "writes": check_file,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_write_whole_results_or_are_refused(tmp_path, kind):
    # The server of forks imports TensorFlow once, and starts none of its threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["divco_tf.serving.export", "divco_tf.runs.imported", "tests.tiny"])
    barrier, queue = context.Barrier(2), context.Queue()
    processes = [context.Process(target=work, args=(number, kind, tmp_path, barrier, queue)) for number in (1, 2)]
    for process in processes:
        process.start()
    said = collections.defaultdict(dict)
    for _ in range(2 * ROUNDS):
        turn, number, outcome = queue.get(timeout=120)
        said[turn][number] = outcome
    for process in processes:
        process.join()
    for turn, outcomes in said.items():
        CHECKS[kind](tmp_path / str(turn), outcomes)
    assert sorted(os.listdir(tmp_path)) == sorted(map(str, range(ROUNDS)))  # nothing unfinished, and nothing else
    told = [str(outcome).partition(":")[0] for outcomes in said.values() for outcome in outcomes.values()]
    counts = {word: told.count(word) for word in ("refused", "failed")}
    print(f"{kind}: {len(told)} tried, {counts['refused']} refused, {counts['failed']} failed")
    refused = ROUNDS if kind in ("exports of one version", "imports") else 0
    assert counts == {"refused": refused, "failed": 0}
