"""Fixtures of the whole suite."""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest

from divco_tf.tools.shared.app import load_tensorflow


def pytest_configure(config) -> None:
    """Starts TensorFlow, quietly, wherever tests run: not in the process that only hands them to xdist's workers."""
    if not hasattr(config, "workerinput") and config.getoption("numprocesses", None):
        return
    load_tensorflow()
    import tensorflow as tf

    # Two logical devices, so that MirroredStrategy has replicas; it must be said before TensorFlow starts up.
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared"
SHARED_DATA = SHARED / "data" / "tfds"
SHARED_ABSENT = "shared data is absent"


@pytest.fixture(scope="session")
def cifar10_dir() -> str:
    """Folder of a prepared TFDS CIFAR-10, beside the checkout; skips where there is none."""
    if not (SHARED_DATA / "cifar10").is_dir():
        pytest.skip(SHARED_ABSENT)
    return str(SHARED_DATA)


@pytest.fixture(scope="session")
def reference_dir() -> pathlib.Path:
    """Folder of the example checkpoint, beside the checkout; skips where there is none."""
    folder = SHARED / "reference"
    if not (folder / "resnet110_split4_cifar100.pth.tar").is_file():
        pytest.skip(SHARED_ABSENT)
    return folder


CPU_SECONDS: list[float] = []  # of every process that ran tests, what it started included


def pytest_sessionfinish(session) -> None:
    """Tells the process that shows the summary how much CPU time the tests took in this one."""
    seconds = sum(os.times()[:4])
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["cpu_seconds"] = seconds
    elif not session.config.getoption("numprocesses", None):
        CPU_SECONDS.append(seconds)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    """Takes what one of xdist's workers tells at its end."""
    CPU_SECONDS.append(getattr(node, "workeroutput", {}).get("cpu_seconds", 0.0))


def pytest_terminal_summary(terminalreporter) -> None:
    """Says how many tests were skipped because shared data is absent, and what all of them took."""
    skipped = terminalreporter.stats.get("skipped", [])
    absent = sum(SHARED_ABSENT in str(report.longrepr) for report in skipped)
    terminalreporter.write_line(f"skipped because shared data is absent: {absent}")
    terminalreporter.write_line(f"CPU time: {sum(CPU_SECONDS) / 60:.1f} minutes")
