"""Starts a command as several workers of one job on this computer, to try what several hosts will do:

  divco-launch 2 divco-train digits/wide_resnet10_2_split4 --model_dir runs/two --set strategy=multi_worker_mirrored

On real hosts every one runs the same command with its own TF_CONFIG, as printed here. Each line is led by its worker's
number. When one worker fails, so do the others, within about a minute; Ctrl-C and SIGTERM go to all of them. The exit
status is the first worker's that failed.
"""

import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import BinaryIO

from divco_tf.errors import InputError
from divco_tf.registry import did_you_mean
from divco_tf.tools.shared import app, streams


def main(count: str, command: Sequence[str], environment: dict[str, str]) -> None:
    """Runs the workers, and exits with the first status that is not 0."""
    if not count.isascii() or not count.isdigit() or int(count) == 0 or not command:
        raise InputError(
            f"Say how many workers, and what they run. Received: {' '.join([count, *command]) or 'nothing'}; "
            "divco-launch 2 divco-train ... works."
        )
    workers: list[subprocess.Popen] = []
    ends = {signal.SIGINT: signal.SIGINT, signal.SIGTERM: signal.SIGTERM, signal.SIGHUP: signal.SIGTERM}
    for received, sent in ends.items():
        signal.signal(received, lambda *_, sent=sent: [worker.send_signal(sent) for worker in workers])
    addresses = _addresses(int(count))
    readers = []
    for index in range(int(count)):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(_started(command, {**environment, "TF_CONFIG": json.dumps(task)}))
        streams.tell(f"divco-launch: worker {index}: TF_CONFIG='{json.dumps(task)}'")
        readers.append(threading.Thread(target=_tell, args=(index, workers[-1].stdout), daemon=True))
        readers[-1].start()
    statuses = [worker.wait() for worker in workers]
    for reader in readers:
        reader.join(timeout=10)  # a child that a worker leaves behind may keep the pipe
    failed = next((status for status in statuses if status), 0)
    sys.exit(failed if failed >= 0 else 128 - failed)  # as a shell reports a signal


def _addresses(count: int) -> list[str]:
    sockets = [socket.socket() for _ in range(count)]  # all open at once, so that the ports differ
    for one in sockets:
        one.bind(("localhost", 0))
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def _started(command: Sequence[str], environment: dict[str, str]) -> subprocess.Popen:
    """A worker in a session of its own: a terminal's Ctrl-C reaches it once, through us."""
    try:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        scripts = [point.name for point in importlib.metadata.distribution("divco_tf").entry_points]
        raise InputError(
            f"The command cannot be started ({error.strerror}). Received: {command[0]}."
            f"{did_you_mean(command[0], scripts)} divco-launch 2 divco-train ... works."
        ) from error


_TELLING = threading.Lock()


def _tell(index: int, output: BinaryIO) -> None:
    for line in output:
        with _TELLING:
            streams.tell(f"[worker {index}] {line.decode(errors='backslashreplace').rstrip(os.linesep)}")


def run() -> None:
    """The console script. Flags before the count are ours (--help), and those behind it the command's."""
    environment = dict(os.environ)  # as it was given to us
    split = next((place for place, text in enumerate(sys.argv) if place and not text.startswith("-")), len(sys.argv))
    sys.argv, (count, *command) = sys.argv[:split], sys.argv[split:] or [""]
    app.run(lambda: main(count, command, environment), program="divco-launch", behind="WORKERS COMMAND ...")


if __name__ == "__main__":
    run()
