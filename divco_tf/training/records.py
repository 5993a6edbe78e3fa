"""metrics.json: what a run's evaluations found."""

import json
import pathlib
from typing import Any

from divco_tf import files

METRICS = "metrics.json"


class Records:
    """The records of a run, one an evaluation, oldest first.

    Args:
      model_dir: of the run.
      writes: False keeps new ones in memory, as all workers of a job but the first do.
    """

    def __init__(self, model_dir: pathlib.Path, *, writes: bool = True) -> None:
        self._path, self._writes = model_dir / METRICS, writes
        self.all: list[dict[str, Any]] = json.loads(self._path.read_text()) if self._path.exists() else []
        self._unwritten = False

    def find(self, step: int, split: str) -> dict[str, Any] | None:
        """The record of a step and a split, or None."""
        return next((record for record in self.all if (record["step"], record["split"]) == (step, split)), None)

    def add(self, record: dict[str, Any]) -> None:
        """Adds a record and writes it.

        Raises:
          OSError: it cannot be written; it is kept, and `write` tries again.
        """
        self.all.append(record)
        self._unwritten = self._writes
        self.write()

    def write(self) -> None:
        """Writes what has not been written yet.

        Raises:
          OSError: it cannot be written.
        """
        if self._unwritten:
            files.write_json(self._path, self.all)
            self._unwritten = False

    def best(self, *, until: int | None = None) -> list[int]:
        """Steps by their accuracy on the held-out images, the best first, of equals the earliest; until a step."""
        held_out = [record for record in self.all if record["split"] == "held_out"]
        found = [record for record in held_out if until is None or record["step"] <= until]
        return [record["step"] for record in sorted(found, key=lambda found: (-found["accuracy"], found["step"]))]

    def without_gain(self, *, until: int) -> int:
        """How many evaluations of the held-out images, until a step, have come since the best one."""
        steps = sorted(self.best(until=until))
        return len(steps) - 1 - steps.index(self.best(until=until)[0]) if steps else 0
