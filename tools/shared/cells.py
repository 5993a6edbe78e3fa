"""Cells of a sweep, each by `divco-sweep --cell` in a process of its own."""

import dataclasses
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence

from divco_tf.errors import Preempted, RunError
from divco_tf.tools.shared import app, streams

_PASSED_ON = (signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Commands:
    """The commands of a sweep's cells; the attributes are flags of `divco-sweep`."""

    config: str
    set: Sequence[str]
    bind: Sequence[str]
    grid: Sequence[str]
    out: str
    data_dir: str | None
    test: bool = True

    def of(self, cell: str) -> list[str]:
        """What runs the cell of a name."""
        flagged = [(name, each) for name in ("set", "bind", "grid") for each in getattr(self, name)]
        flagged += [("out", self.out), *([("data_dir", self.data_dir)] if self.data_dir else [])]
        flagged += [("test", "false")] * (not self.test)
        return ["divco-sweep", self.config, *(f"--{name}={value}" for name, value in flagged), f"--cell={cell}"]

    def line(self, cell: str) -> str:
        """The same for a shell."""
        return shlex.join(self.of(cell))

    def run(self, cell: str) -> None:
        """Runs a cell: what TensorFlow leaves in memory, and what kills it, stays in its process.

        Raises:
          Preempted: it was stopped by SIGTERM or Ctrl-C, which this process passes on.
          RunError: it was killed, or fell over.
        """
        # -P: a folder divco_tf where we are, such as a checkout, is not the package.
        command = [sys.executable, "-P", "-m", "divco_tf.tools.sweep", *self.of(cell)[1:]]
        command += ["--quiet"] * streams.quiet()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # stderr shows the live line of the cell
        before = {number: signal.signal(number, lambda number, _: process.send_signal(number)) for number in _PASSED_ON}
        try:
            status = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if status in (app.PREEMPTED, app.INTERRUPTED):
            raise Preempted("The cell was stopped; the same command goes on with it.")
        if status < 0:
            killed = signal.Signals(-status).name
            raise RunError(f"the process was killed by {killed}" + " (out of memory?)" * (killed == "SIGKILL"))
        if status not in (0, app.USAGE_ERROR, app.RUN_ERROR):  # of these two the process has written a row
            raise RunError(f"the process ended with status {status}")
