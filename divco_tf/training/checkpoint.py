"""Checkpoints of a run: which there are, how one is written and read.

A checkpoint is a folder `<step>` of TensorFlow's checkpoint files and `info.json`, complete or absent. Apart from
the last few, the best by the held-out images is kept; `best.json` names it.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from divco_tf import files
from divco_tf.errors import InputError

State = Mapping[str, Sequence[keras.Variable]]
"""Variables by group ("stack", "optimizer", "run"), each in a fixed order."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: pathlib.Path
    step: int

    def restore(self, state: State, *, partial: bool = False) -> None:
        """Reads the groups of `state`; `partial` allows the checkpoint to hold further groups.

        Raises:
          InputError: the files are damaged, or hold other variables.
        """
        try:
            status = _tracked(state).read(str(self.path / "state"))
            if partial:
                status.assert_existing_objects_matched()
                status.expect_partial()  # or TensorFlow warns of every variable that is not read
            else:
                status.assert_consumed()
        except (tf.errors.OpError, AssertionError, ValueError, IndexError) as error:  # IndexError: truncated data
            raise InputError(
                f"The checkpoint cannot be read ({' '.join(str(error).split())[:200]}). Received: {self.path}; "
                "remove that folder to go on from the one before."
            ) from error


class Checkpoints:
    """The checkpoints in one folder.

    Args:
      directory: made when the first is saved.
      keep: how many of the last stay; the best stays besides.
    """

    def __init__(self, directory: pathlib.Path, *, keep: int = 3) -> None:
        if keep < 1:
            raise InputError(f"At least one checkpoint is kept. Received: keep={keep}.")
        self._directory = pathlib.Path(directory)
        self._keep = keep

    def all(self) -> list[Checkpoint]:
        """Complete ones, oldest first."""
        found = [path for path in self._directory.glob("[0-9]*") if path.name.isdecimal()]
        found = [path for path in found if (path / "info.json").exists()]
        return sorted((Checkpoint(path, int(path.name)) for path in found), key=lambda found: found.step)

    def last(self) -> Checkpoint | None:
        """The newest, or None."""
        return next(reversed(self.all()), None)

    def best(self) -> Checkpoint | None:
        """The one with the highest accuracy on held-out images, or None."""
        step = self._best_record().get("step")
        return next((checkpoint for checkpoint in self.all() if checkpoint.step == step), None)

    def save(self, step: int, state: State, *, info: Mapping[str, Any] | None = None) -> Checkpoint:
        """Writes a checkpoint, complete or absent, and removes those that are no longer kept."""
        path = self._directory / f"{step:09d}"
        if not (path / "info.json").exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            if path.exists():  # what somebody removed in part
                files.remove_directory(path)
            with files.new_directory(path) as beside:
                _tracked(state).write(str(beside / "state"))
                files.write_json(beside / "info.json", {"step": step, **(info or {})})
            self._prune()
        return Checkpoint(path, step)

    def mark_best(self, checkpoint: Checkpoint, accuracy: float) -> bool:
        """Makes `checkpoint` the best if `accuracy` beats the present one's; says whether it did."""
        if accuracy <= self._best_record().get("accuracy", -1.0):
            return False
        files.write_json(self._directory / "best.json", {"step": checkpoint.step, "accuracy": accuracy})
        self._prune()
        return True

    def remove_unfinished(self) -> None:
        """Removes what a killed run left behind."""
        files.remove_unfinished(self._directory)

    def _best_record(self) -> dict:
        path = self._directory / "best.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _prune(self) -> None:
        best = self._best_record().get("step")
        for checkpoint in self.all()[: -self._keep]:
            if checkpoint.step != best:
                files.remove_directory(checkpoint.path)


def _tracked(state: State) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(
        **{group: [variable.value for variable in variables] for group, variables in state.items()}
    )
