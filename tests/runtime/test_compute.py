import json
import os
import subprocess
import sys

import pytest
import tensorflow as tf

from divco_tf.errors import InputError
from divco_tf.runtime.compute import JIT, resolve_jit, share_cores
from tests import tiny


@pytest.mark.parametrize("devices", [[], ["GPU"], ["TPU"]], ids=str)
def test_auto_compiles_for_accelerators_only(monkeypatch, devices):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["device"] if kind in devices else [])
    assert resolve_jit("auto") == resolve_jit() == bool(devices)
    assert resolve_jit("on") is True
    assert resolve_jit("off") is False


def test_another_word_is_refused_in_one_line():
    with pytest.raises(InputError) as error:
        resolve_jit("always")
    assert tiny.one_line(error.value, says=", ".join(JIT))


SHARE = """
import json, os, sys
import tensorflow as tf
from divco_tf.runtime.compute import share_cores
os.sched_getaffinity = lambda pid: range({cores})
told = share_cores({split_factor})
tf.zeros([]).numpy()
late = share_cores(100)
print(json.dumps([told, tf.config.threading.get_intra_op_parallelism_threads(), late]))
"""


@pytest.mark.parametrize(
    ("cores", "split_factor", "environment", "threads"),
    [(8, 4, {}, 2), (9, 2, {}, 4), (2, 1, {}, 2), (8, 4, {"TF_NUM_INTRAOP_THREADS": "3"}, None)],
)
def test_each_branch_gets_its_share_of_the_cores_unless_told_otherwise(cores, split_factor, environment, threads):
    code = SHARE.format(cores=cores, split_factor=split_factor)
    run = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    assert json.loads(run.stdout.splitlines()[-1]) == [threads, threads or 0, None]


def test_more_branches_than_cores_get_one_thread_each(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(2))
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", lambda threads: None)
    assert share_cores(4) == 1


def test_a_gpus_threads_are_left_alone(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert share_cores(4) is None


def test_cores_are_shared_by_a_whole_number_of_branches():
    with pytest.raises(InputError, match="split factor is no positive whole number. Received: 0"):
        share_cores(0)
