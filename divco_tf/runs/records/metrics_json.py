"""metrics.json: what a run's evaluations found."""

import json
import pathlib
import zlib
from typing import Any

from divco_tf import files
from divco_tf.errors import InputError
from divco_tf.runs.records.experiment_json import read_json

METRICS = "metrics.json"


class Records:
    """The records of a run, one an evaluation, oldest first.

    Args:
      model_dir: of the run.
      writes: False keeps new ones in memory, as all workers of a job but the first do.

    Raises:
      InputError: metrics.json is damaged, or something else.
    """

    def __init__(self, model_dir: pathlib.Path, *, writes: bool = True) -> None:
        self._path, self._writes = model_dir / METRICS, writes
        self.all: list[dict[str, Any]] = _read(self._path) if self._path.exists() else []
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

    def checksum(self) -> int:
        """Of all of them."""
        return zlib.crc32(json.dumps(self.all, sort_keys=True).encode())

    def best(self, *, until: int | None = None) -> list[int]:
        """Steps by their accuracy on the held-out images, the best first, of equals the earliest; until a step."""
        held_out = [record for record in self.all if record["split"] == "held_out"]
        found = [record for record in held_out if until is None or record["step"] <= until]
        return [record["step"] for record in sorted(found, key=lambda found: (-found["accuracy"], found["step"]))]

    def without_gain(self, *, until: int) -> int:
        """How many evaluations of the held-out images, until a step, have come since the best one."""
        steps = sorted(self.best(until=until))
        return len(steps) - 1 - steps.index(self.best(until=until)[0]) if steps else 0


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    records = read_json(path, list, "the evaluations of a run")
    for record in records:
        numbers = [record.get(name) for name in ("step", "accuracy")] if isinstance(record, dict) else [None]
        if not all(isinstance(number, int | float) for number in numbers) or not isinstance(record.get("split"), str):
            raise InputError(
                f"{METRICS} is not the evaluations of a run. Received: {path} with another content; put back a whole "
                "copy of it, or choose another model_dir."
            )
    return records
